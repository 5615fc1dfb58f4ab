#include "compress/equalize.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "compress/probe.h"
#include "engine/ops.h"

#define ROUNDS  20
#define SETTLED 0.01 /* factors nearer to 1 than that move nothing */

struct pair {
    int first, second; /* nodes */
    int64_t channels;
    int64_t repeat; /* inputs of `second` a channel has: pixels that a Flatten made inputs */
};

struct equalizer {
    struct graph *g;
    size_t n;
    struct pair *pair;
    float **w, **b; /* [node]: copies that change; NULL: not of a pair */
};

static void equalizer_done(struct equalizer *e) {
    for (size_t i = 0; e->w && e->b && i < e->g->n_nodes; i++) {
        free(e->w[i]);
        free(e->b[i]);
    }
    free(e->w);
    free(e->b);
    free(e->pair);
}

static const struct tensor *init_of(const struct graph *g, const struct node *n, int input) {
    return n->n_in > input && n->in[input] >= 0 ? g->values[n->in[input]].init : NULL;
}

static bool is_conv(const struct node *n) {
    return !strcmp(n->op_type, "Conv");
}

static bool is_plain_gemm(const struct node *n) {
    return !strcmp(n->op_type, "Gemm") && !node_attr_int(n, "transA", 0) &&
           node_attr_float(n, "alpha", 1) == 1 && node_attr_float(n, "beta", 1) == 1;
}

/* A float layer that reads its input by channels: a convolution of one group or depthwise, or a Gemm. */
static bool is_layer(const struct graph *g, const struct node *n) {
    const struct tensor *w = init_of(g, n, 1), *b = init_of(g, n, 2);
    int64_t group = node_attr_int(n, "group", 1), count = 0;

    if (!(is_conv(n) || is_plain_gemm(n)) || !w || w->dtype != DT_F32 || w->shape.rank < 2)
        return false;
    if (n->n_in > 2 && n->in[2] >= 0 && (!b || b->dtype != DT_F32 || b->shape.rank != 1))
        return false;
    return shape_count(&w->shape, &count) && count > 0 &&
           (!is_conv(n) || group == 1 || (w->shape.dim[1] == 1 && group == w->shape.dim[0]));
}

static int64_t outputs_of(const struct graph *g, const struct node *n) {
    const struct shape *s = &init_of(g, n, 1)->shape;

    return is_conv(n) || node_attr_int(n, "transB", 0) ? s->dim[0] : s->dim[1];
}

static int64_t inputs_of(const struct graph *g, const struct node *n) {
    const struct shape *s = &init_of(g, n, 1)->shape;

    if (is_conv(n))
        return node_attr_int(n, "group", 1) > 1 ? s->dim[0] : s->dim[1];
    return s->dim[node_attr_int(n, "transB", 0) ? 1 : 0];
}

/* Output and input channel of element `at` of the weights. A Gemm's input channels are numbered as they are.
 */
static void channels_of(
    const struct graph *g, const struct node *n, int64_t at, int64_t *ret_out, int64_t *ret_in) {
    const struct shape *s = &init_of(g, n, 1)->shape;
    int64_t taps = 1;

    if (is_conv(n)) {
        for (int i = 2; i < s->rank; i++)
            taps *= s->dim[i];
        *ret_out = at / taps / s->dim[1];
        *ret_in = node_attr_int(n, "group", 1) > 1 ? *ret_out : at / taps % s->dim[1];
        return;
    }
    *ret_out = node_attr_int(n, "transB", 0) ? at / s->dim[1] : at % s->dim[1];
    *ret_in = node_attr_int(n, "transB", 0) ? at % s->dim[1] : at / s->dim[1];
}

/* f(s x) = s f(x) for s > 0, channel by channel. */
static bool lets_through(const struct node *n) {
    static const char *const ops[] = {"Relu", "LeakyRelu", "PRelu", "MaxPool", "AveragePool",
        "GlobalAveragePool", "GlobalMaxPool", "Identity", "Dropout"};

    for (size_t i = 0; i < sizeof(ops) / sizeof(ops[0]); i++)
        if (!strcmp(n->op_type, ops[i]))
            return true;
    return !strcmp(n->op_type, "Flatten") && node_attr_int(n, "axis", 1) == 1;
}

/* The layer that alone reads what `first` makes, or -1. */
static int next_layer(const struct graph *g, int first) {
    int v = g->nodes[first].out[0];

    for (;;) {
        const struct node *n;
        int reader;

        if (g->values[v].is_output || graph_consumers(g, v, &reader, 1) != 1)
            return -1;
        n = &g->nodes[reader];
        if (n->in[0] != v)
            return -1;
        if (is_layer(g, n))
            return reader;
        if (!lets_through(n) || n->n_out != 1)
            return -1;
        v = n->out[0];
    }
}

