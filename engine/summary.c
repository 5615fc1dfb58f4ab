#include "engine/summary.h"

#include <errno.h>
#include <string.h>

#include "engine/constant.h"
#include "engine/nonzero.h"
#include "engine/ops.h"
#include "engine/pass.h"
#include "engine/shape_infer.h"
#include "engine/weight.h"

struct summary *summary_free(struct summary *s) {
    if (!s)
        return NULL;
    graph_free(s->graph);
    free(s->inputs);
    free(s->outputs);
    free(s->ops);
    free(s->layers);
    free(s->sample);
    free(s);
    return NULL;
}

/* Sides to try for free image dimensions: of classifiers, of multiples of 32, of small pictures. */
static const int64_t sides[] = {224, 32, 28, 64, 96, 128, 320, 1};

/* Fills s->sample and *ret with the first side that works. */
static int find_sample(const struct graph *g, struct summary *s, struct shapes *ret, struct error *err) {
    struct error first = {0};

    for (size_t i = 0; i < sizeof(sides) / sizeof(sides[0]); i++) {
        struct error e = {0};

        shapes_sample(g, 1, sides[i], s->sample);
        if (shapes_infer(g, s->sample, ret, &e) == 0)
            return 0;
        error_copy(&first, &e);
    }
    return error_copy(err, &first);
}

/* A second sample, of other batch and side where those are free. */
static bool find_other(const struct graph *g, const struct summary *s, struct shapes *ret) {
    _cleanup_(freep) struct shape *other = calloc(s->n_inputs + 1, sizeof(*other));

    for (int64_t step = 32; other && step <= 128; step *= 2) {
        struct error ignored = {0};

        shapes_sample(g, 2, 224 + step, other);
        if (shapes_infer(g, other, ret, &ignored) == 0)
            return true;
    }
    return false;
}

/* What depends on data has the sizes that the file declares; others are not known. */
static bool is_declared(const struct shape *s, int rank, int d) {
    return s->rank == rank && s->dim[d] >= 0;
}

static int describe_values(struct summary *s, const struct shapes *a, struct error *err) {
    const struct graph *g = s->graph;
    _cleanup_(shapes_done) struct shapes b = {0};
    bool has_other = find_other(g, s, &b);

    s->inputs = calloc(g->n_inputs + 1, sizeof(*s->inputs));
    s->outputs = calloc(g->n_outputs + 1, sizeof(*s->outputs));
    if (!s->inputs || !s->outputs)
        return error_oom(err);
    for (size_t i = 0; i < g->n_inputs; i++) {
        const struct value *v = &g->values[g->inputs[i]];

        s->inputs[i] = (struct summary_value){v->name, v->dtype, v->shape};
    }
    s->n_outputs = g->n_outputs;
    for (size_t i = 0; i < g->n_outputs; i++) {
        const struct tensor *t = &a->value[g->outputs[i]], *o = has_other ? &b.value[g->outputs[i]] : t;
        struct shape shape = t->shape;

        for (int d = 0; d < shape.rank; d++)
            if (o->shape.rank != shape.rank || o->shape.dim[d] != shape.dim[d] ||
                (a->is_counted[g->outputs[i]] &&
                    !is_declared(&g->values[g->outputs[i]].shape, shape.rank, d)))
                shape.dim[d] = -1;
        s->outputs[i] = (struct summary_value){g->values[g->outputs[i]].name, t->dtype, shape};
    }
    return 0;
}

static int by_name(const void *a, const void *b) {
    return strcmp(((const struct summary_op *)a)->op_type, ((const struct summary_op *)b)->op_type);
}

static int count_ops(struct summary *s, const struct graph *g, struct error *err) {
    size_t n = 0;

    s->ops = calloc(g->n_nodes + 1, sizeof(*s->ops));
    if (!s->ops)
        return error_oom(err);
    /* op->name lives longer than the graph */
    for (size_t i = 0; i < g->n_nodes; i++)
        s->ops[i] = (struct summary_op){g->nodes[i].op->name, 1};
    qsort(s->ops, g->n_nodes, sizeof(*s->ops), by_name);
    for (size_t i = 0; i < g->n_nodes; i++) {
        if (n && strcmp(s->ops[n - 1].op_type, s->ops[i].op_type) == 0)
            s->ops[n - 1].count++;
        else
            s->ops[n++] = s->ops[i];
    }
    s->n_ops = n;
    return 0;
}

/* What describe_layer knows of all nodes. */
struct walk {
    const struct graph *g;
    const struct shapes *shapes;
    bool *is_constant; /* by node: made of constants only, as the patterns of compressed weights are */
    bool *is_counted;  /* by value */
    int *stack;        /* n_values */
};

static void mark_constants(struct walk *w) {
    for (size_t i = 0; i < w->g->n_nodes; i++) {
        const struct node *n = &w->g->nodes[i];

        w->is_constant[i] = n->n_in > 0 && !n->op->reads_shape_only;
        for (int k = 0; k < n->n_in; k++) {
            const struct value *v = n->in[k] < 0 ? NULL : &w->g->values[n->in[k]];

            w->is_constant[i] =
                w->is_constant[i] && (!v || v->init || (v->producer >= 0 && w->is_constant[v->producer]));
        }
    }
}

