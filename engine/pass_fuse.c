/* Activations and residual additions become posts of the layer before them, so that its kernel applies them
 * before the result is stored:
 *
 *    Conv ─ v ─ Relu ─ y                   Conv[Relu] ─ y
 *    Conv ─ v ─ Add(v, r) ─ Relu ─ y       Conv[Add r, Relu] ─ y
 *
 * `v` must have no other reader. Of the two operands of an Add the one that is computed last takes it, so
 * that the other is there in time. Quantised values are pass_qdq's business: here everything is float. */
#include "engine/pass_fuse.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "engine/ops.h"
#include "engine/pass.h"
#include "engine/shape_infer.h"

/* Activations that kernels can apply, and the attributes that are their numbers (graph.h, struct post). */
static const struct {
    const char *op, *alpha, *beta;
    float alpha_default, beta_default;
} activations[] = {
    {"Abs", NULL, NULL, 0, 0},
    {"Clip", NULL, NULL, 0, 0}, /* bounds: fuse_clip_bounds */
    {"Elu", "alpha", NULL, 1, 0},
    {"Exp", NULL, NULL, 0, 0},
    {"HardSigmoid", "alpha", "beta", 0.2f, 0.5f},
    {"HardSwish", NULL, NULL, 0, 0},
    {"LeakyRelu", "alpha", NULL, 0.01f, 0},
    {"Mish", NULL, NULL, 0, 0},
    {"Relu", NULL, NULL, 0, 0},
    {"Sigmoid", NULL, NULL, 0, 0},
    {"Softplus", NULL, NULL, 0, 0},
    {"Sqrt", NULL, NULL, 0, 0},
    {"Swish", "alpha", NULL, 1, 0},
    {"Tanh", NULL, NULL, 0, 0},
};

static bool is_float_value(const struct graph *g, int v) {
    return v >= 0 && g->values[v].quant.scale <= 0 && !g->values[v].init;
}

/* An aligned copy of a constant scalar, in the graph's arena. */
static const struct tensor *scalar_arg(struct graph *g, const struct node *n, int i) {
    const struct tensor *t = i < n->n_in && n->in[i] >= 0 ? g->values[n->in[i]].init : NULL;
    struct tensor *copy;

    if (!t || t->dtype != DT_F32)
        return NULL;
    copy = graph_alloc(g, sizeof(*copy));
    if (!copy)
        return NULL;
    *copy = *t;
    copy->data = graph_alloc(g, sizeof(float));
    if (!copy->data)
        return NULL;
    memcpy(copy->data, t->data, sizeof(float));
    return copy;
}

bool fuse_read_numbers(const struct graph *g, const struct node *n, struct post *ret) {
    struct post p = {.op = n->op, .param = n->param, .other = -1};

    if (*n->domain)
        return false;
    for (size_t i = 0; i < sizeof(activations) / sizeof(*activations); i++) {
        if (strcmp(activations[i].op, n->op_type) != 0)
            continue;
        if (activations[i].alpha)
            p.alpha = node_attr_float(n, activations[i].alpha, activations[i].alpha_default);
        if (activations[i].beta)
            p.beta = node_attr_float(n, activations[i].beta, activations[i].beta_default);
        if (strcmp(n->op_type, "Clip") == 0 && !fuse_clip_bounds(g, n, &p.alpha, &p.beta))
            return false;
        *ret = p;
        return true;
    }
    return false;
}

static bool read_activation(struct graph *g, const struct node *n, struct post *ret) {
    if (n->n_post || n->n_out != 1 || !fuse_read_numbers(g, n, ret))
        return false;
    if (n->n_in > 1) {
        ret->arg[0] = scalar_arg(g, n, 1);
        ret->arg[1] = scalar_arg(g, n, 2);
    }
    return true;
}

