/* What makes a list of nodes a graph: links, order, operators, layer ids. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "engine/graph.h"
#include "engine/graph_store.h"
#include "engine/ops.h"

static bool is_defined(const struct value *v) {
    return v->producer >= 0 || v->init || v->is_input;
}

static int link_outputs(struct graph *g, struct error *err) {
    for (size_t v = 0; v < g->n_values; v++)
        g->values[v].producer = -1;
    for (size_t i = 0; i < g->n_nodes; i++) {
        const struct node *n = &g->nodes[i];

        for (int k = 0; k < n->n_out; k++) {
            struct value *v = n->out[k] < 0 ? NULL : &g->values[n->out[k]];

            if (!v)
                continue;
            if (is_defined(v))
                return error_code(err, -EBADMSG, "invalid_model",
                    "node '%.100s': output '%.100s' is defined twice", graph_node_label(g, n), v->name);
            v->producer = (int)i;
        }
    }
    return 0;
}

/* Strings and types the engine cannot hold have no bytes: refused where a node uses them. */
static int check_constant(
    const struct graph *g, const struct node *n, const struct value *v, struct error *err) {
    if (!v->init || dtype_info(v->init->dtype))
        return 0;
    return error_code(err, -EBADMSG, "invalid_model",
        "node '%.100s': initialiser '%.100s' has elements of type %d, which is not supported",
        graph_node_label(g, n), v->name, (int)v->init->dtype);
}

static int check_inputs(const struct graph *g, struct error *err) {
    for (size_t i = 0; i < g->n_nodes; i++) {
        const struct node *n = &g->nodes[i];

        for (int k = 0; k < n->n_in; k++) {
            const struct value *v = n->in[k] < 0 ? NULL : &g->values[n->in[k]];
            int r;

            if (v && !is_defined(v))
                return error_code(err, -EBADMSG, "invalid_model",
                    "node '%.100s': input '%.100s' is neither an input, an initialiser nor any node's output",
                    graph_node_label(g, n), v->name);
            r = v ? check_constant(g, n, v, err) : 0;
            if (r < 0)
                return r;
        }
    }
    for (size_t i = 0; i < g->n_outputs; i++)
        if (!is_defined(&g->values[g->outputs[i]]))
            return error_code(err, -EBADMSG, "invalid_model",
                "graph output '%.100s' is neither an input, an initialiser nor any node's output",
                g->values[g->outputs[i]].name);
    return 0;
}

static int check_count(const struct graph *g, const struct node *n, const char *what, int have, int min,
    int max, struct error *err) {
    if (have >= min && have <= max)
        return 0;
    if (min == max)
        return error_code(err, -EBADMSG, "invalid_model", "node '%.100s': %s has %d %s, takes %d",
            graph_node_label(g, n), n->op_type, have, what, min);
    return error_code(err, -EBADMSG, "invalid_model", "node '%.100s': %s has %d %s, takes %d to %d",
        graph_node_label(g, n), n->op_type, have, what, min, max);
}

static int find_op(const struct graph *g, struct node *n, struct error *err) {
    const char *domain = n->domain[0] ? n->domain : "ai.onnx";
    int r;

    n->op = op_find(strcmp(n->domain, "ai.onnx") == 0 ? "" : n->domain, n->op_type);
    if (!n->op)
        return error_code(err, -EBADMSG, "unsupported_operator",
            "node '%.100s': operator '%.100s' of domain '%.100s' is not supported", graph_node_label(g, n),
            n->op_type, domain);
    if (g->opset < n->op->since || g->opset > n->op->until)
        return error_code(err, -EBADMSG, "unsupported_operator",
            "node '%.100s': operator '%s' is supported in opsets %d to %d, the model has %lld",
            graph_node_label(g, n), n->op_type, n->op->since, n->op->until, (long long)g->opset);
    r = check_count(g, n, "inputs", n->n_in, n->op->min_in, n->op->max_in, err);
    if (r == 0)
        r = check_count(g, n, "outputs", n->n_out, n->op->min_out, n->op->max_out, err);
    for (int k = 0; r == 0 && k < n->op->min_in; k++)
        if (n->in[k] < 0)
            return error_code(err, -EBADMSG, "invalid_model", "node '%.100s': input %d of %s is missing",
                graph_node_label(g, n), k, n->op_type);
    for (int k = 0; r == 0 && k < n->op->min_out; k++)
        if (n->out[k] < 0)
            return error_code(err, -EBADMSG, "invalid_model", "node '%.100s': output %d of %s has no name",
                graph_node_label(g, n), k, n->op_type);
    return r;
}

