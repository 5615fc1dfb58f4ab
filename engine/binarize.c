#include "engine/binarize.h"

#include <errno.h>
#include <string.h>

bool binarize_at(const struct binarize_param *p, int64_t c, float x) {
    int64_t i = p->n > 1 ? c : 0;
    uint32_t bits;

    memcpy(&bits, &x, sizeof(bits));
    bits ^= p->flip[i];
    memcpy(&x, &bits, sizeof(bits));
    return x >= p->limit[i];
}

static int binarize_shape(
    const struct node *n, const struct tensor *const *in, struct tensor *out, struct error *err) {
    const struct binarize_param *p = n->param;
    const struct shape *s = &in[0]->shape;

    if (p->n > 1 && (s->rank < 2 || s->dim[1] != p->n))
        return error_code(
            err, -EBADMSG, "shape_mismatch", "the input has not the %lld channels", (long long)p->n);
    out[0].dtype = DT_F32;
    out[0].shape = *s;
    return 0;
}

static void binarize_forward(
    const struct node *n, const struct tensor *const *in, struct tensor *out, void *scratch) {
    const struct shape *s = &out[0].shape;
    const float *x = in[0]->data;
    float *y = out[0].data;
    int64_t count = 0, inner = 1, channels = s->rank > 1 ? s->dim[1] : 1;

    (void)scratch;
    (void)shape_count(s, &count);
    for (int d = 2; d < s->rank; d++)
        inner *= s->dim[d];
    for (int64_t i = 0; i < count; i++)
        y[i] = binarize_at(n->param, i / inner % channels, x[i]) ? 1.0f : -1.0f;
}

static void binarize_cost(
    const struct node *n, const struct tensor *const *in, const struct tensor *out, struct op_cost *ret) {
    int64_t count = 0;

    (void)n;
    (void)in;
    *ret = (struct op_cost){0};
    if (shape_count(&out[0].shape, &count))
        ret->bytes = count * (int64_t)sizeof(float) + count / 8;
}

const struct op op_binarize = {
    .name = "Binarize",
    .domain = "bonsai",
    .since = 1,
    .until = 99,
    .min_in = 1,
    .max_in = 1,
    .min_out = 1,
    .max_out = 1,
    .shape = binarize_shape,
    .forward = binarize_forward,
    .cost = binarize_cost,
    .couple = OP_COUPLE_SAME,
    .quant = OP_QUANT_FLOAT,
};
