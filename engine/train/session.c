#include "engine/train/session.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/cleanup.h"
#include "engine/ops.h"

/* ---- activations ---- */

static int same_shape(
    const struct node *n, const struct tensor *const *in, struct tensor *out, struct error *err) {
    (void)n;
    if (in[0]->dtype != DT_F32)
        return error_code(err, -EBADMSG, "invalid_model", "only floats can be transformed");
    out[0].dtype = DT_F32;
    out[0].shape = in[0]->shape;
    return 0;
}

/* In no table: it stands in sessions only. */
const struct op session_activation_op = {
    .name = "ActivationTransform",
    .domain = "",
    .min_in = 1,
    .max_in = 2,
    .min_out = 1,
    .max_out = 1,
    .shape = same_shape,
    .params = 1u << 1,
    .saves = OP_SAVES_IN,
    .couple = OP_COUPLE_SAME,
    .quant = OP_QUANT_FLOAT,
    .layouts = OP_LAYOUT_ANY,
};

static const char *name_behind(struct graph *g, int value, const char *what) {
    char base[512];

    snprintf(base, sizeof(base), "%.400s/%s", g->values[value].name, what);
    return graph_unique_name(g, base);
}

/* The node's inputs: the value, and the learned number if the row has one. */
static int add_inputs(
    struct graph *g, const struct activation_transform *a, int *in, int *ret_n, struct error *err) {
    struct tensor own = {.dtype = DT_F32, .shape = {.rank = 1, .dim = {1}}};
    const char *name;
    float first;
    int r = a->row->prepare(a->param, &first, err);

    if (r < 0)
        return error_prefix(err, r, "value '%s'", g->values[a->value].name);
    in[0] = a->value;
    *ret_n = 1;
    if (isnan(first))
        return 0;
    own.data = &first;
    name = name_behind(g, a->value, "scale");
    in[1] = name ? graph_add_init(g, name, &own, /* data_lives= */ false) : -ENOMEM;
    *ret_n = 2;
    return in[1] < 0 ? error_oom(err) : 0;
}

static int redirect(struct graph *g, int node, int from, int to, const char *consumer, struct error *err) {
    bool found = false;

    if (!consumer) {
        graph_replace_value(g, from, to);
        g->nodes[node].in[0] = from;
        return 0;
    }
    for (size_t i = 0; i < g->n_nodes; i++)
        for (int k = 0; g->nodes[i].id && !strcmp(g->nodes[i].id, consumer) && k < g->nodes[i].n_in; k++)
            if (g->nodes[i].in[k] == from) {
                g->nodes[i].in[k] = to;
                found = true;
            }
    return found ? 0
                 : error_set(err, -EINVAL, "node '%s' does not read the value '%s'", consumer,
                       g->values[from].name);
}

static int add_activation(struct graph *g, const struct activation_transform *a, struct error *err) {
    struct session_activation *p = graph_alloc(g, sizeof(*p));
    int in[2], n_in, r, out, node;
    const char *name;

    if (a->value < 0 || (size_t)a->value >= g->n_values || g->values[a->value].init)
        return error_set(err, -EINVAL, "value %d is none that can be transformed", a->value);
    r = add_inputs(g, a, in, &n_in, err);
    if (r < 0)
        return r;
    name = name_behind(g, a->value, a->row->name);
    out = name ? graph_add_value(g, name, DT_F32, NULL) : -ENOMEM;
    if (!p || out < 0)
        return error_oom(err);
    node = graph_insert_node(
        g, (size_t)(g->values[a->value].producer + 1), session_activation_op.name, name, in, n_in, &out, 1);
    if (node < 0)
        return error_oom(err);
    *p = (struct session_activation){a->row, a->param};
    g->nodes[node].op = &session_activation_op;
    g->nodes[node].id = name;
    g->nodes[node].param = p;
    g->nodes[node].is_parsed = true;
    return redirect(g, node, a->value, out, a->consumer, err);
}

/* ---- cut and tap ---- */

static int find_value(const struct graph *g, const char *name, struct error *err) {
    int v = graph_find_value(g, name);

    return v >= 0 ? v : error_code(err, -EBADMSG, "invalid_model", "there is no value '%s'", name);
}

static int set_tap(struct graph *g, const char *tap, struct error *err) {
    int v = find_value(g, tap, err);

    if (v < 0)
        return v;
    for (size_t i = 0; i < g->n_outputs; i++)
        g->values[g->outputs[i]].is_output = false;
    g->n_outputs = 0;
    return graph_add_output(g, v) < 0 ? error_oom(err) : 0;
}

static void take_from_maker(struct graph *g, int v) {
    struct node *n = g->values[v].producer >= 0 ? &g->nodes[g->values[v].producer] : NULL;

    for (int k = 0; n && k < n->n_out; k++)
        if (n->out[k] == v)
            n->out[k] = -1;
    g->values[v].producer = -1;
}

static int set_cut(struct graph *g, const char *cut, const struct shape *item, struct error *err) {
    int v = find_value(g, cut, err);

    if (v < 0)
        return v;
    if (g->values[v].init)
        return error_code(err, -EBADMSG, "invalid_model", "'%s' is a constant and cannot be fed", cut);
    take_from_maker(g, v);
    for (size_t i = 0; i < g->n_inputs; i++)
        g->values[g->inputs[i]].is_input = false;
    g->n_inputs = 0;
    if (graph_add_input(g, v) < 0)
        return error_oom(err);
    g->values[v].dtype = DT_F32;
    g->values[v].shape = *item;
    g->values[v].shape.dim[0] = -1;
    return 0;
}

/* After what nothing needs is gone: does anything read an input that is not fed any more? */
static int check_inputs(const struct graph *g, const char *cut, struct error *err) {
    for (size_t i = 0; i < g->n_nodes; i++)
        for (int k = 0; k < g->nodes[i].n_in; k++) {
            const struct value *v = g->nodes[i].in[k] < 0 ? NULL : &g->values[g->nodes[i].in[k]];

            if (v && v->producer < 0 && !v->init && !v->is_input)
                return error_code(err, -EBADMSG, "invalid_model",
                    "node '%s' depends on '%s', which does not come out of the cut '%s'", g->nodes[i].id,
                    v->name, cut);
        }
    return 0;
}

int session_graph_new(const struct graph *g, const struct shape *item, const struct trainer_options *o,
    struct graph **ret, struct error *err) {
    _cleanup_(graph_freep) struct graph *copy = NULL;
    int r;

    *ret = NULL;
    if (!o->cut && !o->tap && !o->n_activations)
        return 0;
    r = graph_clone(g, &copy, err);
    if (r == 0 && o->tap)
        r = set_tap(copy, o->tap, err);
    if (r == 0 && o->cut)
        r = set_cut(copy, o->cut, item, err);
    if (r == 0 && graph_drop_unused(copy) < 0)
        r = error_oom(err);
    if (r == 0 && o->cut)
        r = check_inputs(copy, o->cut, err);
    for (size_t i = o->n_activations; r == 0 && i > 0; i--) /* each stands before those already there */
        r = add_activation(copy, &o->activations[i - 1], err);
    if (r == 0)
        *ret = TAKE(copy);
    return r;
}
