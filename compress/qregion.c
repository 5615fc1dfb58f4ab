#include "compress/qregion.h"

#include <stdlib.h>

#include "base/cleanup.h"
#include "engine/ops.h"

struct finder {
    const struct graph *g;
    const struct layers *layers;
    int *root;   /* [value]: the value it is a unary function of; itself when it is none */
    bool *quant; /* [value]: travels as int8 */
    bool *tail;  /* [value]: only leads to graph outputs through float operators and views */
    int *parent; /* [value]: union-find of scales */
};

static bool is_scalar_const(const struct graph *g, int v) {
    int64_t n;

    return g->values[v].init && shape_count(&g->values[v].init->shape, &n) && n == 1;
}

static bool is_const(const struct graph *g, int v) {
    return v < 0 || g->values[v].init;
}

/* The one value a node is an elementwise function of (constants must be scalar), or -1. */
static int unary_source(const struct finder *f, const struct node *n) {
    int source = -1;

    if (n->n_out != 1 || !(n->op->is_unary || n->op->couple == OP_COUPLE_JOIN))
        return -1;
    for (int i = 0; i < n->n_in; i++) {
        int v = n->in[i];

        if (v < 0 || is_scalar_const(f->g, v))
            continue;
        if (is_const(f->g, v) || (source >= 0 && f->root[v] != source))
            return -1;
        source = f->root[v];
    }
    return source;
}

/* A clamp that is the only reader of what a layer or a join writes takes part in its requantisation. */
static bool is_absorbed_clamp(const struct finder *f, const struct node *n) {
    const struct value *in = &f->g->values[n->in[0]];
    int reader;

    return n->op->is_clamp && in->producer >= 0 && !in->is_output && f->root[n->in[0]] == n->in[0] &&
           f->g->nodes[in->producer].op->quant == OP_QUANT_OWN &&
           graph_consumers(f->g, n->in[0], &reader, 1) == 1;
}

static void find_roots(struct finder *f) {
    for (size_t v = 0; v < f->g->n_values; v++)
        f->root[v] = (int)v;
    for (size_t i = 0; i < f->g->n_nodes; i++) {
        const struct node *n = &f->g->nodes[i];
        int source = unary_source(f, n);

        if (source >= 0 && !is_absorbed_clamp(f, n))
            f->root[n->out[0]] = source;
    }
}

static bool reads(const struct node *n, int v) {
    for (int i = 0; i < n->n_in; i++)
        if (n->in[i] == v)
            return true;
    return false;
}

static void find_tails(struct finder *f) {
    /* a value is a tail unless some reader says otherwise; readers come later in topological order */
    for (size_t v = 0; v < f->g->n_values; v++)
        f->tail[v] = true;
    for (size_t i = f->g->n_nodes; i-- > 0;) {
        const struct node *n = &f->g->nodes[i];
        bool passes = n->op->is_view || n->op->quant == OP_QUANT_FLOAT;

        for (int k = 0; k < n->n_out; k++)
            passes = passes && (n->out[k] < 0 || f->tail[n->out[k]]);
        for (int k = 0; k < n->n_in && !passes; k++)
            if (n->in[k] >= 0)
                f->tail[n->in[k]] = false;
    }
}

static int find_class(struct finder *f, int v) {
    while (f->parent[v] != v)
        v = f->parent[v] = f->parent[f->parent[v]];
    return v;
}

static bool inputs_quantised(const struct finder *f, const struct node *n) {
    bool any = false;

    for (int i = 0; i < n->n_in; i++) {
        int v = n->in[i];

        if (v < 0 || (is_const(f->g, v) && n->op->quant == OP_QUANT_SAME && i > 0))
            continue; /* shapes, pads, sizes of operators that only move values */
        if (is_const(f->g, v) || !f->quant[f->root[v]])
            return false;
        any = true;
    }
    return any;
}

/* The absorbed clamp after value v, or -1. */
static int clamp_after(const struct finder *f, int v) {
    int reader;

    if (graph_consumers(f->g, v, &reader, 1) != 1)
        return -1;
    return is_absorbed_clamp(f, &f->g->nodes[reader]) ? reader : -1;
}