static int check_attributes(const struct graph *g, const struct node *n, struct error *err) {
    for (size_t i = 0; i < n->n_attr; i++)
        if (n->attr[i].type == ATTR_TENSOR && !n->attr[i].t->data)
            return error_code(err, -EBADMSG, "invalid_model",
                "node '%.100s': attribute '%.100s' has elements of type %d, which is not supported",
                graph_node_label(g, n), n->attr[i].name, (int)n->attr[i].t->dtype);
    return 0;
}

static int parse_ops(struct graph *g, struct error *err) {
    for (size_t i = 0; i < g->n_nodes; i++) {
        struct node *n = &g->nodes[i];
        int r;

        if (n->is_parsed)
            continue;
        r = find_op(g, n, err);
        if (r == 0)
            r = check_attributes(g, n, err);
        if (r < 0)
            return r;
        r = n->op->parse ? n->op->parse(g, n, err) : 0;
        if (r < 0)
            return error_prefix(err, r, "node '%.100s'", graph_node_label(g, n));
        n->is_parsed = true;
    }
    return 0;
}

static bool is_sorted(const struct graph *g) {
    for (size_t i = 0; i < g->n_nodes; i++)
        for (int k = 0; k < g->nodes[i].n_in; k++)
            if (g->nodes[i].in[k] >= 0 && g->values[g->nodes[i].in[k]].producer >= (int)i)
                return false;
    return true;
}

/* Follows unplaced producers from any unplaced node: after n steps it stands on a cycle. */
static int report_cycle(const struct graph *g, const int *missing, struct error *err) {
    size_t at = 0;

    while (missing[at] == 0)
        at++;
    for (size_t step = 0; step < g->n_nodes; step++) {
        const struct node *n = &g->nodes[at];

        for (int k = 0; k < n->n_in; k++) {
            int p = n->in[k] < 0 ? -1 : g->values[n->in[k]].producer;

            if (p >= 0 && missing[p] > 0) {
                at = (size_t)p;
                break;
            }
        }
    }
    return error_code(err, -EBADMSG, "invalid_model", "node '%.100s' is part of a cycle",
        graph_node_label(g, &g->nodes[at]));
}

/* Edges from a node to its consumers: `first[p]` to `first[p + 1]` in `edges`, one entry per use. */
struct edges {
    size_t *first;
    int *to;
};

static void edges_done(struct edges *e) {
    free(e->first);
    free(e->to);
}

static int edges_init(struct edges *e, const struct graph *g, int *missing) {
    size_t n = 0;

    e->first = calloc(g->n_nodes + 2, sizeof(*e->first));
    if (!e->first)
        return -ENOMEM;
    for (size_t i = 0; i < g->n_nodes; i++) {
        for (int k = 0; k < g->nodes[i].n_in; k++) {
            int p = g->nodes[i].in[k] < 0 ? -1 : g->values[g->nodes[i].in[k]].producer;

            if (p < 0)
                continue;
            e->first[p + 2]++;
            missing[i]++;
            n++;
        }
    }
    e->to = calloc(n + 1, sizeof(*e->to));
    if (!e->to)
        return -ENOMEM;
    for (size_t i = 2; i < g->n_nodes + 2; i++)
        e->first[i] += e->first[i - 1];
    for (size_t i = 0; i < g->n_nodes; i++) {
        for (int k = 0; k < g->nodes[i].n_in; k++) {
            int p = g->nodes[i].in[k] < 0 ? -1 : g->values[g->nodes[i].in[k]].producer;

            if (p >= 0)
                e->to[e->first[p + 1]++] = (int)i;
        }
    }
    return 0;
}

