#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/kernel/weights.h"
#include "engine/plan.h"

/* Room for one more element of `size` bytes. */
static bool grow(void **data, size_t n, size_t *cap, size_t size) {
    size_t more = *cap ? 2 * *cap : 64;
    void *d;

    if (n < *cap)
        return true;
    d = realloc(*data, more * size);
    if (!d)
        return false;
    *data = d;
    *cap = more;
    return true;
}

int plan_add_buffer(struct plan *p, enum buffer_kind kind, size_t size) {
    if (!grow((void **)&p->buffers, p->n_buffers, &p->buffers_cap, sizeof(*p->buffers)))
        return -ENOMEM;
    p->buffers[p->n_buffers] =
        (struct buffer){.kind = kind, .size = size, .first = -1, .last = -1, .shared = -1};
    return (int)p->n_buffers++;
}

size_t plan_form_bytes(const struct form *f) {
    struct shape s = f->shape;
    size_t bytes = 0;

    if (f->type.layout == LAYOUT_nChw16c && s.rank >= 3)
        s.dim[1] = (s.dim[1] + 15) / 16 * 16;
    if (f->type.layout == LAYOUT_BITS && s.rank >= 3) {
        s.dim[1] = (s.dim[1] + 63) / 64;
        (void)shape_bytes(&s, DT_U64, &bytes);
        return bytes;
    }
    (void)shape_bytes(&s, f->type.dtype, &bytes); /* cannot overflow: plan_infer limits sizes */
    return bytes;
}

int plan_add_form(struct plan *p, int value, const struct vtype *type, int buffer) {
    struct form f = {.value = value, .type = *type, .shape = p->values[value].tensor.shape, .buffer = buffer};

    if (!grow((void **)&p->forms, p->n_forms, &p->forms_cap, sizeof(*p->forms)))
        return -ENOMEM;
    if (buffer < 0)
        f.buffer = plan_add_buffer(p, BUFFER_ARENA, plan_form_bytes(&f));
    if (f.buffer < 0)
        return f.buffer;
    f.next = p->first_form[value];
    p->forms[p->n_forms] = f;
    p->first_form[value] = (int)p->n_forms;
    return (int)p->n_forms++;
}

struct step *plan_add_step(
    struct plan *p, const struct kernel *k, const struct node *n, int n_in, int n_out) {
    struct step s = {
        .kernel = k, .node = n, .n_in = n_in, .n_out = n_out, .in_place_post = -1, .scratch = -1};

    for (int i = 0; i < NODE_MAX_POSTS; i++)
        s.post_in[i] = -1;
    if (!grow((void **)&p->steps, p->n_steps, &p->steps_cap, sizeof(*p->steps)))
        return NULL;
    s.in = calloc((size_t)(n_in + n_out) + 1, sizeof(int));
    if (!s.in)
        return NULL;
    s.out = s.in + n_in;
    p->steps[p->n_steps] = s;
    return &p->steps[p->n_steps++];
}

static bool same_type(const struct vtype *a, const struct vtype *b) {
    return a->dtype == b->dtype && a->layout == b->layout && a->quant.scale == b->quant.scale &&
           a->quant.zero == b->quant.zero;
}

/* An aligned copy of an initialiser, shared by the plans of the net: the file lies anywhere and may leave
 * memory once everything is packed. */
static int copy_constant(
    const struct plan_env *env, int v, size_t bytes, const void **ret, struct error *err) {
    const struct tensor *init = env->graph->values[v].init;
    const struct pack *found;
    struct pack *p;
    char key[PACK_KEY_MAX];
    int r;

    snprintf(key, sizeof(key), "constant/%d/%.200s", v, env->graph->values[v].name);
    found = pack_find(env->packs, key);
    if (!found) {
        r = pack_new(key, NULL, 0, bytes, &p, err);
        if (r < 0)
            return r;
        memcpy(p->data, init->data, bytes);
        found = pack_publish(env->packs, p);
    }
    *ret = found->data;
    return 0;
}