static void mark_output(struct finder *f, int v) {
    int clamp = clamp_after(f, v);

    if (clamp >= 0)
        v = f->g->nodes[clamp].out[0];
    if (!f->tail[v] && !f->g->values[v].is_output && f->g->values[v].dtype == DT_F32)
        f->quant[v] = true;
}

/* Is some output of the unary chain read by a node that is not part of it? Then the chain ends there. */
static bool leaves_chain(const struct finder *f, int v) {
    for (size_t i = 0; i < f->g->n_nodes; i++) {
        const struct node *n = &f->g->nodes[i];

        if (reads(n, v) && (n->n_out != 1 || f->root[n->out[0]] != f->root[v]))
            return true;
    }
    return false;
}

static void mark_node(struct finder *f, const struct node *n) {
    const struct layer_entry *layer = layers_find(f->layers, (int)(n - f->g->nodes));

    if (layer) {
        if (layer->is_selected)
            mark_output(f, n->out[0]);
        return;
    }
    if (n->op->quant == OP_QUANT_FLOAT || n->n_out < 1 || !inputs_quantised(f, n))
        return;
    if (n->n_out == 1 && f->root[n->out[0]] != n->out[0]) {
        if (leaves_chain(f, n->out[0]))
            mark_output(f, n->out[0]);
        return;
    }
    if (n->op->is_clamp)
        return; /* absorbed: marked with its producer */
    for (int k = 0; k < n->n_out; k++)
        if (n->out[k] >= 0)
            mark_output(f, n->out[k]);
}

static void mark_values(struct finder *f) {
    for (size_t i = 0; i < f->layers->n; i++) {
        int v = f->g->nodes[f->layers->entry[i].node].in[0];

        if (f->layers->entry[i].is_selected && v >= 0 && !is_const(f->g, v))
            f->quant[v] = true;
    }
    for (size_t i = 0; i < f->g->n_nodes; i++)
        mark_node(f, &f->g->nodes[i]);
}

static void join_scales(struct finder *f) {
    for (size_t i = 0; i < f->g->n_nodes; i++) {
        const struct node *n = &f->g->nodes[i];

        if (n->op->quant != OP_QUANT_SAME || n->n_out < 1 || n->out[0] < 0 || !f->quant[n->out[0]])
            continue;
        for (int k = 0; k < n->n_in; k++)
            if (n->in[k] >= 0 && !is_const(f->g, n->in[k]) && f->quant[n->in[k]])
                f->parent[find_class(f, n->in[k])] = find_class(f, n->out[0]);
    }
}

static void number_classes(struct finder *f, struct qregion *q) {
    for (size_t v = 0; v < f->g->n_values; v++)
        q->class_of[v] = -1;
    for (size_t v = 0; v < f->g->n_values; v++) {
        int c;

        if (!f->quant[v])
            continue;
        c = find_class(f, (int)v);
        if (q->class_of[c] < 0)
            q->class_of[c] = q->n_classes++;
        q->class_of[v] = q->class_of[c];
    }
    /* a class's root need not be quantised itself */
    for (size_t v = 0; v < f->g->n_values; v++)
        if (!f->quant[v])
            q->class_of[v] = -1;
}

static void finder_done(struct finder *f) {
    free(f->root);
    free(f->quant);
    free(f->tail);
    free(f->parent);
}

int qregion_find(const struct graph *g, const struct layers *layers, struct qregion *ret, struct error *err) {
    size_t n = g->n_values + 1;
    _cleanup_(finder_done) struct finder f = {
        .g = g,
        .layers = layers,
        .root = calloc(n, sizeof(*f.root)),
        .quant = calloc(n, sizeof(*f.quant)),
        .tail = calloc(n, sizeof(*f.tail)),
        .parent = calloc(n, sizeof(*f.parent)),
    };
    struct qregion q = {.n_values = g->n_values, .class_of = calloc(n, sizeof(*q.class_of))};

    if (!f.root || !f.quant || !f.tail || !f.parent || !q.class_of) {
        free(q.class_of);
        return error_oom(err);
    }
    for (size_t v = 0; v < g->n_values; v++)
        f.parent[v] = (int)v;
    find_roots(&f);
    find_tails(&f);
    mark_values(&f);
    join_scales(&f);
    number_classes(&f, &q);
    *ret = q;
    return 0;
}

void qregion_done(struct qregion *q) {
    free(q->class_of);
    *q = (struct qregion){0};
}
