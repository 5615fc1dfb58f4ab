#include "compress/quantize_file.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/cleanup.h"
#include "engine/ops.h"

static int add_vector(struct graph *g, const char *base, const char *suffix, enum dtype t, void *data,
    int64_t n, bool is_scalar, struct error *err) {
    struct tensor v = {.dtype = t, .shape = {.rank = is_scalar ? 0 : 1, .dim = {n}}, .data = data};
    char name[512];
    const char *unique;
    int id;

    snprintf(name, sizeof(name), "%.400s_%s", base, suffix);
    unique = graph_unique_name(g, name);
    id = unique ? graph_add_init(g, unique, &v, /* data_lives= */ false) : -ENOMEM;
    return id < 0 ? error_oom(err) : id;
}

/* value → op(value, scale, zero) → new value; returns its id. */
static int add_qdq(struct graph *g, const char *op, const char *base, int value, int scale, int zero,
    int64_t axis, enum dtype t, const struct shape *shape, struct error *err) {
    int in[] = {value, scale, zero}, out, node;
    char name[512];
    const char *unique;

    snprintf(name, sizeof(name), "%.400s_%s", base, op);
    unique = graph_unique_name(g, name);
    out = unique ? graph_add_value(g, unique, t, shape) : -ENOMEM;
    if (out < 0)
        return error_oom(err);
    node = graph_insert_node(g, g->n_nodes, op, unique, in, 3, &out, 1);
    if (node < 0)
        return error_oom(err);
    if (axis >= 0 && graph_set_attr_int(g, &g->nodes[node], "axis", axis) < 0)
        return error_oom(err);
    return out;
}

/* int32 bias at scale_x * scale_w[row], dequantised in front of the layer. */
static int add_bias_int32(struct graph *g, const char *id, const struct weight_rows *rows,
    const struct row_scales *q, const float *bias, float scale_x, struct error *err) {
    size_t n = (size_t)rows->rows;
    _cleanup_(freep) int32_t *stored = calloc(n + 1, sizeof(*stored)), *zeros = calloc(n + 1, sizeof(*zeros));
    _cleanup_(freep) float *scale = calloc(n + 1, sizeof(*scale));
    bool per_layer = q->n == 1;
    struct shape shape = {.rank = 1, .dim = {rows->rows}};
    int value, scales, zero;

    if (!stored || !zeros || !scale)
        return error_oom(err);
    for (size_t i = 0; i < n; i++) {
        scale[i] = scale_x * q->scale[per_layer ? 0 : i];
        stored[i] = (int32_t)fmin(fmax(nearbyint((double)bias[i] / (double)scale[i]), INT32_MIN), INT32_MAX);
    }
    value = add_vector(g, id, "bias_int32", DT_S32, stored, rows->rows, false, err);
    scales = value < 0
                 ? value
                 : add_vector(g, id, "bias_scale", DT_F32, scale, per_layer ? 1 : rows->rows, per_layer, err);
    zero = scales < 0
               ? scales
               : add_vector(g, id, "bias_zero", DT_S32, zeros, per_layer ? 1 : rows->rows, per_layer, err);
    if (zero < 0)
        return zero;
    return add_qdq(g, "DequantizeLinear", g->values[value].name, value, scales, zero, per_layer ? -1 : 0,
        DT_F32, &shape, err);
}

static int add_bias(struct graph *g, const char *id, const struct weight_rows *rows,
    const struct row_scales *q, const float *bias, float scale_x, struct error *err) {
    _cleanup_(freep) float *copy = NULL;

    if (scale_x > 0)
        return add_bias_int32(g, id, rows, q, bias, scale_x, err);
    copy = malloc((size_t)rows->rows * sizeof(*copy) + 1);
    if (!copy)
        return error_oom(err);
    for (int64_t i = 0; i < rows->rows; i++)
        copy[i] = bias[i];
    return add_vector(g, id, "bias", DT_F32, copy, rows->rows, false, err);
}

