/* Nodes that change nothing, and nodes nobody needs. A graph output keeps its name: where the idle node made
 * it, the node before takes the name over. */
#include <string.h>

#include "engine/constant.h"
#include "engine/ops.h"
#include "engine/pass.h"
#include "engine/shape_infer.h"

struct idle {
    const char *op_type;
    bool (*is_idle)(const struct graph *g, const struct node *n, const struct shapes *s);
    bool wants_fixed; /* only known when the graph's input shapes are fixed */
};

static bool always(const struct graph *g, const struct node *n, const struct shapes *s) {
    (void)g;
    (void)n;
    (void)s;
    return true;
}

/* Training mode came with opset 12 as third input, the mask is the second output. */
static bool is_idle_dropout(const struct graph *g, const struct node *n, const struct shapes *s) {
    const struct tensor *training;

    (void)s;
    if (n->n_out > 1 && n->out[1] >= 0)
        return false;
    if (n->n_in < 3 || n->in[2] < 0)
        return true;
    training = constant_of(g, n->in[2]);
    return training && training->dtype == DT_BOOL && *(const uint8_t *)training->data == 0;
}

static bool is_idle_cast(const struct graph *g, const struct node *n, const struct shapes *s) {
    (void)g;
    return s->value && s->value[n->in[0]].dtype != DT_NONE &&
           s->value[n->in[0]].dtype == s->value[n->out[0]].dtype;
}

static bool keeps_shape(const struct graph *g, const struct node *n, const struct shapes *s) {
    (void)g;
    return s->value && s->value[n->in[0]].shape.rank >= 0 &&
           shape_equal(&s->value[n->in[0]].shape, &s->value[n->out[0]].shape);
}

static bool is_idle_transpose(const struct graph *g, const struct node *n, const struct shapes *s) {
    const struct attr *perm = node_attr(n, "perm");

    (void)g;
    (void)s;
    if (!perm || perm->type != ATTR_INTS)
        return false;
    for (size_t i = 0; i < perm->n; i++)
        if (perm->ints[i] != (int64_t)i)
            return false;
    return true;
}

static bool is_idle_concat(const struct graph *g, const struct node *n, const struct shapes *s) {
    (void)g;
    (void)s;
    return n->n_in == 1;
}

static bool is_idle_pad(const struct graph *g, const struct node *n, const struct shapes *s) {
    const struct attr *a = node_attr(n, "pads");
    int64_t pads[2 * SHAPE_MAX_RANK];
    int count;

    (void)s;
    if (a && a->type == ATTR_INTS) {
        count = a->n > 2 * SHAPE_MAX_RANK ? -1 : (int)a->n;
        for (int i = 0; i < count; i++)
            pads[i] = a->ints[i];
    } else {
        count = n->n_in > 1 ? constant_ints(g, n->in[1], pads, 2 * SHAPE_MAX_RANK) : -1;
    }
    for (int i = 0; i < count; i++)
        if (pads[i] != 0)
            return false;
    return count > 0;
}

static const struct idle idles[] = {
    {"Cast", is_idle_cast, false},
    {"Concat", is_idle_concat, false},
    {"Dropout", is_idle_dropout, false},
    {"Expand", keeps_shape, true},
    {"Flatten", keeps_shape, true},
    {"Identity", always, false},
    {"Pad", is_idle_pad, false},
    {"Reshape", keeps_shape, true},
    {"Transpose", is_idle_transpose, false},
};

static bool is_idle(const struct graph *g, const struct node *n, const struct shapes *s, bool is_fixed) {
    if (n->domain[0] || n->n_in < 1 || n->in[0] < 0 || n->n_out < 1 || n->out[0] < 0)
        return false;
    for (size_t i = 0; i < sizeof(idles) / sizeof(idles[0]); i++)
        if (strcmp(idles[i].op_type, n->op_type) == 0)
            return (is_fixed || !idles[i].wants_fixed) && idles[i].is_idle(g, n, s);
    return false;
}

/* Takes node i out of the flow; false: it must stay (an input or initialiser goes straight to an output). */
static bool bypass(struct graph *g, size_t i) {
    struct node *n = &g->nodes[i];
    int in = n->in[0], out = n->out[0], p = g->values[in].producer;

    if (!g->values[out].is_output) {
        graph_replace_value(g, out, in);
        return true;
    }
    if (p < 0 || g->values[in].is_output)
        return false;
    for (int k = 0; k < g->nodes[p].n_out; k++)
        if (g->nodes[p].out[k] == in)
            g->nodes[p].out[k] = out;
    graph_replace_value(g, in, out);
    /* the idle node now makes the value it reads, which nobody reads */
    n->in[0] = n->out[0] = in;
    g->values[out].producer = p;
    return true;
}

/* What types and shapes say; empty when the graph cannot be inferred with any sample. */
static int try_shapes(const struct graph *g, struct shapes *ret, bool *is_fixed, struct error *err) {
    _cleanup_(freep) struct shape *inputs = calloc(g->n_inputs + 1, sizeof(*inputs));
    struct error ignored = {0};

    if (!inputs)
        return error_oom(err);
    *is_fixed = true;
    for (size_t i = 0; i < g->n_inputs; i++) {
        int64_t unused;

        *is_fixed = *is_fixed && shape_count(&g->values[g->inputs[i]].shape, &unused);
    }
    shapes_sample(g, 1, 224, inputs);
    if (shapes_infer(g, inputs, ret, &ignored) < 0)
        *is_fixed = false;
    return 0;
}

int pass_remove_identities(struct graph *g, struct error *err) {
    _cleanup_(shapes_done) struct shapes s = {0};
    _cleanup_(freep) bool *gone = calloc(g->n_nodes + 1, sizeof(*gone));
    bool is_fixed;
    int r = gone ? try_shapes(g, &s, &is_fixed, err) : error_oom(err);

    if (r < 0)
        return r;
    for (size_t i = 0; i < g->n_nodes; i++)
        if (is_idle(g, &g->nodes[i], &s, is_fixed))
            gone[i] = bypass(g, i);
    for (size_t i = g->n_nodes; i-- > 0;)
        if (gone[i])
            graph_remove_node(g, i);
    if (graph_drop_unused(g) < 0)
        return error_oom(err);
    return graph_finish(g, err);
}
