#include "engine/kernel/layer_onednn.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "engine/hugemem.h"
#include "engine/kernel/pack_blocked.h"
#include "engine/kernel/post_onednn.h"
#include "engine/kernel/weights.h"
#include "engine/pool.h"

#define MAX_PARTS 64

struct part {
    struct onednn_prim *prim;
    size_t in_at, out_at, weights_at, bias_at, scratch_at; /* bytes */
};

struct kernel_state {
    const struct pack *weights, *bias; /* bias NULL: none */
    int n_binary;
    int post[NODE_MAX_POSTS];
    unsigned n_parts;
    struct part *part;
};

struct kernel_state *layer_onednn_done(struct kernel_state *s) {
    if (!s)
        return NULL;
    for (unsigned i = 0; i < s->n_parts; i++)
        onednn_prim_free(s->part[i].prim);
    free(s->part);
    free(s);
    return NULL;
}
DEFINE_CLEANUP(struct kernel_state *, layer_onednn_done)

bool layer_onednn_is_f32(const struct layer *l) {
    return l->in[0]->dtype == DT_F32 && l->out[0].dtype == DT_F32;
}

/* The weights as plain floats, multiplied. The caller frees with hugemem_free. */
static int plain_weights(const struct layer *l, const struct layer_onednn_spec *spec, float **ret,
    size_t *ret_size, struct error *err) {
    int64_t n = 0;
    float *w;
    int r;

    if (!shape_count(kernel_weight_shape(l), &n))
        return error_set(err, -EFBIG, "weights are too large");
    *ret_size = (size_t)n * sizeof(float);
    w = hugemem_new(*ret_size);
    if (!w)
        return error_oom(err);
    r = kernel_copy_weights(l, w, err);
    if (r < 0) {
        hugemem_free(w, *ret_size);
        return r;
    }
    for (int64_t i = 0; spec->weight_factor != 1 && i < n; i++)
        w[i] *= spec->weight_factor;
    *ret = w;
    return 0;
}

/* What was packed of the file leaves memory before the rest comes in. */
static void release_pages(void *ctx) {
    const struct layer *l = ctx;

    graph_release_pages(l->graph);
}

static int pack_weights(const struct layer *l, const struct layer_onednn_spec *spec, struct pack_cache *packs,
    const char *key, const dnnl_memory_desc_t *desc, const struct pack **ret, struct error *err) {
    size_t size = 0;
    float *plain = NULL;
    const void *from;
    struct pack *p;
    int r = pack_new(key, desc, sizeof(*desc), dnnl_memory_desc_get_size(desc), &p, err);

    if (r < 0)
        return r;
    /* straight from the file when it can be: the copy would be half the peak of loading */
    from = spec->weight_factor == 1 ? kernel_plain_weights(l) : NULL;
    if (!from) {
        r = plain_weights(l, spec, &plain, &size, err);
        from = plain;
    }
    if (r == 0 && !pack_blocked_f32(&spec->weights, from, desc, p->data, plain ? NULL : release_pages,
                      (void *)(uintptr_t)l))
        r = onednn_reorder(l->onednn, &spec->weights, from, desc, p->data, err);
    hugemem_free(plain, size);
    if (r < 0) {
        pack_drop(p);
        return r;
    }
    *ret = pack_publish(packs, p);
    return 0;
}

static int pack_bias(const struct layer *l, const struct layer_onednn_spec *spec, struct pack_cache *packs,
    const struct pack **ret, struct error *err) {
    const struct tensor *t = spec->bias;
    char key[PACK_KEY_MAX];
    const struct pack *found;
    struct pack *p;
    int64_t n = 0;
    int r;

    found = pack_find(packs, kernel_pack_key(key, spec->kernel, l, "b"));
    if (found) {
        *ret = found;
        return 0;
    }
    if (!shape_count(&t->shape, &n) || (n != 1 && n != spec->n_bias))
        return error_set(err, -EOPNOTSUPP, "bias has another length");
    r = pack_new(key, NULL, 0, (size_t)spec->n_bias * sizeof(float), &p, err);
    if (r < 0)
        return r;
    for (int64_t i = 0; i < spec->n_bias; i++) {
        float b;

        memcpy(&b, (const char *)t->data + (size_t)(n == 1 ? 0 : i) * sizeof(b), sizeof(b));
        ((float *)p->data)[i] = b * spec->bias_factor;
    }
    *ret = pack_publish(packs, p);
    return 0;
}