/* The layer may have two inputs so far: a bias input is added when there is something to add. */
static int set_bias_input(struct graph *g, int node, int bias, struct error *err) {
    struct node *n = &g->nodes[node];
    int *in;

    if (n->n_in > 2) {
        n->in[2] = bias;
        return 0;
    }
    in = graph_alloc(g, 3 * sizeof(*in));
    if (!in)
        return error_oom(err);
    in[0] = n->in[0];
    in[1] = n->in[1];
    in[2] = bias;
    n->in = in;
    n->n_in = 3;
    return 0;
}

/* Every layer that may have a bias gets one, zeros or not: later steps correct means in it, and foreign
 * runtimes fuse only an int32 one. A bias that is computed stays. */
static bool takes_bias(const struct graph *g, int node) {
    const struct node *n = &g->nodes[node];

    return n->op->max_in >= 3 && (n->n_in < 3 || n->in[2] < 0 || g->values[n->in[2]].init);
}

int quantize_file_layer(struct graph *g, int node, const struct weight_rows *rows,
    const struct quantized_weights *q, const float *bias, float scale_x, struct error *err) {
    int value = quantize_codes_emit(g, g->nodes[node].id, rows, q, err);

    if (value < 0)
        return value;
    g->nodes[node].in[1] = value;
    return quantize_file_bias(
        g, node, rows, &(struct row_scales){.scale = q->scale, .n = q->n_scale}, bias, scale_x, err);
}

int quantize_file_bias(struct graph *g, int node, const struct weight_rows *rows,
    const struct row_scales *scales, const float *bias, float scale_x, struct error *err) {
    int r;

    if (!takes_bias(g, node))
        return 0;
    r = add_bias(g, g->nodes[node].id, rows, scales, bias, scale_x, err);
    return r < 0 ? r : set_bias_input(g, node, r, err);
}

struct class_params {
    int scale, zero; /* initialisers, -1: not made yet */
};

static int class_params(struct graph *g, struct class_params *p, const char *base, struct quant q,
    enum dtype t, struct error *err) {
    int8_t s8 = (int8_t)q.zero;
    uint8_t u8 = (uint8_t)q.zero;

    if (p->scale >= 0)
        return 0;
    p->scale = add_vector(g, base, "scale", DT_F32, &q.scale, 1, true, err);
    if (p->scale < 0)
        return p->scale;
    p->zero = add_vector(g, base, "zero_point", t, t == DT_S8 ? (void *)&s8 : (void *)&u8, 1, true, err);
    return p->zero < 0 ? p->zero : 0;
}

static int quantize_value(
    struct graph *g, int v, const struct class_params *p, enum dtype t, struct error *err) {
    const char *base = g->values[v].name;
    struct shape shape = g->values[v].shape;
    size_t n_nodes = g->n_nodes; /* readers so far: the new pair is not one of them */
    int q = add_qdq(g, "QuantizeLinear", base, v, p->scale, p->zero, -1, t, &shape, err), dq;

    if (q < 0)
        return q;
    dq = add_qdq(g, "DequantizeLinear", base, q, p->scale, p->zero, -1, DT_F32, &shape, err);
    if (dq < 0)
        return dq;
    for (size_t i = 0; i < n_nodes; i++)
        for (int k = 0; k < g->nodes[i].n_in; k++)
            if (g->nodes[i].in[k] == v)
                g->nodes[i].in[k] = dq;
    return 0;
}

int quantize_file_values(struct graph *g, const struct qregion *region, const struct quant *quant,
    enum dtype t, struct error *err) {
    _cleanup_(freep) struct class_params *params = calloc((size_t)region->n_classes + 1, sizeof(*params));

    if (!params)
        return error_oom(err);
    for (int k = 0; k < region->n_classes; k++)
        params[k] = (struct class_params){-1, -1};
    for (size_t v = 0; v < region->n_values; v++) {
        int k = region->class_of[v], r;

        if (k < 0)
            continue;
        r = class_params(g, &params[k], g->values[v].name, quant[k], t, err);
        if (r < 0)
            return r;
        r = quantize_value(g, (int)v, &params[k], t, err);
        if (r < 0)
            return r;
    }
    return 0;
}
