/* float16 and bfloat16 networks become float networks with the same inputs, outputs and stored weights.
 *
 * A value holds halves because a source says so: an input, an initialiser, a Cast to half, a Constant or a
 * ConstantOfShape of halves. All other operators keep the type. So each source gets a float twin, which all
 * read but Casts; what follows is then float by itself, and outputs that are declared half get a Cast:
 *
 *     x (half) --> Conv --> Relu --> y (half)       x --> Cast --> Conv --> Relu --> Cast --> y
 *                   ^                                               ^
 *                   w (half)                                 w --> Cast */
#include <errno.h>
#include <string.h>

#include "engine/constant.h"
#include "engine/ops.h"
#include "engine/ops/element.h"
#include "engine/pass.h"

struct widen {
    struct graph *g;
    bool *is_read;            /* by value: a node that is no Cast reads it */
    bool *is_weight;          /* by value: it is the weights of a layer */
    int *twin;                /* by value: its float twin, -1 */
    size_t n_values, n_nodes; /* as they were: the arrays' sizes */
    size_t *before;           /* of each added node: the node it stands before; n_nodes: the end */
};

static bool is_cast(const struct node *n) {
    return strcmp(n->op_type, "Cast") == 0;
}

/* Of a node that makes halves, whatever its inputs are. */
static bool makes_halves(const struct node *n) {
    const struct attr *value = node_attr(n, "value");

    if (is_cast(n))
        return element_is_half((enum dtype)node_attr_int(n, "to", 0));
    return (strcmp(n->op_type, "Constant") == 0 || strcmp(n->op_type, "ConstantOfShape") == 0) && value &&
           value->type == ATTR_TENSOR && element_is_half(value->t->dtype);
}

static bool is_source(const struct graph *g, int v) {
    const struct value *value = &g->values[v];

    if (value->init)
        return element_is_half(value->init->dtype);
    if (value->producer >= 0)
        return makes_halves(&g->nodes[value->producer]);
    return value->is_input && element_is_half(value->dtype);
}

static void mark_reads(struct widen *w) {
    for (size_t i = 0; i < w->n_nodes; i++) {
        const struct node *n = &w->g->nodes[i];

        for (int k = 0; k < n->n_in && !is_cast(n); k++) {
            if (n->in[k] < 0)
                continue;
            w->is_read[n->in[k]] = true;
            if (k == 1 && n->op->couple == OP_COUPLE_FREE)
                w->is_weight[n->in[k]] = true;
        }
    }
}

static const char *twin_name(struct graph *g, int v) {
    const char *base = g->values[v].name;
    size_t size = strlen(base) + sizeof("_float");
    char *name = graph_alloc(g, size);

    if (!name)
        return NULL;
    snprintf(name, size, "%s_float", base);
    return graph_unique_name(g, name);
}

static int add_value(struct graph *g, int like) {
    const char *name = twin_name(g, like);
    struct shape shape = g->values[like].shape; /* adding may move the values */
    int v = name ? graph_add_value(g, name, DT_F32, &shape) : -ENOMEM;

    if (v >= 0)
        g->values[v].dim_param = g->values[like].dim_param;
    return v;
}

/* A Cast before node `before`. It is put to the end and moved by sort_added. */
static int add_cast(struct widen *w, size_t before, int from, int to, enum dtype type) {
    size_t at = w->g->n_nodes;
    const char *name = w->g->values[type == DT_F32 ? to : from].name;
    int r = graph_insert_node(w->g, at, "Cast", name, &from, 1, &to, 1);

    if (r < 0)
        return r;
    w->before[at - w->n_nodes] = before;
    return graph_set_attr_int(w->g, &w->g->nodes[at], "to", type);
}

/* The halves of an initialiser as a new one of floats. */
static int add_floats(struct graph *g, int v) {
    struct tensor t = *g->values[v].init;
    const char *name = twin_name(g, v);
    int64_t n;
    size_t size;
    float *x;

    if (!name || !shape_count(&t.shape, &n) || !shape_bytes(&t.shape, DT_F32, &size))
        return -ENOMEM;
    x = graph_alloc(g, size);
    if (!x)
        return -ENOMEM;
    (void)element_read_floats(&t, 0, n, x);
    t.dtype = DT_F32;
    t.data = x;
    return graph_add_init(g, name, &t, /* data_lives= */ true);
}

static int add_twin(struct widen *w, int v, bool keep_weights) {
    const struct value *value = &w->g->values[v];
    int producer = value->producer, from = v, twin, r;

    if (constant_of(w->g, v) && !(keep_weights && w->is_weight[v]))
        return w->twin[v] = add_floats(w->g, v);
    if (producer >= 0 && is_cast(&w->g->nodes[producer]))
        from = w->g->nodes[producer].in[0];
    twin = add_value(w->g, v);
    if (twin < 0)
        return twin;
    w->twin[v] = twin;
    r = add_cast(w, (size_t)(producer + 1), from, twin, DT_F32);
    return r < 0 ? r : twin;
}