static int new_primitive(const struct layer *l, const struct layer_onednn_spec *spec,
    const struct layer_slice *slice, const struct post_onednn *post, struct onednn_prim **ret,
    struct error *err) {
    int args[ONEDNN_MAX_ARGS], n = 0;
    union onednn_op_desc d;
    dnnl_status_t st = spec->describe(l, slice, spec->bias != NULL, &d);

    if (st != dnnl_success)
        return onednn_error(err, st, spec->kernel);
    args[n++] = DNNL_ARG_SRC;
    args[n++] = DNNL_ARG_WEIGHTS;
    args[n++] = DNNL_ARG_DST;
    if (spec->bias)
        args[n++] = DNNL_ARG_BIAS;
    for (int i = 0; i < post->n_binary; i++)
        args[n++] = post->arg[i];
    return onednn_prim_new(l->onednn, &d, post->attr, args, n, post->desc, ret, err);
}

static struct layer_slice whole_layer(const struct layer *l) {
    return (struct layer_slice){.in = l->in[0]->shape, .out = l->out[0].shape};
}

/* One primitive for the whole layer, with the layout of an earlier plan if there is one and fast code takes
 * it, else with a new one. */
static int make_whole(struct kernel_state *s, const struct layer *l, const struct layer_onednn_spec *spec,
    const struct post_onednn *post, struct pack_cache *packs, struct error *err) {
    struct layer_slice slice = whole_layer(l);
    struct onednn_prim **prim = &s->part[0].prim;
    int r = -EOPNOTSUPP;

    onednn_enter();
    for (int attempt = 0; attempt < 2 && r == -EOPNOTSUPP; attempt++) {
        char key[PACK_KEY_MAX];
        struct error ignored = {0};

        s->weights = pack_find(packs, kernel_pack_key(key, spec->kernel, l, attempt ? "w2" : "w"));
        if (s->weights) {
            memcpy(&slice.weights, s->weights->meta, sizeof(slice.weights));
            r = new_primitive(l, spec, &slice, post, prim, &ignored);
            if (r == -ENOMEM)
                return error_oom(err);
            continue;
        }
        if (dnnl_memory_desc_init_by_tag(&slice.weights, spec->weights.ndims, spec->weights.dims, dnnl_f32,
                dnnl_format_tag_any) != dnnl_success)
            return onednn_error(err, dnnl_invalid_arguments, spec->kernel);
        r = new_primitive(l, spec, &slice, post, prim, err);
        if (r < 0)
            return r;
        return pack_weights(l, spec, packs, key, onednn_prim_desc(*prim, DNNL_ARG_WEIGHTS), &s->weights, err);
    }
    return r < 0 ? error_set(err, r, "no fast code takes the weights as packed") : 0;
}

static void parts_free(struct part *part, unsigned n) {
    for (unsigned i = 0; part && i < n; i++)
        onednn_prim_free(part[i].prim);
    free(part);
}

/* One primitive a thread, each on its part. The code must be the one that does the whole, so that no bit of
 * the result depends on the number of threads. -EOPNOTSUPP: it cannot be cut. */
static int make_parts(const struct kernel_state *s, const struct layer *l,
    const struct layer_onednn_spec *spec, unsigned n, struct part *part, struct error *err) {
    for (unsigned i = 0; i < n; i++) {
        _cleanup_(post_onednn_done) struct post_onednn post = {0};
        struct layer_slice slice = whole_layer(l);
        int r;

        memcpy(&slice.weights, s->weights->meta, sizeof(slice.weights));
        if (!spec->cut(l, n, i, &slice))
            return -EOPNOTSUPP;
        r = post_onednn_init(l, &slice.out, &post, err);
        if (r == 0)
            r = new_primitive(l, spec, &slice, &post, &part[i].prim, err);
        if (r < 0)
            return r;
        if (strcmp(onednn_prim_name(part[i].prim), onednn_prim_name(s->part[0].prim)) != 0)
            return -EOPNOTSUPP;
        part[i].in_at = slice.in_at;
        part[i].out_at = slice.out_at;
        part[i].weights_at = slice.weights_at;
        part[i].bias_at = slice.bias_at;
    }
    return 0;
}

