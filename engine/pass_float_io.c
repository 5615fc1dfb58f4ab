/* Inputs and outputs of halves as floats, and back: for those who have data in floats and look at answers. */
#include <errno.h>
#include <string.h>

#include "engine/ops.h"
#include "engine/ops/element.h"
#include "engine/pass.h"

static bool is_cast_to(const struct node *n, enum dtype t) {
    return strcmp(n->op_type, "Cast") == 0 && node_attr_int(n, "to", 0) == (int64_t)t;
}

/* Only pass_widen's Casts read the input: it may be float as well. */
static bool is_cast_only(const struct graph *g, int v) {
    for (size_t i = 0; i < g->n_nodes; i++)
        for (int k = 0; k < g->nodes[i].n_in; k++)
            if (g->nodes[i].in[k] == v && !is_cast_to(&g->nodes[i], DT_F32))
                return false;
    return !g->values[v].is_output;
}

int pass_float_io(struct graph *g, struct error *err) {
    int r = pass_widen(g, err);

    for (size_t i = 0; r == 0 && i < g->n_inputs; i++) {
        struct value *v = &g->values[g->inputs[i]];

        if (element_is_half(v->dtype) && is_cast_only(g, g->inputs[i]))
            v->dtype = DT_F32;
    }
    for (size_t i = 0; r == 0 && i < g->n_outputs; i++) {
        struct value *v = &g->values[g->outputs[i]];
        struct node *n = v->producer < 0 ? NULL : &g->nodes[v->producer];

        if (!n || !element_is_half(v->dtype) || !is_cast_to(n, v->dtype))
            continue;
        if (graph_set_attr_int(g, n, "to", DT_F32) < 0)
            return error_oom(err);
        v->dtype = DT_F32;
    }
    return r < 0 ? r : graph_finish(g, err);
}

/* A float value that all nodes read instead of v. */
static int add_beside(struct graph *g, int v) {
    const char *name = graph_unique_name(g, g->values[v].name);
    struct shape shape = g->values[v].shape;
    int beside = name ? graph_add_value(g, name, DT_F32, &shape) : -ENOMEM;

    for (size_t i = 0; beside >= 0 && i < g->n_nodes; i++)
        for (int k = 0; k < g->nodes[i].n_in; k++)
            if (g->nodes[i].in[k] == v)
                g->nodes[i].in[k] = beside;
    return beside;
}

static int add_cast(struct graph *g, size_t before, int from, int to, enum dtype t) {
    const char *name = g->values[t == DT_F32 ? to : from].name;
    int node = graph_insert_node(g, before, "Cast", name, &from, 1, &to, 1);

    return node < 0 ? node : graph_set_attr_int(g, &g->nodes[node], "to", t);
}

static int restore_input(struct graph *g, int v, enum dtype t) {
    int beside;

    if (g->values[v].dtype == t || !element_is_half(t))
        return 0;
    beside = add_beside(g, v);
    if (beside < 0)
        return beside;
    g->values[v].dtype = t;
    return add_cast(g, 0, v, beside, DT_F32);
}

static int restore_output(struct graph *g, int v, enum dtype t) {
    int producer = g->values[v].producer, beside;

    if (g->values[v].dtype == t || !element_is_half(t) || producer < 0)
        return 0;
    beside = add_beside(g, v);
    if (beside < 0)
        return beside;
    for (int k = 0; k < g->nodes[producer].n_out; k++)
        if (g->nodes[producer].out[k] == v)
            g->nodes[producer].out[k] = beside;
    g->values[beside].producer = producer;
    g->values[v].dtype = t;
    return add_cast(g, g->n_nodes, beside, v, t);
}

int pass_restore_io(struct graph *g, const enum dtype *inputs, const enum dtype *outputs, struct error *err) {
    int r = 0;

    for (size_t i = 0; r >= 0 && i < g->n_outputs; i++)
        r = restore_output(g, g->outputs[i], outputs[i]);
    for (size_t i = 0; r >= 0 && i < g->n_inputs; i++)
        r = restore_input(g, g->inputs[i], inputs[i]);
    return r < 0 ? error_oom(err) : graph_finish(g, err);
}
