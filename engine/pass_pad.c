/* A Pad of zeros on the sides of an image goes into the pads of the convolution or average pool after it. */
#include <string.h>

#include "engine/constant.h"
#include "engine/ops.h"
#include "engine/pass.h"

#define MAX_SPATIAL (SHAPE_MAX_RANK - 2)

/* What a Pad adds: all begins, then all ends of the spatial dimensions, as ONNX writes them. */
struct pads {
    int n; /* spatial dimensions */
    int64_t begin[MAX_SPATIAL], end[MAX_SPATIAL];
};

static bool is_zero_fill(const struct graph *g, const struct node *n) {
    const struct tensor *t;

    if (strcmp(node_attr_string(n, "mode", "constant"), "constant") != 0)
        return false;
    if (n->n_in < 3 || n->in[2] < 0)
        return node_attr_float(n, "value", 0) == 0;
    t = constant_of(g, n->in[2]);
    return t && t->dtype == DT_F32 && constant_f32(t, 0) == 0;
}

/* pads[2 * rank]; with `axes` (opset 18) the Pad is left alone. */
static bool get_pads(const struct graph *g, const struct node *n, struct pads *ret) {
    const struct attr *a = node_attr(n, "pads");
    int64_t v[2 * SHAPE_MAX_RANK];
    int count, rank;

    if (a && a->type == ATTR_INTS && a->n <= 2 * SHAPE_MAX_RANK) {
        count = (int)a->n;
        memcpy(v, a->ints, a->n * sizeof(*v));
    } else {
        count = n->n_in > 1 ? constant_ints(g, n->in[1], v, 2 * SHAPE_MAX_RANK) : -1;
    }
    rank = count / 2;
    if (count < 6 || count % 2 || (n->n_in > 3 && n->in[3] >= 0) || v[0] || v[1] || v[rank] || v[rank + 1])
        return false;
    ret->n = rank - 2;
    for (int i = 0; i < ret->n; i++) {
        ret->begin[i] = v[2 + i];
        ret->end[i] = v[rank + 2 + i];
        if (ret->begin[i] < 0 || ret->end[i] < 0)
            return false;
    }
    return true;
}

/* The consumer's own pads are added to *p; false: it has none that can be added to. */
static bool add_own_pads(const struct node *n, struct pads *p) {
    const char *auto_pad = node_attr_string(n, "auto_pad", "NOTSET");
    const struct attr *own = node_attr(n, "pads");

    if (strcmp(auto_pad, "NOTSET") != 0 && strcmp(auto_pad, "VALID") != 0)
        return false;
    if (!own || strcmp(auto_pad, "VALID") == 0)
        return true;
    if (own->type != ATTR_INTS || own->n != 2 * (size_t)p->n)
        return false;
    for (int i = 0; i < p->n; i++) {
        p->begin[i] += own->ints[i];
        p->end[i] += own->ints[p->n + i];
    }
    return true;
}

/* The zeros of a Pad count in an average, so the pool's must too; runtimes want pads below the kernel. */
static bool fits_pool(const struct node *n, const struct pads *p) {
    const struct attr *kernel = node_attr(n, "kernel_shape"), *own = node_attr(n, "pads");
    bool counts = node_attr_int(n, "count_include_pad", 0) != 0;

    if (!kernel || kernel->type != ATTR_INTS || kernel->n != (size_t)p->n ||
        node_attr_int(n, "ceil_mode", 0) != 0)
        return false;
    for (size_t i = 0; own && !counts && own->type == ATTR_INTS && i < own->n; i++)
        if (own->ints[i] != 0)
            return false;
    for (int i = 0; i < p->n; i++)
        if (p->begin[i] >= kernel->ints[i] || p->end[i] >= kernel->ints[i])
            return false;
    return true;
}

static int merge(struct graph *g, size_t pad, struct node *n, const struct pads *p, struct error *err) {
    int64_t v[2 * MAX_SPATIAL];
    bool is_pool = strcmp(n->op_type, "AveragePool") == 0;

    for (int i = 0; i < p->n; i++) {
        v[i] = p->begin[i];
        v[p->n + i] = p->end[i];
    }
    if (graph_set_attr_ints(g, n, "pads", v, 2 * (size_t)p->n) < 0 ||
        (node_attr(n, "auto_pad") && graph_set_attr_string(g, n, "auto_pad", "NOTSET") < 0) ||
        (is_pool && graph_set_attr_int(g, n, "count_include_pad", 1) < 0))
        return error_oom(err);
    n->in[0] = g->nodes[pad].in[0];
    return 0;
}

static int try_merge(struct graph *g, size_t i, struct error *err) {
    const struct node *n = &g->nodes[i];
    struct node *to;
    struct pads p;
    int consumer;
    bool is_pool;

    if (strcmp(n->op_type, "Pad") != 0 || n->domain[0] || g->values[n->out[0]].is_output ||
        !is_zero_fill(g, n) || !get_pads(g, n, &p) || graph_consumers(g, n->out[0], &consumer, 1) != 1)
        return 0;
    to = &g->nodes[consumer];
    is_pool = strcmp(to->op_type, "AveragePool") == 0;
    if (to->domain[0] || to->in[0] != n->out[0] || (!is_pool && strcmp(to->op_type, "Conv") != 0) ||
        !add_own_pads(to, &p) || (is_pool && !fits_pool(to, &p)))
        return 0;
    return merge(g, i, to, &p, err);
}

int pass_merge_pads(struct graph *g, struct error *err) {
    for (size_t i = 0; i < g->n_nodes; i++) {
        int r = try_merge(g, i, err);

        if (r < 0)
            return r;
    }
    if (graph_drop_unused(g) < 0)
        return error_oom(err);
    return graph_finish(g, err);
}