/* Stored bytes of the initialisers behind a value, through constant nodes; each counted once. */
static size_t stored_bytes(struct walk *w, int value) {
    size_t n = 0, sum = 0, size;

    w->stack[n++] = value;
    while (n) {
        int at = w->stack[--n];
        const struct value *v = &w->g->values[at];
        const struct node *p = v->producer < 0 ? NULL : &w->g->nodes[v->producer];

        if (v->init && shape_bytes(&v->init->shape, v->init->dtype, &size))
            sum += size;
        if (v->init || !p || !w->is_constant[v->producer])
            continue;
        for (int k = 0; k < p->n_in; k++) {
            if (p->in[k] < 0 || w->is_counted[p->in[k]])
                continue;
            w->is_counted[p->in[k]] = true;
            w->stack[n++] = p->in[k];
        }
    }
    return sum;
}

static int64_t cost_of(const struct walk *w, const struct node *n) {
    const struct tensor **in = calloc((size_t)n->n_in + 1, sizeof(*in));
    struct tensor *out = calloc((size_t)n->n_out + 1, sizeof(*out));
    struct op_cost cost = {0};

    for (int k = 0; in && k < n->n_in; k++)
        in[k] = n->in[k] < 0 ? NULL : &w->shapes->value[n->in[k]];
    for (int k = 0; out && k < n->n_out; k++)
        if (n->out[k] >= 0)
            out[k] = w->shapes->value[n->out[k]];
    if (in && out && n->op->cost)
        n->op->cost(n, in, out, &cost);
    free(in);
    free(out);
    return cost.macs;
}

/* -1, once it is not known, stays. */
static int64_t add_nonzero(int64_t sum, int64_t n) {
    return sum < 0 || n < 0 ? -1 : sum + n;
}

/* Of the constant that is input k. */
static int64_t count_nonzero(const struct walk *w, const struct node *n, int k) {
    int64_t count = nonzero_count(w->g, n->in[k]);

    if (count >= 0 || k != 1 || !n->weight)
        return count;
    count = weight_count_nonzero(n->weight);
    graph_release_pages(w->g);
    return count;
}

static void describe_layer(struct walk *w, const struct node *n, struct summary_layer *l) {
    for (int k = 0; k < n->n_in; k++) {
        const struct tensor *t = n->in[k] < 0 ? NULL : &w->shapes->value[n->in[k]];
        const struct value *v = t ? &w->g->values[n->in[k]] : NULL;
        const struct dtype_info *info = t ? dtype_info(t->dtype) : NULL;
        int64_t count;

        if (!t || w->is_counted[n->in[k]] || !(v->init || (v->producer >= 0 && w->is_constant[v->producer])))
            continue;
        w->is_counted[n->in[k]] = true;
        /* one number (a scale, a bound) is not a parameter; a list is */
        if (info && info->is_float && t->shape.rank > 0 && shape_count(&t->shape, &count)) {
            l->params += count;
            l->nonzero = add_nonzero(l->nonzero, count_nonzero(w, n, k));
        }
        l->bytes += stored_bytes(w, n->in[k]);
    }
    l->id = n->id;
    l->op_type = n->op_type;
    l->macs = cost_of(w, n);
    l->form = n->weight ? weight_form_name(n->weight) : NULL;
    if (n->out[0] >= 0)
        l->shape = w->shapes->value[n->out[0]].shape;
}

static int describe_layers(struct summary *s, const struct shapes *shapes, struct error *err) {
    const struct graph *g = s->graph;
    _cleanup_(freep) bool *is_constant = calloc(g->n_nodes + 1, sizeof(*is_constant));
    _cleanup_(freep) bool *is_counted = calloc(g->n_values + 1, sizeof(*is_counted));
    _cleanup_(freep) int *stack = calloc(g->n_values + 1, sizeof(*stack));
    struct walk w = {g, shapes, is_constant, is_counted, stack};

    s->layers = calloc(g->n_nodes + 1, sizeof(*s->layers));
    if (!s->layers || !is_constant || !is_counted || !stack)
        return error_oom(err);
    mark_constants(&w);
    for (size_t i = 0; i < g->n_nodes; i++) {
        struct summary_layer *l = &s->layers[s->n_layers];

        if (w.is_constant[i])
            continue;
        describe_layer(&w, &g->nodes[i], l);
        s->n_layers++;
        s->parameters += l->params;
        s->bytes += l->bytes;
        s->nonzero = add_nonzero(s->nonzero, l->nonzero);
        if (__builtin_add_overflow(s->macs, l->macs, &s->macs))
            return error_code(err, -EBADMSG, "invalid_model",
                "node '%.100s': the network has more operations "
                "than can be counted",
                l->id);
    }
    return 0;
}

int summary_new(const struct graph *g, struct summary **ret, struct error *err) {
    _cleanup_(summary_freep) struct summary *s = calloc(1, sizeof(*s));
    _cleanup_(shapes_done) struct shapes shapes = {0};
    int r;

    if (!s)
        return error_oom(err);
    r = graph_clone(g, &s->graph, err);
    if (r == 0)
        r = pass_widen(s->graph, err);
    if (r == 0)
        r = pass_remove_identities(s->graph, err);
    if (r == 0)
        r = pass_fold_constants(s->graph, err);
    if (r == 0)
        r = pass_match_weights(s->graph, err);
    if (r < 0)
        return r;
    s->n_inputs = s->graph->n_inputs;
    s->sample = calloc(s->n_inputs + 1, sizeof(*s->sample));
    if (!s->sample)
        return error_oom(err);
    s->opset = g->opset;
    s->ir_version = g->ir_version;
    s->producer = s->graph->producer;
    r = find_sample(s->graph, s, &shapes, err);
    if (r == 0)
        r = describe_values(s, &shapes, err);
    if (r == 0)
        r = count_ops(s, g, err);
    if (r == 0)
        r = describe_layers(s, &shapes, err);
    if (r < 0)
        return r;
    *ret = TAKE(s);
    return 0;
}
