/* Compressed weights become plain floats and quantised activations go: what a variant computes in float. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "engine/ops.h"
#include "engine/pass.h"

/* An aligned copy of an initialiser: forward wants its data aligned, the mapped file's is not. */
static int copy_init(const struct tensor *t, struct tensor *ret, struct error *err) {
    size_t size;

    *ret = *t;
    if (!shape_bytes(&t->shape, t->dtype, &size))
        return error_set(err, -EFBIG, "an initialiser is too large");
    ret->data = aligned_alloc(64, (size + 64) & ~(size_t)63);
    if (!ret->data)
        return error_oom(err);
    if (size)
        memcpy(ret->data, t->data, size);
    return 0;
}

#define MAX_IN 3

struct constants {
    struct tensor t[MAX_IN];
    const struct tensor *in[MAX_IN];
};

static void constants_done(struct constants *c) {
    for (int i = 0; i < MAX_IN; i++)
        free(c->t[i].data);
}

/* The result of a node of constants as a new initialiser; its value id, or a negative errno. */
static int compute(struct graph *g, const struct node *n, struct error *err) {
    _cleanup_(constants_done) struct constants c = {0};
    _cleanup_(freep) void *data = NULL;
    struct tensor out = {0};
    const char *name;
    size_t size;
    int id, r = 0;

    for (int i = 0; r == 0 && i < n->n_in; i++) {
        if (n->in[i] >= 0)
            r = copy_init(g->values[n->in[i]].init, &c.t[i], err);
        c.in[i] = n->in[i] >= 0 ? &c.t[i] : NULL;
    }
    if (r == 0)
        r = n->op->shape(n, c.in, &out, err);
    if (r < 0)
        return error_prefix(err, r, "node '%s'", n->id);
    if (!shape_bytes(&out.shape, out.dtype, &size))
        return error_set(err, -EFBIG, "node '%s': its result is too large", n->id);
    out.data = data = aligned_alloc(64, (size + 64) & ~(size_t)63);
    if (!data)
        return error_oom(err);
    n->op->forward(n, c.in, &out, NULL);
    name = graph_unique_name(g, g->values[n->out[0]].name);
    id = name ? graph_add_init(g, name, &out, /* data_lives= */ false) : -ENOMEM;
    return id < 0 ? error_oom(err) : id;
}

static bool is_constant(const struct graph *g, const struct node *n) {
    for (int i = 0; i < n->n_in; i++)
        if (n->in[i] >= 0 && !g->values[n->in[i]].init)
            return false;
    return n->n_in <= MAX_IN;
}

/* What stands in place of a DequantizeLinear's result: the value, or -1: it stays. */
static int replacement(struct graph *g, const struct node *n, struct error *err) {
    const struct op *quantize = op_find("", "QuantizeLinear");
    int producer = g->values[n->in[0]].producer;

    if (g->values[n->out[0]].is_output)
        return -1; /* the name of an output is part of the model's contract */
    if (is_constant(g, n))
        return compute(g, n, err);
    return producer >= 0 && g->nodes[producer].op == quantize ? g->nodes[producer].in[0] : -1;
}

int pass_expand(struct graph *g, struct error *err) {
    const struct op *dequantize = op_find("", "DequantizeLinear");
    size_t n_nodes = g->n_nodes;

    for (size_t i = 0; i < n_nodes; i++) {
        int out = g->nodes[i].op == dequantize ? g->nodes[i].out[0] : -1, to;

        if (out < 0)
            continue;
        to = replacement(g, &g->nodes[i], err);
        if (to < -1)
            return to;
        if (to >= 0)
            graph_replace_value(g, out, to);
    }
    if (graph_drop_unused(g) < 0)
        return error_oom(err);
    return graph_finish(g, err);
}
