#include "compress/affine.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "engine/ops.h"

/* The DequantizeLinear node that makes value v, or NULL. */
static struct node *dequantize_of(const struct graph *g, int v) {
    int p = v >= 0 ? g->values[v].producer : -1;

    return p >= 0 && !strcmp(g->nodes[p].op_type, "DequantizeLinear") ? &g->nodes[p] : NULL;
}

static const struct tensor *init_of(const struct graph *g, int v) {
    return v >= 0 ? g->values[v].init : NULL;
}

static bool is_dequantized_init(const struct graph *g, int v) {
    const struct node *dq = dequantize_of(g, v);

    return dq && init_of(g, dq->in[0]) && init_of(g, dq->in[1]) && init_of(g, dq->in[1])->dtype == DT_F32;
}

/* Integers of any form (weight.h), with scales of the layer, its channels, or blocks of them. */
static bool is_dequantized(const struct graph *g, int v) {
    const struct node *dq = dequantize_of(g, v);
    int codes = dq ? dq->in[0] : -1;

    return dq && init_of(g, dq->in[1]) && init_of(g, dq->in[1])->dtype == DT_F32 &&
           (init_of(g, codes) || (codes >= 0 && g->values[codes].producer >= 0));
}

bool affine_can_fold(const struct graph *g, int node) {
    const struct node *n = &g->nodes[node];
    bool has_bias = n->n_in > 2 && n->in[2] >= 0;

    if (n->op->max_in < 3 || n->n_in < 2 || !strcmp(n->op_type, "ConvTranspose"))
        return false;
    if (!init_of(g, n->in[1]) && !is_dequantized(g, n->in[1]))
        return false;
    return !has_bias || init_of(g, n->in[2]) || is_dequantized_init(g, n->in[2]);
}

/* A private, writable copy of an initialiser as a new value; `count` elements of `t` from `data`. */
static int put_init(struct graph *g, int like, const struct tensor *t, struct error *err) {
    char base[512];
    const char *name;
    int id;

    snprintf(base, sizeof(base), "%.400s_folded", g->values[like].name);
    name = graph_unique_name(g, base);
    id = name ? graph_add_init(g, name, t, /* data_lives= */ false) : -ENOMEM;
    return id < 0 ? error_oom(err) : id;
}

static int copy_floats(const struct tensor *t, float **ret, int64_t *ret_n, struct error *err) {
    int64_t n;
    float *copy;

    if (!shape_count(&t->shape, &n) || t->dtype != DT_F32)
        return error_set(err, -EINVAL, "not a float tensor");
    copy = malloc((size_t)n * sizeof(*copy) + 1);
    if (!copy)
        return error_oom(err);
    memcpy(copy, t->data, (size_t)n * sizeof(*copy));
    *ret = copy;
    *ret_n = n;
    return 0;
}

/* Channel axis of a layer's weights: dimension 0 of convolutions and of B with transB, else the last. */
static int output_axis(const struct node *n, const struct shape *s) {
    return s->rank > 2 || node_attr_int(n, "transB", 0) ? 0 : s->rank - 1;
}

static int scale_floats(struct graph *g, struct node *n, const float *mul, struct error *err) {
    const struct tensor *t = init_of(g, n->in[1]);
    int axis = output_axis(n, &t->shape);
    _cleanup_(freep) float *w = NULL;
    int64_t count, inner = 1;
    struct tensor copy = *t;
    int r = copy_floats(t, &w, &count, err);

    if (r < 0)
        return r;
    for (int i = axis + 1; i < t->shape.rank; i++)
        inner *= t->shape.dim[i];
    for (int64_t i = 0; i < count; i++)
        w[i] *= mul[i / inner % t->shape.dim[axis]];
    copy.data = w;
    r = put_init(g, n->in[1], &copy, err);
    if (r < 0)
        return r;
    n->in[1] = r;
    return 0;
}

/* Scales of one a layer become one a channel. Returns the new scales (free them). */
static int scale_quantised(
    struct graph *g, struct node *n, const float *mul, int64_t channels, float **ret, struct error *err) {
    struct node *dq = dequantize_of(g, n->in[1]);
    _cleanup_(freep) float *scale = NULL, *all = calloc((size_t)channels + 1, sizeof(*all));
    struct tensor t = {.dtype = DT_F32, .shape = {.rank = 1, .dim = {channels}}};
    int64_t count;
    int r;

    if (!all)
        return error_oom(err);
    r = copy_floats(init_of(g, dq->in[1]), &scale, &count, err);
    if (r < 0)
        return r;
    if (count != channels) /* one scale for all, or for blocks: a mean factor would lose what the channels
                              need; only the bias moves */
        mul = NULL;
    for (int64_t i = 0; i < channels; i++)
        all[i] = scale[count == channels ? i : 0] * (mul ? mul[i] : 1);
    if (mul) {
        t.data = all;
        r = put_init(g, dq->in[1], &t, err);
        if (r < 0)
            return r;
        dq->in[1] = r;
    }
    *ret = TAKE(all);
    return 0;
}