static void read_twins(struct widen *w) {
    for (size_t i = 0; i < w->n_nodes; i++) {
        const struct node *n = &w->g->nodes[i];

        for (int k = 0; k < n->n_in && !is_cast(n); k++)
            if (n->in[k] >= 0 && w->twin[n->in[k]] >= 0)
                n->in[k] = w->twin[n->in[k]];
    }
}

/* What a node made of halves is float now, whatever the file declares. Outputs stay what they are declared.
 */
static int cast_outputs(struct widen *w) {
    struct graph *g = w->g;

    for (size_t i = 0; i < w->n_nodes; i++) {
        const struct node *n = &g->nodes[i];

        for (int k = 0; k < n->n_out && !makes_halves(n); k++) {
            int v = n->out[k], r;

            if (v < 0 || !element_is_half(g->values[v].dtype))
                continue;
            if (!g->values[v].is_output) {
                g->values[v].dtype = DT_F32;
                continue;
            }
            w->twin[v] = add_value(g, v);
            r = w->twin[v] < 0 ? w->twin[v] : add_cast(w, w->n_nodes, w->twin[v], v, g->values[v].dtype);
            if (r < 0)
                return r;
            n = &g->nodes[i]; /* they may have moved */
            n->out[k] = w->twin[v];
        }
    }
    return 0;
}

/* Who read an output that a Cast makes now reads its twin. */
static void read_outputs(struct widen *w) {
    for (size_t i = 0; i < w->n_nodes; i++) {
        const struct node *n = &w->g->nodes[i];

        for (int k = 0; k < n->n_in; k++)
            if (n->in[k] >= 0 && (size_t)n->in[k] < w->n_values &&
                w->g->values[n->in[k]].producer >= (int)w->n_nodes)
                n->in[k] = w->twin[n->in[k]];
    }
}

/* The added nodes go from the end to their places: the order of the file says what lives how long. */
static int sort_added(struct widen *w) {
    size_t n = w->g->n_nodes, n_added = n - w->n_nodes, at = 0;
    _cleanup_(freep) struct node *sorted = calloc(n + 1, sizeof(*sorted));
    _cleanup_(freep) size_t *first = calloc(w->n_nodes + 3, sizeof(*first));
    _cleanup_(freep) size_t *order = calloc(n_added + 1, sizeof(*order));

    if (!sorted || !first || !order)
        return -ENOMEM;
    for (size_t i = 0; i < n_added; i++)
        first[w->before[i] + 1]++;
    for (size_t i = 0; i <= w->n_nodes; i++)
        first[i + 1] += first[i];
    for (size_t i = 0; i < n_added; i++)
        order[first[w->before[i]]++] = w->n_nodes + i;
    for (size_t i = 0, k = 0; i <= w->n_nodes; i++) {
        for (; k < first[i]; k++)
            sorted[at++] = w->g->nodes[order[k]];
        if (i < w->n_nodes)
            sorted[at++] = w->g->nodes[i];
    }
    memcpy(w->g->nodes, sorted, n * sizeof(*sorted));
    return 0;
}

static int widen(struct widen *w, bool keep_weights) {
    bool any = false;
    int r = 0;

    mark_reads(w);
    for (size_t v = 0; r >= 0 && v < w->n_values; v++) {
        w->twin[v] = -1;
        if (!w->is_read[v] || !is_source(w->g, (int)v))
            continue;
        r = add_twin(w, (int)v, keep_weights);
        any = true;
    }
    if (r < 0 || !any)
        return r;
    read_twins(w);
    r = cast_outputs(w);
    if (r < 0)
        return r;
    read_outputs(w);
    r = sort_added(w);
    return r < 0 ? r : 1;
}

static int run(struct graph *g, bool keep_weights, struct error *err) {
    _cleanup_(freep) bool *is_read = calloc(g->n_values + 1, sizeof(*is_read));
    _cleanup_(freep) bool *is_weight = calloc(g->n_values + 1, sizeof(*is_weight));
    _cleanup_(freep) int *twin = calloc(g->n_values + 1, sizeof(*twin));
    /* at most one Cast a value */
    _cleanup_(freep) size_t *before = calloc(2 * g->n_values + 1, sizeof(*before));
    struct widen w = {.g = g,
        .is_read = is_read,
        .is_weight = is_weight,
        .twin = twin,
        .n_values = g->n_values,
        .n_nodes = g->n_nodes,
        .before = before};
    int r = is_read && is_weight && twin && before ? widen(&w, keep_weights) : -ENOMEM;

    if (r < 0)
        return error_oom(err);
    r = r == 0 ? 0 : graph_finish(g, err);
    return r == 0 && graph_drop_unused(g) < 0 ? error_oom(err) : r;
}

int pass_widen(struct graph *g, struct error *err) {
    return run(g, /* keep_weights= */ true, err);
}

int pass_widen_all(struct graph *g, struct error *err) {
    return run(g, /* keep_weights= */ false, err);
}