int plan_constant_form(struct plan *p, const struct plan_env *env, int v, struct error *err) {
    struct tensor *t = &p->values[v].tensor;
    struct vtype type = {.dtype = t->dtype, .layout = LAYOUT_PLAIN};
    const void *data;
    size_t bytes;
    int buffer, r;

    if (p->first_form[v] >= 0)
        return p->first_form[v];
    r = plan_materialise(p, env->graph, v, err);
    if (r < 0)
        return r;
    if (!shape_bytes(&t->shape, t->dtype, &bytes))
        return error_set(err, -EFBIG, "constant '%s' is too large", env->graph->values[v].name);
    data = t->data;
    if (env->graph->values[v].init)
        r = copy_constant(env, v, bytes, &data, err);
    if (r < 0)
        return r;
    buffer = plan_add_buffer(p, BUFFER_CONST, bytes);
    if (buffer >= 0)
        p->buffers[buffer].data = data;
    r = buffer < 0 ? buffer : plan_add_form(p, v, &type, buffer);
    return r < 0 ? error_oom(err) : r;
}

const struct kernel *plan_find_conversion(const struct plan_env *env, const struct layer *l) {
    for (size_t i = 0; i < kernel_convert_table_size; i++) {
        if (kernel_convert_table[i]->fits(&env->options->cpu, l))
            return kernel_convert_table[i];
    }
    return NULL;
}

void plan_fill_conversion(const struct plan *p, const struct plan_env *env, const struct shape *s,
    const struct vtype *from, const struct vtype *to, struct layer_box *ret) {
    memset(ret, 0, sizeof(*ret));
    ret->in[0] = (struct tensor){.dtype = from->dtype, .shape = *s, .layout = from->layout};
    ret->out[0] = (struct tensor){.dtype = to->dtype, .shape = *s, .layout = to->layout};
    ret->in_type[0] = *from;
    ret->out_type[0] = *to;
    ret->in_ptr[0] = &ret->in[0];
    ret->l = (struct layer){
        .graph = env->graph,
        .n_in = 1,
        .n_out = 1,
        .in = ret->in_ptr,
        .out = ret->out,
        .in_type = ret->in_type,
        .out_type = ret->out_type,
        .post_in = ret->post,
        .post_type = ret->post_type,
        .in_place_post = -1,
        .n_threads = p->n_threads,
        .is_compact = env->options->policy == NET_MEMORY,
        .cpu = &env->options->cpu,
        .onednn = env->onednn,
    };
}

static int convert(
    struct plan *p, const struct plan_env *env, int from, const struct vtype *to, struct error *err) {
    struct layer_box box;
    const struct kernel *k;
    struct step *s;
    int form;

    plan_fill_conversion(p, env, &p->forms[from].shape, &p->forms[from].type, to, &box);
    k = plan_find_conversion(env, &box.l);
    if (!k)
        return error_set(err, -EOPNOTSUPP, "no conversion of value '%s' from %s to %s",
            env->graph->values[p->forms[from].value].name, layout_name(p->forms[from].type.layout),
            layout_name(to->layout));
    form = plan_add_form(p, p->forms[from].value, to, -1);
    s = form < 0 ? NULL : plan_add_step(p, k, NULL, 1, 1);
    if (!s)
        return error_oom(err);
    s->in[0] = from;
    s->out[0] = form;
    return form;
}

int plan_want_form(struct plan *p, const struct plan_env *env, int v, enum layout layout, struct error *err) {
    struct vtype type = {
        .dtype = p->values[v].tensor.dtype, .layout = layout, .quant = env->graph->values[v].quant};
    const struct shape *s = &p->values[v].tensor.shape;
    int best = -1;

    if (s->rank < 3)
        type.layout = LAYOUT_PLAIN;
    for (int f = p->first_form[v]; f >= 0; f = p->forms[f].next) {
        if (same_type(&p->forms[f].type, &type))
            return f;
        best = f;
    }
    for (int f = p->first_form[v]; f >= 0; f = p->forms[f].next) {
        if (layout_normal(s, p->forms[f].type.layout) == layout_normal(s, type.layout)) {
            int r = plan_add_form(p, v, &type, p->forms[f].buffer);

            return r < 0 ? error_oom(err) : r;
        }
    }
    if (best < 0)
        return error_set(err, -EIO, "value '%s' is used before it is computed", env->graph->values[v].name);
    return convert(p, env, best, &type, err);
}