static int fold_float_bias(struct graph *g, struct node *n, const float *mul, const float *add,
    int64_t channels, struct error *err) {
    const struct tensor *t = n->n_in > 2 ? init_of(g, n->in[2]) : NULL;
    _cleanup_(freep) float *bias = NULL, *old = NULL;
    struct tensor made = {.dtype = DT_F32, .shape = {.rank = 1, .dim = {channels}}};
    int64_t count = 0;
    int *in, r;

    if (t) {
        r = copy_floats(t, &old, &count, err);
        if (r < 0)
            return r;
    }
    made.data = bias = calloc((size_t)channels + 1, sizeof(*bias));
    in = graph_alloc(g, 3 * sizeof(*in));
    if (!bias || !in)
        return error_oom(err);
    for (int64_t i = 0; i < channels; i++)
        bias[i] = mul[i] * (count == 0 ? 0 : old[count == channels ? i : 0]) + add[i];
    r = put_init(g, n->in[1], &made, err);
    if (r < 0)
        return r;
    in[0] = n->in[0];
    in[1] = n->in[1];
    in[2] = r;
    n->in = in;
    n->n_in = 3;
    return 0;
}

/* int32 bias at scale_x * scale_w: requantised at the new scales. */
static int fold_int32_bias(struct graph *g, struct node *n, const float *mul, const float *add,
    const float *scale_w, int64_t channels, struct error *err) {
    struct node *dq = dequantize_of(g, n->in[2]), *x = dequantize_of(g, n->in[0]);
    const struct tensor *t = init_of(g, dq->in[0]), *s = init_of(g, dq->in[1]);
    size_t bytes = (size_t)channels * sizeof(float);
    _cleanup_(freep) int32_t *stored = malloc(bytes + 1);
    _cleanup_(freep) float *scale = malloc(bytes + 1), *old = NULL;
    struct tensor made = {.dtype = DT_S32, .shape = t->shape, .data = stored};
    struct tensor scales = {.dtype = DT_F32, .shape = {.rank = 1, .dim = {channels}}, .data = scale};
    float scale_x;
    int64_t n_old;
    int value, scale_value, r;

    if (!stored || !scale)
        return error_oom(err);
    if (t->dtype != DT_S32 || t->shape.rank != 1 || t->shape.dim[0] != channels || !x)
        return error_set(err, -EINVAL, "node '%s': its bias is not an int32 vector", n->id);
    r = copy_floats(s, &old, &n_old, err);
    if (r < 0)
        return r;
    memcpy(stored, t->data, bytes);
    memcpy(&scale_x, init_of(g, x->in[1])->data, sizeof(scale_x));
    for (int64_t i = 0; i < channels; i++) {
        double b = (double)stored[i] * (double)old[n_old == channels ? i : 0];

        scale[i] = scale_x * scale_w[i];
        b = nearbyint(((double)mul[i] * b + (double)add[i]) / (double)scale[i]);
        stored[i] = (int32_t)fmin(fmax(b, INT32_MIN), INT32_MAX);
    }
    value = put_init(g, dq->in[0], &made, err);
    scale_value = value < 0 || n_old != channels ? value : put_init(g, dq->in[1], &scales, err);
    if (scale_value < 0)
        return scale_value;
    dq->in[0] = value;
    if (n_old == channels)
        dq->in[1] = scale_value;
    return 0;
}

bool affine_can_scale(const struct graph *g, int node) {
    const struct node *layer = &g->nodes[node], *dq = dequantize_of(g, layer->in[1]);

    return init_of(g, layer->in[1]) ||
           (dq && init_of(g, dq->in[1]) && init_of(g, dq->in[1])->shape.rank == 1);
}

int affine_fold(struct graph *g, int node, const float *mul, const float *add, int64_t n, struct error *err) {
    _cleanup_(freep) float *ones = NULL, *scale_w = NULL;
    struct node *layer = &g->nodes[node];
    int r;

    if (init_of(g, layer->in[1])) {
        r = scale_floats(g, layer, mul, err);
        return r < 0 ? r : fold_float_bias(g, layer, mul, add, n, err);
    }
    r = scale_quantised(g, layer, mul, n, &scale_w, err);
    if (r < 0)
        return r;
    if (!affine_can_scale(g, node)) {
        ones = calloc((size_t)n + 1, sizeof(*ones));
        if (!ones)
            return error_oom(err);
        for (int64_t i = 0; i < n; i++)
            ones[i] = 1;
        mul = ones;
    }
    if (layer->n_in > 2 && layer->in[2] >= 0 && is_dequantized_init(g, layer->in[2]))
        return fold_int32_bias(g, layer, mul, add, scale_w, n, err);
    return fold_float_bias(g, layer, mul, add, n, err);
}