/* Layers take all posts; additions of two values take activations. */
static bool takes_activation(const struct graph *g, const struct node *n) {
    if (n->n_post >= NODE_MAX_POSTS || n->n_out != 1 || !is_float_value(g, n->in[0]) || *n->domain)
        return false;
    return n->op->couple == OP_COUPLE_FREE ||
           (strcmp(n->op_type, "Add") == 0 && g->values[n->in[1]].quant.scale <= 0);
}

/* The node that makes `v` for reader `reader` alone; NULL. */
static struct node *sole_producer(const struct graph *g, int v, size_t reader) {
    int use[2], p = v < 0 ? -1 : g->values[v].producer;

    if (p < 0 || g->values[v].is_output || !is_float_value(g, v))
        return NULL;
    return graph_consumers(g, v, use, 2) == 1 && use[0] == (int)reader ? &g->nodes[p] : NULL;
}

static void absorb(struct graph *g, struct node *into, size_t index, const struct post *p, bool *is_gone) {
    struct node *n = &g->nodes[index];

    into->post[into->n_post++] = *p;
    g->values[into->out[0]].producer = -1;
    into->out[0] = n->out[0];
    g->values[into->out[0]].producer = (int)(into - g->nodes);
    n->out[0] = -1;
    for (int i = 0; i < n->n_in; i++)
        n->in[i] = -1;
    is_gone[index] = true;
}

static void fuse_activation(struct graph *g, size_t index, bool *is_gone) {
    struct node *n = &g->nodes[index], *into = sole_producer(g, n->in[0], index);
    struct post p;

    if (into && takes_activation(g, into) && is_float_value(g, n->out[0]) && read_activation(g, n, &p))
        absorb(g, into, index, &p, is_gone);
}

/* Shapes at a sample size: an Add is a residual only when nothing is broadcast. */
static bool same_shape(const struct shapes *s, int a, int b) {
    return s->value && shape_equal(&s->value[a].shape, &s->value[b].shape);
}

static void fuse_residual(struct graph *g, const struct shapes *s, size_t index, bool *is_gone) {
    struct node *n = &g->nodes[index], *into;
    int first = g->values[n->in[0]].producer, second = g->values[n->in[1]].producer, late, other;
    struct post p = {.op = n->op, .param = n->param};

    if (first == second || n->n_post)
        return;
    late = first > second ? n->in[0] : n->in[1];
    other = first > second ? n->in[1] : n->in[0];
    into = sole_producer(g, late, index);
    if (!into || into->op->couple != OP_COUPLE_FREE || !takes_activation(g, into) ||
        !is_float_value(g, other) || !is_float_value(g, n->out[0]) || !same_shape(s, late, n->out[0]) ||
        !same_shape(s, other, n->out[0]))
        return;
    p.other = other;
    absorb(g, into, index, &p, is_gone);
}

static bool is_add(const struct node *n) {
    return strcmp(n->op_type, "Add") == 0 && !*n->domain && n->n_in == 2 && n->in[0] >= 0 && n->in[1] >= 0;
}

int pass_fuse(struct graph *g, struct error *err) {
    int r = pass_fuse_swish(g, err);
    struct shapes s;
    bool *is_gone;

    if (r < 0)
        return r;
    is_gone = calloc(g->n_nodes + 1, sizeof(*is_gone));
    if (!is_gone)
        return error_oom(err);
    /* without shapes (the model does not take the sample) there are no residuals, only activations */
    (void)shapes_guess(g, &s);
    for (size_t i = 0; i < g->n_nodes; i++) {
        if (is_add(&g->nodes[i]))
            fuse_residual(g, &s, i, is_gone);
        else if (g->nodes[i].n_in > 0 && g->nodes[i].op->is_unary)
            fuse_activation(g, i, is_gone);
    }
    for (size_t i = g->n_nodes; i-- > 0;) {
        if (is_gone[i])
            graph_remove_node(g, i);
    }
    free(is_gone);
    shapes_done(&s);
    return 0;
}
