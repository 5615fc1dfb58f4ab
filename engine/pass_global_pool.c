/* Reductions over all pixels of an image become the global pools they are, which have kernels in every layout
 * and type: ReduceMean over dimensions 2 and up → GlobalAveragePool, ReduceMax → GlobalMaxPool. Where the
 * dimensions are not kept, a Flatten follows. */
#include <errno.h>
#include <string.h>

#include "engine/ops.h"
#include "engine/pass.h"
#include "engine/shape_infer.h"

static const struct {
    const char *reduction, *pool;
} pools[] = {
    {"ReduceMax", "GlobalMaxPool"},
    {"ReduceMean", "GlobalAveragePool"},
};

static const char *pool_of(const struct node *n) {
    for (size_t i = 0; i < sizeof(pools) / sizeof(pools[0]); i++)
        if (!strcmp(n->op_type, pools[i].reduction))
            return pools[i].pool;
    return NULL;
}

static void add_axis(int64_t axis, int rank, unsigned *ret) {
    axis = axis < 0 ? axis + rank : axis;
    *ret |= axis >= 0 && axis < rank ? 1u << axis : 1; /* dimension 0 is none of ours */
}

/* Are the axes constant, and those of all pixels? */
static bool is_over_pixels(const struct graph *g, const struct node *n, int rank) {
    const struct tensor *t = n->n_in > 1 && n->in[1] >= 0 ? g->values[n->in[1]].init : NULL;
    const struct attr *a = node_attr(n, "axes");
    unsigned axes = 0;
    int64_t count = 0;

    if (n->n_in > 1 && n->in[1] >= 0 &&
        (!t || !t->data || t->dtype != DT_S64 || !shape_count(&t->shape, &count) || count > rank))
        return false;
    for (int64_t i = 0; t && i < count; i++) {
        int64_t axis;

        memcpy(&axis, (const char *)t->data + (size_t)i * sizeof(axis), sizeof(axis));
        add_axis(axis, rank, &axes);
    }
    for (size_t i = 0; !t && a && a->type == ATTR_INTS && i < a->n; i++)
        add_axis(a->ints[i], rank, &axes);
    return axes == (1u << rank) - 4;
}

static int replace(struct graph *g, size_t index, const char *pool, struct error *err) {
    struct node n = g->nodes[index];
    const struct shape unknown = {.rank = -1};
    bool keeps = node_attr_int(&n, "keepdims", 1) != 0;
    int *out, kept;

    n.op_type = pool;
    n.is_parsed = false;
    n.n_in = 1;
    n.n_attr = 0;
    if (!keeps) {
        const char *name = graph_unique_name(g, "pooled");

        out = graph_alloc(g, sizeof(*out));
        kept = name && out ? graph_add_value(g, name, DT_F32, &unknown) : -ENOMEM;
        if (kept < 0 ||
            graph_insert_node(g, g->n_nodes, "Flatten", g->values[kept].name, &kept, 1, n.out, 1) < 0)
            return error_oom(err);
        out[0] = kept;
        n.out = out;
        g->values[kept].producer = (int)index;
    }
    g->nodes[index] = n;
    return 0;
}

int pass_global_pools(struct graph *g, struct error *err) {
    _cleanup_(shapes_done) struct shapes s = {0};
    size_t n = g->n_nodes;
    bool is_changed = false, is_wanted = false;

    for (size_t i = 0; i < n; i++)
        is_wanted = is_wanted || pool_of(&g->nodes[i]);
    if (!is_wanted || !shapes_guess(g, &s))
        return 0;
    for (size_t i = 0; i < n; i++) {
        const char *pool = pool_of(&g->nodes[i]);
        const struct tensor *x = pool ? &s.value[g->nodes[i].in[0]] : NULL;
        int r;

        if (!x || x->dtype != DT_F32 || x->shape.rank < 3 || x->shape.rank > 5 ||
            !is_over_pixels(g, &g->nodes[i], x->shape.rank))
            continue;
        r = replace(g, i, pool, err);
        if (r < 0)
            return r;
        is_changed = true;
    }
    return is_changed ? graph_finish(g, err) : 0;
}