/* Kahn's algorithm; ready nodes first in, first out, in the file's order. */
static int sort_nodes(struct graph *g, struct error *err) {
    _cleanup_(freep) int *missing = calloc(g->n_nodes + 1, sizeof(*missing));
    _cleanup_(freep) int *order = calloc(g->n_nodes + 1, sizeof(*order));
    _cleanup_(freep) struct node *sorted = NULL;
    _cleanup_(edges_done) struct edges e = {0};
    size_t n = 0;

    if (is_sorted(g))
        return 0;
    if (!missing || !order || edges_init(&e, g, missing) < 0)
        return error_oom(err);
    for (size_t i = 0; i < g->n_nodes; i++)
        if (missing[i] == 0)
            order[n++] = (int)i;
    for (size_t at = 0; at < n; at++)
        for (size_t k = e.first[order[at]]; k < e.first[order[at] + 1]; k++)
            if (--missing[e.to[k]] == 0)
                order[n++] = e.to[k];
    if (n < g->n_nodes)
        return report_cycle(g, missing, err);
    sorted = calloc(g->n_nodes, sizeof(*sorted));
    if (!sorted)
        return error_oom(err);
    for (size_t i = 0; i < n; i++)
        sorted[i] = g->nodes[order[i]];
    memcpy(g->nodes, sorted, n * sizeof(*sorted));
    for (size_t i = 0; i < n; i++)
        for (int k = 0; k < g->nodes[i].n_out; k++)
            if (g->nodes[i].out[k] >= 0)
                g->values[g->nodes[i].out[k]].producer = (int)i;
    return 0;
}

static void index_donep(struct name_index *x) {
    name_index_done(x);
}

#define ID_TRIES 1000

/* "OpType_output0", with a number behind it should a node be called so. */
static const char *make_id(struct graph *g, const struct node *n, const struct name_index *taken) {
    const char *out = n->n_out > 0 && n->out[0] >= 0 ? g->values[n->out[0]].name : "";
    size_t size = strlen(n->op_type) + strlen(out) + 16;
    char *id = graph_alloc(g, size);
    int unused;

    if (!id)
        return NULL;
    snprintf(id, size, "%s_%s", n->op_type, out);
    for (unsigned i = 2; i < ID_TRIES && name_index_find(taken, id, &unused); i++)
        snprintf(id, size, "%s_%s_%u", n->op_type, out, i);
    return id;
}

/* Ids that are there stay; a name counts when one node only has it (methods.md, layer ids). */
static int give_ids(struct graph *g, struct error *err) {
    _cleanup_(index_donep) struct name_index names = {0}, taken = {0};
    int first, r = 0;

    name_index_init(&names);
    name_index_init(&taken);
    for (size_t i = 0; i < g->n_nodes && r >= 0; i++) {
        const struct node *n = &g->nodes[i];

        if (n->id)
            r = name_index_add(&taken, n->id, (int)i);
        if (r == -EEXIST)
            r = 0;
        if (r < 0 || !n->name[0])
            continue;
        if (name_index_find(&names, n->name, &first))
            name_index_set(&names, n->name, -1);
        else
            r = name_index_add(&names, n->name, (int)i);
    }
    for (size_t i = 0; i < g->n_nodes && r >= 0; i++) {
        struct node *n = &g->nodes[i];

        if (n->id)
            continue;
        if (n->name[0] && name_index_find(&names, n->name, &first) && first >= 0 &&
            name_index_add(&taken, n->name, (int)i) == 0) {
            n->id = n->name;
            continue;
        }
        n->id = make_id(g, n, &taken);
        r = n->id ? name_index_add(&taken, n->id, (int)i) : -ENOMEM;
        if (r == -EEXIST)
            return error_code(err, -EBADMSG, "invalid_model", "node '%.100s': no unique id", n->id);
    }
    return r < 0 ? error_oom(err) : 0;
}

int graph_finish(struct graph *g, struct error *err) {
    int r = link_outputs(g, err);

    if (r == 0)
        r = check_inputs(g, err);
    if (r == 0)
        r = sort_nodes(g, err);
    if (r == 0)
        r = parse_ops(g, err);
    if (r == 0)
        r = give_ids(g, err);
    return r;
}