static int copy_floats(const struct tensor *t, float **ret, struct error *err) {
    int64_t n = 0;

    if (*ret || !t)
        return 0;
    shape_count(&t->shape, &n);
    *ret = malloc((size_t)n * sizeof(float) + 1);
    if (!*ret)
        return error_oom(err);
    memcpy(*ret, t->data, (size_t)n * sizeof(float));
    return 0;
}

static int find_pairs(struct equalizer *e, struct error *err) {
    struct graph *g = e->g;
    int r = 0;

    e->pair = calloc(g->n_nodes + 1, sizeof(*e->pair));
    e->w = calloc(g->n_nodes + 1, sizeof(*e->w));
    e->b = calloc(g->n_nodes + 1, sizeof(*e->b));
    if (!e->pair || !e->w || !e->b)
        return error_oom(err);
    for (size_t i = 0; r == 0 && i < g->n_nodes; i++) {
        int second = is_layer(g, &g->nodes[i]) ? next_layer(g, (int)i) : -1;
        int64_t out = second >= 0 ? outputs_of(g, &g->nodes[i]) : 0;
        int64_t in = second >= 0 ? inputs_of(g, &g->nodes[second]) : 0;

        if (out < 1 || in % out || (in != out && is_conv(&g->nodes[second])))
            continue;
        e->pair[e->n++] =
            (struct pair){.first = (int)i, .second = second, .channels = out, .repeat = in / out};
        r = copy_floats(init_of(g, &g->nodes[i], 1), &e->w[i], err);
        if (r == 0)
            r = copy_floats(init_of(g, &g->nodes[i], 2), &e->b[i], err);
        if (r == 0)
            r = copy_floats(init_of(g, &g->nodes[second], 1), &e->w[second], err);
    }
    return r;
}

/* r1: of the first one's output channels; r2: of what the second one multiplies them with. */
static void find_ranges(const struct equalizer *e, const struct pair *p, float *r1, float *r2) {
    const struct node *first = &e->g->nodes[p->first], *second = &e->g->nodes[p->second];
    int64_t n1 = 0, n2 = 0, out, in;

    shape_count(&init_of(e->g, first, 1)->shape, &n1);
    shape_count(&init_of(e->g, second, 1)->shape, &n2);
    memset(r1, 0, (size_t)p->channels * sizeof(*r1));
    memset(r2, 0, (size_t)p->channels * sizeof(*r2));
    for (int64_t i = 0; i < n1; i++) {
        channels_of(e->g, first, i, &out, &in);
        r1[out] = fmaxf(r1[out], fabsf(e->w[p->first][i]));
    }
    for (int64_t i = 0; i < n2; i++) {
        channels_of(e->g, second, i, &out, &in);
        in /= p->repeat;
        r2[in] = fmaxf(r2[in], fabsf(e->w[p->second][i]));
    }
}

static void scale_pair(struct equalizer *e, const struct pair *p, const float *s) {
    const struct node *first = &e->g->nodes[p->first], *second = &e->g->nodes[p->second];
    int64_t n1 = 0, n2 = 0, out, in;

    shape_count(&init_of(e->g, first, 1)->shape, &n1);
    shape_count(&init_of(e->g, second, 1)->shape, &n2);
    for (int64_t i = 0; i < n1; i++) {
        channels_of(e->g, first, i, &out, &in);
        e->w[p->first][i] /= s[out];
    }
    for (int64_t c = 0; e->b[p->first] && c < p->channels; c++)
        e->b[p->first][c] /= s[c];
    for (int64_t i = 0; i < n2; i++) {
        channels_of(e->g, second, i, &out, &in);
        e->w[p->second][i] *= s[in / p->repeat];
    }
}

/* *ret_moved: the largest factor's distance from 1. */
static int equalize_pair(struct equalizer *e, const struct pair *p, double *ret_moved, struct error *err) {
    size_t n = (size_t)p->channels;
    _cleanup_(freep) float *r1 = calloc(n, sizeof(*r1)), *r2 = calloc(n, sizeof(*r2));
    _cleanup_(freep) float *s = calloc(n, sizeof(*s));

    if (!r1 || !r2 || !s)
        return error_oom(err);
    find_ranges(e, p, r1, r2);
    for (size_t i = 0; i < n; i++) {
        float factor = r1[i] > 0 && r2[i] > 0 ? sqrtf(r1[i] * r2[i]) / r2[i] : 1;

        s[i] = isfinite(factor) && factor > 1e-6f && factor < 1e6f ? factor : 1;
        *ret_moved = fmax(*ret_moved, fabs(log((double)s[i])));
    }
    scale_pair(e, p, s);
    return 0;
}

static int put(struct graph *g, int *value, float *data, struct error *err) {
    struct tensor t = *g->values[*value].init;
    const char *name = graph_unique_name(g, g->values[*value].name);
    int v;

    t.data = data;
    v = name ? graph_add_init(g, name, &t, false) : -ENOMEM;
    if (v < 0)
        return error_oom(err);
    *value = v;
    return 0;
}

