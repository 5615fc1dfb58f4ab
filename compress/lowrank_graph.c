/* A node becomes a chain of nodes of its own kind. Values around it stay as they are: what stood behind the
 * layer (batch norm, activation) stands behind its last part. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/cleanup.h"
#include "compress/lowrank_plan.h"

/* The numbers of attribute `name` for the dimensions the part has; `alone` for the others. `sides` 2: pads.
 */
static int set_window(struct graph *g, const struct node *from, int to, const struct lowrank_layer *l,
    unsigned dims, const char *name, int sides, int64_t alone) {
    const struct attr *a = node_attr(from, name);
    int64_t v[2 * LOWRANK_MAX_DIMS];

    for (int i = 0; i < sides * l->n_dims; i++) {
        v[i] = alone;
        if (dims & 1u << i % l->n_dims && a && a->type == ATTR_INTS && a->n == (size_t)(sides * l->n_dims))
            v[i] = a->ints[i];
    }
    return graph_set_attr_ints(g, &g->nodes[to], name, v, (size_t)(sides * l->n_dims));
}

static int set_conv(struct graph *g, const struct node *from, int to, const struct lowrank_layer *l,
    const struct lowrank_part *p) {
    const char *pad = node_attr_string(from, "auto_pad", "NOTSET");
    int64_t kernel[LOWRANK_MAX_DIMS];
    int r;

    for (int d = 0; d < l->n_dims; d++)
        kernel[d] = p->dims & 1u << d ? l->kernel[d] : 1;
    r = graph_set_attr_ints(g, &g->nodes[to], "kernel_shape", kernel, (size_t)l->n_dims);
    if (r == 0)
        r = set_window(g, from, to, l, p->dims, "strides", 1, 1);
    if (r == 0)
        r = set_window(g, from, to, l, p->dims, "dilations", 1, 1);
    /* a dimension of one tap and stride 1 is padded by nothing, whatever auto_pad says */
    if (r == 0)
        r = strcmp(pad, "NOTSET") ? graph_set_attr_string(g, &g->nodes[to], "auto_pad", pad)
                                  : set_window(g, from, to, l, p->dims, "pads", 2, 0);
    return r < 0 ? r : graph_set_attr_int(g, &g->nodes[to], "group", p->group);
}

static const char *value_name(
    struct graph *g, const struct lowrank_layer *l, const char *part, const char *what) {
    char name[600];

    snprintf(name, sizeof(name), "%.500s/%s%s", l->id, part, what);
    return graph_unique_name(g, name);
}

/* Weights of the part as its node wants them: OIHW, or [in][out] of MatMul. */
static int add_weights(struct graph *g, const struct lowrank_layer *l, const struct lowrank_part *p,
    const double *data, bool is_turned, struct error *err) {
    int64_t n = lowrank_part_params(l, p);
    _cleanup_(freep) float *w = malloc((size_t)n * sizeof(*w) + 1);
    struct tensor t = {.dtype = DT_F32, .shape = {.rank = 2, .dim = {p->outputs, p->inputs}}, .data = w};
    const char *name = value_name(g, l, p->name, ".weight");
    int v;

    if (!w || !name)
        return error_oom(err);
    for (int64_t i = 0; i < n; i++) /* turned: i of [in][out] */
        w[i] = (float)data[is_turned ? i % p->outputs * p->inputs + i / p->outputs : i];
    if (is_turned)
        t.shape = (struct shape){.rank = 2, .dim = {p->inputs, p->outputs}};
    for (int d = 0; d < l->n_dims; d++)
        t.shape.dim[t.shape.rank++] = p->dims & 1u << d ? l->kernel[d] : 1;
    v = graph_add_init(g, name, &t, false);
    return v < 0 ? error_oom(err) : v;
}

static int add_bias(struct graph *g, const struct lowrank_layer *l, const char *part, const float *bias,
    int64_t n, struct error *err) {
    struct tensor t = {.dtype = DT_F32, .shape = {.rank = 1, .dim = {n}}, .data = (void *)(uintptr_t)bias};
    const char *name = value_name(g, l, part, ".bias");
    int v = name ? graph_add_init(g, name, &t, false) : -ENOMEM;

    return v < 0 ? error_oom(err) : v;
}

