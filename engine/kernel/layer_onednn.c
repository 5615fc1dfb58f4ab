#include "engine/kernel/layer_onednn.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "engine/hugemem.h"
#include "engine/kernel/post_onednn.h"
#include "engine/kernel/weights.h"

struct kernel_state {
    struct onednn_prim *prim;
    const struct pack *weights, *bias; /* bias NULL: none */
    int n_binary;
    int post[NODE_MAX_POSTS];
};

struct kernel_state *layer_onednn_done(struct kernel_state *s) {
    if (!s)
        return NULL;
    onednn_prim_free(s->prim);
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

static int pack_weights(const struct layer *l, const struct layer_onednn_spec *spec, struct pack_cache *packs,
    const char *key, const dnnl_memory_desc_t *desc, const struct pack **ret, struct error *err) {
    size_t size = 0;
    float *plain = NULL;
    struct pack *p;
    int r = pack_new(key, desc, sizeof(*desc), dnnl_memory_desc_get_size(desc), &p, err);

    if (r < 0)
        return r;
    r = plain_weights(l, spec, &plain, &size, err);
    if (r == 0)
        r = onednn_reorder(l->onednn, &spec->weights, plain, desc, p->data, err);
    hugemem_free(plain, size);
    if (r < 0) {
        pack_drop(p);
        return r;
    }
    *ret = pack_publish(packs, p);
    return *ret ? 0 : error_oom(err);
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
    return *ret ? 0 : error_oom(err);
}

static int new_primitive(const struct layer *l, const struct layer_onednn_spec *spec,
    const dnnl_memory_desc_t *weights, const struct post_onednn *post, struct onednn_prim **ret,
    struct error *err) {
    int args[ONEDNN_MAX_ARGS], n = 0;
    union onednn_op_desc d;
    dnnl_status_t st = spec->describe(l, weights, spec->bias != NULL, &d);

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

/* With the layout of an earlier plan if there is one and fast code takes it, else with a new one. */
static int make_primitive(struct kernel_state *s, const struct layer *l, const struct layer_onednn_spec *spec,
    const struct post_onednn *post, struct pack_cache *packs, struct error *err) {
    dnnl_memory_desc_t any;
    int r = -EOPNOTSUPP;

    onednn_enter();
    for (int attempt = 0; attempt < 2 && r == -EOPNOTSUPP; attempt++) {
        char key[PACK_KEY_MAX];
        struct error ignored = {0};

        s->weights = pack_find(packs, kernel_pack_key(key, spec->kernel, l, attempt ? "w2" : "w"));
        if (s->weights) {
            r = new_primitive(l, spec, s->weights->meta, post, &s->prim, &ignored);
            if (r == -ENOMEM)
                return error_oom(err);
            continue;
        }
        if (dnnl_memory_desc_init_by_tag(
                &any, spec->weights.ndims, spec->weights.dims, dnnl_f32, dnnl_format_tag_any) != dnnl_success)
            return onednn_error(err, dnnl_invalid_arguments, spec->kernel);
        r = new_primitive(l, spec, &any, post, &s->prim, err);
        if (r < 0)
            return r;
        return pack_weights(
            l, spec, packs, key, onednn_prim_desc(s->prim, DNNL_ARG_WEIGHTS), &s->weights, err);
    }
    return r < 0 ? error_set(err, r, "no fast code takes the weights as packed") : 0;
}

int layer_onednn_prepare(const struct layer *l, const struct layer_onednn_spec *spec,
    struct pack_cache *packs, struct kernel_state **ret, size_t *ret_scratch, struct error *err) {
    _cleanup_(layer_onednn_donep) struct kernel_state *s = calloc(1, sizeof(*s));
    _cleanup_(post_onednn_done) struct post_onednn post = {0};
    int r;

    if (!s)
        return error_oom(err);
    r = post_onednn_init(l, &post, err);
    if (r == 0)
        r = make_primitive(s, l, spec, &post, packs, err);
    if (r == 0 && spec->bias)
        r = pack_bias(l, spec, packs, &s->bias, err);
    if (r < 0)
        return r;
    s->n_binary = post.n_binary;
    memcpy(s->post, post.post, sizeof(s->post));
    *ret_scratch = onednn_prim_scratch(s->prim);
    *ret = TAKE(s);
    return 0;
}

void layer_onednn_run(const struct kernel_state *s, const struct run_io *io) {
    void *data[ONEDNN_MAX_ARGS];
    int n = 0;

    data[n++] = (void *)(uintptr_t)io->in[0];
    data[n++] = s->weights->data;
    data[n++] = io->out[0];
    if (s->bias)
        data[n++] = s->bias->data;
    for (int i = 0; i < s->n_binary; i++)
        data[n++] = (void *)(uintptr_t)io->post_in[s->post[i]];
    onednn_prim_run(s->prim, data, io->scratch);
}
