/* oneDNN's int8 convolution and inner product, called directly: 8-bit unsigned in, signed weights with a
 * scale a channel, 8-bit unsigned out, layouts of its own choice. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "engine/hugemem.h"
#include "engine/onednn.h"
#include "tests/bench/kernel_bench.h"

enum { SRC, WEIGHTS, DST, BIAS, N_ARGS };

struct peer {
    struct onednn *onednn;
    struct onednn_prim *prim;
    dnnl_primitive_attr_t attr;
    void *data[N_ARGS], *scratch;
    size_t size[N_ARGS], scratch_size;
};

static const int args[N_ARGS] = {DNNL_ARG_SRC, DNNL_ARG_WEIGHTS, DNNL_ARG_DST, DNNL_ARG_BIAS};

static void any_desc(dnnl_memory_desc_t *d, int rank, const dnnl_dims_t dims, dnnl_data_type_t t) {
    dnnl_memory_desc_init_by_tag(d, rank, dims, t, rank == 1 ? dnnl_a : dnnl_format_tag_any);
}

static dnnl_status_t describe_conv(
    const struct layer_shape *s, dnnl_memory_desc_t d[static N_ARGS], dnnl_convolution_desc_t *ret) {
    const dnnl_dim_t g = or_one(s->groups), out = layer_out_size(s), p = s->kernel / 2;
    const dnnl_dims_t x = {or_one(s->batch), s->ic, s->size, s->size}, b = {s->oc};
    const dnnl_dims_t y = {or_one(s->batch), s->oc, out, out};
    const dnnl_dims_t w = {s->oc, s->ic, s->kernel, s->kernel};
    const dnnl_dims_t in_groups = {g, s->oc / g, s->ic / g, s->kernel, s->kernel};
    const dnnl_dims_t strides = {or_one(s->stride), or_one(s->stride)};
    const dnnl_dim_t after = (out - 1) * or_one(s->stride) + s->kernel - p - s->size;
    const dnnl_dims_t left = {p, p}, right = {after > 0 ? after : 0, after > 0 ? after : 0};

    any_desc(&d[SRC], 4, x, dnnl_u8);
    any_desc(&d[WEIGHTS], g > 1 ? 5 : 4, g > 1 ? in_groups : w, dnnl_s8);
    any_desc(&d[DST], 4, y, dnnl_u8);
    any_desc(&d[BIAS], 1, b, dnnl_s32);
    return dnnl_convolution_forward_desc_init(ret, dnnl_forward_inference, dnnl_convolution_direct, &d[SRC],
        &d[WEIGHTS], &d[BIAS], &d[DST], strides, left, right);
}

static dnnl_status_t describe_inner(
    const struct layer_shape *s, dnnl_memory_desc_t d[static N_ARGS], dnnl_inner_product_desc_t *ret) {
    const dnnl_dims_t x = {or_one(s->batch), s->ic}, y = {or_one(s->batch), s->oc}, w = {s->oc, s->ic},
                      b = {s->oc};

    any_desc(&d[SRC], 2, x, dnnl_u8);
    any_desc(&d[WEIGHTS], 2, w, dnnl_s8);
    any_desc(&d[DST], 2, y, dnnl_u8);
    any_desc(&d[BIAS], 1, b, dnnl_s32);
    return dnnl_inner_product_forward_desc_init(
        ret, dnnl_forward_inference, &d[SRC], &d[WEIGHTS], &d[BIAS], &d[DST]);
}

static int set_scales(struct peer *p, int64_t oc) {
    float *scale = malloc((size_t)oc * sizeof(*scale));
    dnnl_status_t st = dnnl_out_of_memory;

    for (int64_t i = 0; scale && i < oc; i++)
        scale[i] = 0.002f + 0.0001f * (float)(i % 7);
    if (scale && dnnl_primitive_attr_create(&p->attr) == dnnl_success) {
        dnnl_primitive_attr_set_scratchpad_mode(p->attr, dnnl_scratchpad_mode_user);
        st = dnnl_primitive_attr_set_output_scales(p->attr, oc, 2, scale);
    }
    free(scale);
    return st == dnnl_success ? 0 : -ENOMEM;
}

static int make_primitive(struct peer *p, const struct layer_shape *s, struct error *err) {
    dnnl_memory_desc_t d[N_ARGS];
    dnnl_convolution_desc_t conv;
    dnnl_inner_product_desc_t inner;
    dnnl_status_t st = s->kernel ? describe_conv(s, d, &conv) : describe_inner(s, d, &inner);

    if (st != dnnl_success)
        return onednn_error(err, st, "oneDNN's int8");
    if (set_scales(p, s->oc) < 0)
        return error_oom(err);
    return onednn_prim_new(
        p->onednn, s->kernel ? (const void *)&conv : &inner, p->attr, args, N_ARGS, NULL, &p->prim, err);
}

int peer_new(const struct layer_shape *s, struct peer **ret, struct error *err) {
    struct peer *p = calloc(1, sizeof(*p));
    int r = p ? onednn_new(&p->onednn, err) : error_oom(err);

    onednn_enter();
    if (r == 0)
        r = make_primitive(p, s, err);
    for (int i = 0; r == 0 && i < N_ARGS; i++) {
        p->size[i] = dnnl_memory_desc_get_size(onednn_prim_desc(p->prim, args[i]));
        p->data[i] = hugemem_new(p->size[i]);
        if (!p->data[i])
            r = error_oom(err);
        else if (i != BIAS)
            for (size_t k = 0; k < p->size[i]; k++)
                ((uint8_t *)p->data[i])[k] = (uint8_t)(k * 2654435761u >> 24);
    }
    if (r == 0) {
        p->scratch_size = onednn_prim_scratch(p->prim);
        p->scratch = hugemem_new(p->scratch_size);
        r = p->scratch ? 0 : error_oom(err);
    }
    if (r < 0)
        p = peer_free(p);
    *ret = p;
    return r;
}

struct peer *peer_free(struct peer *p) {
    if (!p)
        return NULL;
    onednn_prim_free(p->prim);
    if (p->attr)
        dnnl_primitive_attr_destroy(p->attr);
    for (int i = 0; i < N_ARGS; i++)
        hugemem_free(p->data[i], p->size[i]);
    hugemem_free(p->scratch, p->scratch_size);
    onednn_free(p->onednn);
    free(p);
    return NULL;
}

void peer_run(struct peer *p) {
    onednn_prim_run(p->prim, p->data, p->scratch);
}

const char *peer_name(const struct peer *p) {
    return onednn_prim_name(p->prim);
}

size_t peer_weight_bytes(const struct peer *p) {
    return p->size[WEIGHTS];
}