/* Below this many multiplications (some 10 us) waking another thread costs more than it brings. */
#define MIN_MACS_A_PART (1 << 20)

static int split(struct kernel_state *s, const struct layer *l, const struct layer_onednn_spec *spec) {
    int64_t n = spec->macs / MIN_MACS_A_PART;
    struct error ignored = {0};
    struct part *part;
    int r;

    n = n < (int64_t)l->n_threads ? n : (int64_t)l->n_threads;
    n = n < MAX_PARTS ? n : MAX_PARTS;
    if (n < 2 || !spec->cut)
        return 0;
    part = calloc((size_t)n, sizeof(*part));
    if (!part)
        return -ENOMEM;
    r = make_parts(s, l, spec, (unsigned)n, part, &ignored);
    if (r < 0) {
        parts_free(part, (unsigned)n);
        return r == -ENOMEM ? r : 0; /* stays whole */
    }
    parts_free(s->part, s->n_parts);
    s->part = part;
    s->n_parts = (unsigned)n;
    return 0;
}

static size_t place_scratch(struct kernel_state *s) {
    size_t used = 0;

    for (unsigned i = 0; i < s->n_parts; i++) {
        s->part[i].scratch_at = used;
        used += (onednn_prim_scratch(s->part[i].prim) + 63) / 64 * 64;
    }
    return used;
}

int layer_onednn_prepare(const struct layer *l, const struct layer_onednn_spec *spec,
    struct pack_cache *packs, struct kernel_state **ret, size_t *ret_scratch, struct error *err) {
    _cleanup_(layer_onednn_donep) struct kernel_state *s = calloc(1, sizeof(*s));
    _cleanup_(post_onednn_done) struct post_onednn post = {0};
    int r;

    if (!s)
        return error_oom(err);
    s->part = calloc(1, sizeof(*s->part));
    if (!s->part)
        return error_oom(err);
    s->n_parts = 1;
    r = post_onednn_init(l, &l->out[0].shape, &post, err);
    if (r == 0)
        r = make_whole(s, l, spec, &post, packs, err);
    if (r == 0 && spec->bias)
        r = pack_bias(l, spec, packs, &s->bias, err);
    if (r < 0)
        return r;
    if (split(s, l, spec) < 0)
        return error_oom(err);
    s->n_binary = post.n_binary;
    memcpy(s->post, post.post, sizeof(s->post));
    *ret_scratch = place_scratch(s);
    *ret = TAKE(s);
    return 0;
}

struct call {
    const struct kernel_state *s;
    const struct run_io *io;
};

static void run_part(void *ctx, unsigned i) {
    const struct call *c = ctx;
    const struct part *p = &c->s->part[i];
    void *data[ONEDNN_MAX_ARGS];
    int n = 0;

    if (c->s->n_parts > 1)
        onednn_enter();
    data[n++] = (char *)(uintptr_t)c->io->in[0] + p->in_at;
    data[n++] = (char *)c->s->weights->data + p->weights_at;
    data[n++] = (char *)c->io->out[0] + p->out_at;
    if (c->s->bias)
        data[n++] = (char *)c->s->bias->data + p->bias_at;
    for (int k = 0; k < c->s->n_binary; k++)
        data[n++] = (char *)(uintptr_t)c->io->post_in[c->s->post[k]] + p->out_at;
    onednn_prim_run(p->prim, data, (char *)c->io->scratch + p->scratch_at);
}

void layer_onednn_run(const struct kernel_state *s, const struct run_io *io) {
    struct call c = {.s = s, .io = io};

    if (s->n_parts == 1)
        run_part(&c, 0);
    else
        pool_run(io->pool, s->n_parts, run_part, &c);
}