static int write_back(struct equalizer *e, struct error *err) {
    int r = 0;

    for (size_t i = 0; r == 0 && i < e->g->n_nodes; i++) {
        struct node *n = &e->g->nodes[i];

        if (e->w[i])
            r = put(e->g, &n->in[1], e->w[i], err);
        if (r == 0 && e->b[i])
            r = put(e->g, &n->in[2], e->b[i], err);
    }
    return r < 0 ? r : graph_finish(e->g, err);
}

/* ---- Relu6 ---- */

struct highest {
    float *of; /* [probed] */
};

static void on_value(void *ctx, size_t k, const struct tensor *x) {
    struct highest *h = ctx;
    int64_t n = 0;

    if (x->dtype == DT_F32 && shape_count(&x->shape, &n))
        for (int64_t i = 0; i < n; i++)
            h->of[k] = fmaxf(h->of[k], ((const float *)x->data)[i]);
}

/* Clip from 0 to a constant, or 0: no such node. */
static float upper_end(const struct graph *g, const struct node *n) {
    float low = node_attr_float(n, "min", -1), high = node_attr_float(n, "max", 0);
    const struct tensor *a = init_of(g, n, 1), *b = init_of(g, n, 2);

    if (strcmp(n->op_type, "Clip") != 0)
        return 0;
    if (a && a->dtype == DT_F32)
        memcpy(&low, a->data, sizeof(low));
    if (b && b->dtype == DT_F32)
        memcpy(&high, b->data, sizeof(high));
    return low == 0 ? high : 0;
}

static int make_relu(struct graph *g, size_t node, struct error *err) {
    struct node *n = &g->nodes[node];
    int in = n->in[0], out = n->out[0], added;
    const char *id = graph_unique_name(g, n->id);
    int fresh = id ? graph_add_value(g, id, DT_F32, &g->values[out].shape) : -ENOMEM;

    if (fresh < 0)
        return error_oom(err);
    for (size_t i = 0; i < g->n_nodes; i++)
        for (int k = 0; k < g->nodes[i].n_in; k++)
            if (g->nodes[i].in[k] == out)
                g->nodes[i].in[k] = fresh;
    added = graph_insert_node(g, g->n_nodes, "Relu", id, &in, 1, &fresh, 1);
    return added < 0 ? error_oom(err) : 0;
}

/* A Relu6 that clips nothing on the samples is a Relu. */
static int open_clips(struct graph *g, const struct samples *samples, struct error *err) {
    size_t n_nodes = g->n_nodes, n = 0;
    _cleanup_(freep) int *values = calloc(n_nodes + 1, sizeof(*values));
    _cleanup_(freep) size_t *nodes = calloc(n_nodes + 1, sizeof(*nodes));
    _cleanup_(freep) float *highest = calloc(n_nodes + 1, sizeof(*highest));
    struct highest h = {.of = highest};
    int r;

    if (!values || !nodes || !highest)
        return error_oom(err);
    for (size_t i = 0; i < n_nodes; i++)
        if (upper_end(g, &g->nodes[i]) > 0 && !g->values[g->nodes[i].out[0]].is_output) {
            nodes[n] = i;
            values[n++] = g->nodes[i].in[0];
        }
    if (!n)
        return 0;
    r = probe_run(g, values, n, samples, NULL, on_value, &h, err);
    for (size_t k = 0; r == 0 && k < n; k++)
        if (highest[k] < upper_end(g, &g->nodes[nodes[k]]))
            r = make_relu(g, nodes[k], err);
    if (r == 0 && graph_drop_unused(g) < 0)
        r = error_oom(err);
    return r < 0 ? r : graph_finish(g, err);
}

static void tell(const struct equalizer *e, json_t *report) {
    json_t *list = json_array();

    for (size_t i = 0; i < e->n; i++)
        json_array_append_new(
            list, json_pack("[s, s]", e->g->nodes[e->pair[i].first].id, e->g->nodes[e->pair[i].second].id));
    json_object_set_new(report, "equalized", list);
}

int equalize(struct graph *g, const struct samples *samples, json_t *report, struct error *err) {
    _cleanup_(equalizer_done) struct equalizer e = {.g = g};
    double moved = 1;
    int r = samples ? open_clips(g, samples, err) : 0;

    if (r == 0)
        r = find_pairs(&e, err);
    for (int round = 0; r == 0 && round < ROUNDS && moved > SETTLED; round++) {
        moved = 0;
        for (size_t i = 0; r == 0 && i < e.n; i++)
            r = equalize_pair(&e, &e.pair[i], &moved, err);
    }
    if (r < 0)
        return r;
    tell(&e, report);
    return write_back(&e, err);
}