/* The bias of a part that is not the last: none, but Gemm had to have one before opset 11. */
static int inner_bias(struct graph *g, const struct lowrank_layer *l, const struct lowrank_part *p,
    bool is_gemm, struct error *err) {
    _cleanup_(freep) float *zeros = NULL;

    if (!is_gemm || g->opset >= 11)
        return -1;
    zeros = calloc((size_t)p->outputs + 1, sizeof(*zeros));
    return zeros ? add_bias(g, l, p->name, zeros, p->outputs, err) : error_oom(err);
}

static int set_attributes(struct graph *g, const struct node *from, int to, const struct lowrank_layer *l,
    const struct lowrank_part *p, bool is_last, bool has_new_bias) {
    int r;

    if (l->is_conv)
        return set_conv(g, from, to, l, p);
    if (strcmp(from->op_type, "Gemm"))
        return 0;
    r = graph_set_attr_int(g, &g->nodes[to], "transB", 1);
    if (r == 0 && is_last && !has_new_bias)
        r = graph_set_attr_float(g, &g->nodes[to], "beta", node_attr_float(from, "beta", 1));
    return r;
}

/* Inserts part k before node `at`; `in[0]` is its input. Returns the value it makes. */
static int add_part(struct graph *g, int at, const struct node *from, const struct lowrank_layer *l,
    const struct lowrank_part *p, int *in, int n_in, int out, bool has_new_bias, struct error *err) {
    bool is_last = out >= 0;
    const char *name = value_name(g, l, p->name, "");
    int node;

    if (!name)
        return error_oom(err);
    if (!is_last)
        out = graph_add_value(g, name, DT_F32, NULL);
    node = out < 0 ? out : graph_insert_node(g, (size_t)at, from->op_type, name, in, n_in, &out, 1);
    if (node < 0)
        return error_oom(err);
    g->nodes[node].id = name;
    return set_attributes(g, from, node, l, p, is_last, has_new_bias) < 0 ? error_oom(err) : out;
}

int lowrank_replace(struct graph *g, const struct lowrank_layer *l, const struct lowrank_factors *f,
    const float *bias, struct error *err) {
    const struct node from = g->nodes[l->node]; /* its parts stay in the graph's arena */
    bool is_gemm = !strcmp(from.op_type, "Gemm"), is_turned = !strcmp(from.op_type, "MatMul");
    struct lowrank_part part[LOWRANK_MAX_PARTS];
    int n = lowrank_parts(l, &f->choice, part), value = from.in[0];

    for (int k = 0; k < n; k++) {
        bool is_last = k == n - 1;
        int in[3] = {value, add_weights(g, l, &part[k], f->part[k], is_turned, err), -1};

        if (in[1] < 0)
            return in[1];
        if (is_last && bias)
            in[2] = add_bias(g, l, part[k].name, bias, l->outputs, err);
        else if (is_last)
            in[2] = from.n_in > 2 ? from.in[2] : -1;
        else
            in[2] = inner_bias(g, l, &part[k], is_gemm, err);
        if (in[2] < -1)
            return in[2];
        value = add_part(g, l->node + k, &from, l, &part[k], in, in[2] >= 0 ? 3 : 2,
            is_last ? from.out[0] : -1, bias, err);
        if (value < 0)
            return value;
    }
    graph_remove_node(g, (size_t)(l->node + n));
    return 0;
}

int lowrank_read_bias(const struct graph *g, const struct lowrank_layer *l, float **ret, struct error *err) {
    const struct node *n = &g->nodes[l->node];
    const struct tensor *t = n->n_in > 2 && n->in[2] >= 0 ? g->values[n->in[2]].init : NULL;
    double beta = l->is_conv ? 1 : (double)node_attr_float(n, "beta", 1);
    bool has_one = n->n_in > 2 && n->in[2] >= 0;
    int64_t count = 0;
    float *bias;

    *ret = NULL;
    if (!strcmp(n->op_type, "MatMul") ||
        (has_one && !(t && t->dtype == DT_F32 && t->shape.rank == 1 && t->shape.dim[0] == l->outputs)))
        return 0;
    bias = calloc((size_t)l->outputs + 1, sizeof(*bias));
    if (!bias)
        return error_oom(err);
    count = has_one ? l->outputs : 0;
    for (int64_t i = 0; i < count; i++) {
        float v;

        memcpy(&v, (const char *)t->data + (size_t)i * sizeof(v), sizeof(v));
        bias[i] = (float)(beta * (double)v);
    }
    *ret = bias;
    return 1;
}
