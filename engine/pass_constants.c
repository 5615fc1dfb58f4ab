/* Nodes all of whose inputs are constant become initialisers. Left alone is what encodes weights: nodes that
 * feed a DequantizeLinear of constants, patterns of weight forms (weight.h), and nodes whose result is much
 * larger than what they are made of. */
#include <errno.h>
#include <string.h>

#include "engine/constant.h"
#include "engine/ops.h"
#include "engine/pass.h"
#include "engine/shape_infer.h"
#include "engine/weight.h"

#define MAX_GROWTH ((size_t)4 << 10) /* bytes */

static bool is_constant_node(const struct graph *g, const struct node *n) {
    for (int k = 0; k < n->n_in; k++)
        if (n->in[k] >= 0 && !constant_of(g, n->in[k]))
            return false;
    return true;
}

/* Marks what makes the weights of a layer, where that is a form. */
static int mark_weights(struct graph *g, bool *keep, struct error *err) {
    for (size_t i = 0; i < g->n_nodes; i++) {
        const struct node *n = &g->nodes[i];
        const struct weight *w = NULL;
        int p = n->op->couple == OP_COUPLE_FREE && n->n_in > 1 && n->in[1] >= 0 ? g->values[n->in[1]].producer
                                                                                : -1;
        int r = p < 0 ? 0 : weight_match(g, n->in[1], &w, NULL, err);

        if (r < 0)
            return r;
        if (w && !weight_is_plain(w))
            keep[p] = true;
    }
    return 0;
}

/* Marks each DequantizeLinear of constants, and the constant nodes before it and before what is marked, up to
 * a QuantizeLinear (folding that gives the codes). Nodes are sorted: one walk forth for what is constant, one
 * back. */
static int mark_patterns(const struct graph *g, bool *keep) {
    _cleanup_(freep) bool *constant = calloc(g->n_nodes + 1, sizeof(*constant));

    if (!constant)
        return -ENOMEM;
    for (size_t i = 0; i < g->n_nodes; i++) {
        const struct node *n = &g->nodes[i];

        constant[i] = true;
        for (int k = 0; k < n->n_in; k++) {
            const struct value *v = n->in[k] < 0 ? NULL : &g->values[n->in[k]];

            constant[i] = constant[i] && (!v || v->init || (v->producer >= 0 && constant[v->producer]));
        }
        keep[i] = keep[i] || (constant[i] && strcmp(n->op_type, "DequantizeLinear") == 0);
    }
    for (size_t i = g->n_nodes; i-- > 0;) {
        const struct node *n = &g->nodes[i];

        for (int k = 0; keep[i] && k < n->n_in; k++) {
            int p = n->in[k] < 0 ? -1 : g->values[n->in[k]].producer;

            if (p >= 0 && strcmp(g->nodes[p].op_type, "QuantizeLinear") != 0)
                keep[p] = true;
        }
    }
    return 0;
}

/* Bytes of the inputs (those that are read), or of the outputs. */
static size_t sum_bytes(const struct tensor *const *t, int n) {
    size_t sum = 0, size;

    for (int k = 0; k < n; k++)
        if (t[k] && shape_bytes(&t[k]->shape, t[k]->dtype, &size))
            sum += size;
    return sum;
}

struct folded {
    struct tensor in[8], out[1];
    const struct tensor *in_ptr[8];
    void *blocks[8];
};

static void folded_done(struct folded *f) {
    for (size_t i = 0; i < 8; i++)
        free(f->blocks[i]);
}

/* Aligned copies of the inputs: forward wants 64 bytes. */
static int load_inputs(const struct graph *g, const struct node *n, struct folded *f) {
    for (int k = 0; k < n->n_in; k++) {
        size_t size;

        if (n->in[k] < 0)
            continue;
        f->in[k] = *g->values[n->in[k]].init;
        f->in_ptr[k] = &f->in[k];
        if (!shape_bytes(&f->in[k].shape, f->in[k].dtype, &size))
            return -1;
        f->blocks[k] = aligned_alloc(64, (size + 64) & ~(size_t)63);
        if (!f->blocks[k])
            return -1;
        memcpy(f->blocks[k], f->in[k].data, size);
        f->in[k].data = f->blocks[k];
    }
    return 0;
}

