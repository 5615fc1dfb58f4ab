#include "engine/lookup.h"

static int lookup_shape(
    const struct node *n, const struct tensor *const *in, struct tensor *out, struct error *err) {
    const struct lookup_param *p = n->param;

    (void)err;
    out[0].dtype = p->out;
    out[0].shape = in[0]->shape;
    return 0;
}

static void lookup_forward(
    const struct node *n, const struct tensor *const *in, struct tensor *out, void *scratch) {
    const struct lookup_param *p = n->param;
    const uint8_t *x = in[0]->data;
    uint8_t *y = out[0].data;
    int64_t count;

    (void)scratch;
    if (!shape_count(&out[0].shape, &count))
        return;
    for (int64_t i = 0; i < count; i++)
        y[i] = p->table[x[i]];
}

static void lookup_cost(
    const struct node *n, const struct tensor *const *in, const struct tensor *out, struct op_cost *ret) {
    int64_t count = 0;

    (void)n;
    (void)in;
    *ret = (struct op_cost){0};
    if (shape_count(&out[0].shape, &count))
        ret->bytes = 2 * count;
}

const struct op op_lookup = {
    .name = "Lookup",
    .domain = "bonsai",
    .since = 1,
    .until = 99,
    .min_in = 1,
    .max_in = 1,
    .min_out = 1,
    .max_out = 1,
    .shape = lookup_shape,
    .forward = lookup_forward,
    .cost = lookup_cost,
    .couple = OP_COUPLE_SAME,
    .quant = OP_QUANT_OWN,
    .layouts = OP_LAYOUT_ANY,
    .sees_codes = true,
};