/* 1: the node's only output is an initialiser now; 0: left as it is. */
static int fold_node(struct graph *g, const struct node *n, struct error *err) {
    _cleanup_(folded_done) struct folded f = {.out[0].shape.rank = -1};
    _cleanup_(freep) void *scratch = NULL;
    struct error ignored = {0};
    size_t size, need;

    if (load_inputs(g, n, &f) < 0)
        return error_oom(err);
    /* a node that cannot run is reported when the network is planned */
    if (n->op->shape(n, f.in_ptr, f.out, &ignored) < 0 ||
        !shape_bytes(&f.out[0].shape, f.out[0].dtype, &size) ||
        size > sum_bytes(f.in_ptr, n->n_in) + MAX_GROWTH)
        return 0;
    need = n->op->scratch ? n->op->scratch(n, f.in_ptr, f.out) : 0;
    scratch = need ? aligned_alloc(64, (need + 63) & ~(size_t)63) : NULL;
    f.out[0].data = graph_alloc(g, size < 64 ? 64 : size);
    if (!f.out[0].data || (need && !scratch))
        return error_oom(err);
    n->op->forward(n, f.in_ptr, f.out, scratch);
    return graph_set_init(g, n->out[0], &f.out[0]) < 0 ? error_oom(err) : 1;
}

/* A Constant's tensor is used where it lies. */
static int fold_constant_op(struct graph *g, const struct node *n, struct error *err) {
    const struct attr *a = node_attr(n, "value");

    if (strcmp(n->op_type, "Constant") != 0 || !a || a->type != ATTR_TENSOR || !a->t->data)
        return fold_node(g, n, err);
    return graph_set_init(g, n->out[0], a->t) < 0 ? error_oom(err) : 1;
}

static bool can_fold(const struct graph *g, const struct node *n) {
    return n->op->forward && n->n_out == 1 && n->out[0] >= 0 && n->n_in <= 8 &&
           !g->values[n->out[0]].is_output && is_constant_node(g, n) && strcmp(n->op_type, "Identity") != 0;
}

static bool has_fixed_inputs(const struct graph *g) {
    for (size_t i = 0; i < g->n_inputs; i++) {
        const struct shape *s = &g->values[g->inputs[i]].shape;
        int64_t unused;

        if (!shape_count(s, &unused))
            return false;
    }
    return true;
}

/* With every input shape fixed, what follows from shapes is constant too. */
static int fold_shapes(struct graph *g, const bool *keep, bool *dead, struct error *err) {
    _cleanup_(shapes_done) struct shapes s = {0};
    _cleanup_(freep) struct shape *inputs = calloc(g->n_inputs + 1, sizeof(*inputs));
    struct error ignored = {0};

    if (!inputs)
        return error_oom(err);
    shapes_sample(g, 1, 1, inputs);
    if (!has_fixed_inputs(g) || shapes_infer(g, inputs, &s, &ignored) < 0)
        return 0;
    for (size_t i = 0; i < g->n_nodes; i++) {
        const struct node *n = &g->nodes[i];
        struct tensor t;
        size_t size;

        if (dead[i] || keep[i] || n->n_out != 1 || n->out[0] < 0 || g->values[n->out[0]].is_output)
            continue;
        t = s.value[n->out[0]];
        if (!t.data || !shape_bytes(&t.shape, t.dtype, &size))
            continue;
        t.data = graph_alloc(g, size < 64 ? 64 : size);
        if (!t.data)
            return error_oom(err);
        memcpy(t.data, s.value[n->out[0]].data, size);
        if (graph_set_init(g, n->out[0], &t) < 0)
            return error_oom(err);
        dead[i] = true;
    }
    return 0;
}

/* Nodes whose output became an initialiser have none any more and go with the unused. */
static int drop_dead(struct graph *g, const bool *dead, struct error *err) {
    for (size_t i = 0; i < g->n_nodes; i++)
        if (dead[i])
            g->values[g->nodes[i].out[0]].producer = -1;
    if (graph_drop_unused(g) < 0)
        return error_oom(err);
    return graph_finish(g, err);
}

/* Constants first: patterns are then made of initialisers. */
static int fold_constant_ops(struct graph *g, bool *dead, struct error *err) {
    int r = 0;

    for (size_t i = 0; i < g->n_nodes && r >= 0; i++) {
        const struct node *n = &g->nodes[i];

        if (strcmp(n->op_type, "Constant") != 0 || !can_fold(g, n))
            continue;
        r = fold_constant_op(g, n, err);
        dead[i] = r == 1;
    }
    return r;
}

int pass_fold_constants(struct graph *g, struct error *err) {
    _cleanup_(freep) bool *keep = calloc(g->n_nodes + 1, sizeof(*keep));
    _cleanup_(freep) bool *dead = calloc(g->n_nodes + 1, sizeof(*dead));
    int r;

    if (!keep || !dead)
        return error_oom(err);
    r = fold_constant_ops(g, dead, err);
    if (r >= 0)
        r = mark_weights(g, keep, err);
    if (r >= 0 && mark_patterns(g, keep) < 0)
        return error_oom(err);
    for (size_t i = 0; i < g->n_nodes && r >= 0; i++) {
        if (keep[i] || dead[i] || !can_fold(g, &g->nodes[i]))
            continue;
        r = fold_node(g, &g->nodes[i], err);
        dead[i] = r == 1;
    }
    if (r >= 0)
        r = fold_shapes(g, keep, dead, err);
    return r < 0 ? r : drop_dead(g, dead, err);
}
