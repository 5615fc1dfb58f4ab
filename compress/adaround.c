#include "compress/adaround.h"

#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "compress/affine.h"
#include "compress/layer_rows.h"
#include "compress/linalg.h"

#define MAX_INPUTS     8192 /* of an output; beyond it the moments take more than 256 MiB */
#define MIN_ROWS       4096
#define MAX_ROWS       32768
#define ROWS_FLOATS    (64 << 20)
#define MAX_SAMPLES    1024
#define MIN_ITERATIONS 100
#define MAX_ITERATIONS 1000
#define ALL_PRODUCTS   2e11 /* of a layer's iterations */

/* One layer at work. */
struct rounding {
    const struct quantized_weights *q;
    struct weight_rows rows;
    const float *w; /* the parent's */
    const struct layer_rows *seen;
    int64_t group, k; /* groups, inputs of one output */
    bool is_centred;
    double *mean_x, *mean_y, *bias; /* [seen->k], [channels]; `bias`: what the layer adds now */
    double before, after, variance; /* of all groups */
};

static void rounding_done(struct rounding *r) {
    free(r->mean_x);
    free(r->mean_y);
    free(r->bias);
}

/* Place in the tensor of input i of output channel `row`. */
static int64_t place(const struct rounding *r, int64_t row, int64_t i) {
    return r->rows.axis == 0 ? row * r->rows.inner + i : i * r->rows.rows + row;
}

static float weight_at(const struct rounding *r, int64_t at) {
    float v;

    memcpy(&v, (const char *)r->w + (size_t)at * sizeof(v), sizeof(v));
    return v;
}

static int find_means(struct rounding *r, struct error *err) {
    const struct layer_rows *s = r->seen;

    r->mean_x = calloc((size_t)s->k + 1, sizeof(*r->mean_x));
    r->mean_y = calloc((size_t)s->channels + 1, sizeof(*r->mean_y));
    r->bias = calloc((size_t)s->channels + 1, sizeof(*r->bias));
    if (!r->mean_x || !r->mean_y || !r->bias)
        return error_oom(err);
    for (int64_t n = 0; n < s->n; n++) {
        for (int64_t i = 0; i < s->k; i++)
            r->mean_x[i] += (double)s->x[n * s->k + i] / (double)s->n;
        for (int64_t c = 0; c < s->channels; c++) {
            r->mean_y[c] += (double)s->y[n * s->channels + c] / (double)s->n;
            r->bias[c] += (double)s->now[n * s->channels + c] / (double)s->n;
        }
    }
    for (int64_t c = 0; c < s->channels; c++) {
        int64_t first = c / (s->channels / r->group) * r->k;

        for (int64_t i = 0; i < r->k; i++) {
            int64_t at = place(r, c, i);

            r->bias[c] -= (double)(r->q->scale[quantized_scale_of(r->q, &r->rows, at)] * (float)r->q->q[at]) *
                          r->mean_x[first + i];
        }
    }
    return 0;
}

/* Inputs and outputs of group `index`, less their means; outputs always less the bias. */
static void take_group(const struct rounding *r, int64_t index, int64_t rows, float *x, float *y) {
    const struct layer_rows *s = r->seen;

    for (int64_t n = 0; n < s->n; n++) {
        for (int64_t i = 0; i < r->k; i++)
            x[n * r->k + i] =
                s->x[n * s->k + index * r->k + i] - (r->is_centred ? (float)r->mean_x[index * r->k + i] : 0);
        for (int64_t c = 0; c < rows; c++)
            y[n * rows + c] =
                s->y[n * s->channels + index * rows + c] -
                (float)(r->is_centred ? r->mean_y[index * rows + c] : r->bias[index * rows + c]);
    }
}

static int iterations_of(const struct rounding *r) {
    double n = ALL_PRODUCTS / ((double)r->seen->channels * (double)r->k * (double)r->k);

    return n > MAX_ITERATIONS ? MAX_ITERATIONS : n < MIN_ITERATIONS ? MIN_ITERATIONS : (int)n;
}

static int round_group(struct rounding *r, int64_t index, struct error *err) {
    int64_t rows = r->seen->channels / r->group, k = r->k, n = r->seen->n;
    _cleanup_(freep) float *x = malloc((size_t)(n * k) * sizeof(*x)),
                           *y = malloc((size_t)(n * rows) * sizeof(*y));
    _cleanup_(freep) float *g = calloc((size_t)(k * k), sizeof(*g)),
                           *c = calloc((size_t)(rows * k), sizeof(*c));
    _cleanup_(freep) float *w = malloc((size_t)(rows * k) * sizeof(*w)),
                           *s = malloc((size_t)(rows * k) * sizeof(*s));
    _cleanup_(freep) int8_t *q = malloc((size_t)(rows * k));
    struct adaround_problem p = {.rows = rows,
        .k = k,
        .least = quantized_least(r->q->bits),
        .most = quantized_most(r->q->bits),
        .w = w,
        .s = s,
        .g = g,
        .c = c,
        .iterations = iterations_of(r)};
    double before, after;
    int e;

    if (!x || !y || !g || !c || !w || !s || !q)
        return error_oom(err);
    take_group(r, index, rows, x, y);
    linalg_multiply_floats(k, k, n, 1 / (float)n, x, true, x, false, 0, g);
    linalg_multiply_floats(rows, k, n, 1 / (float)n, y, true, x, false, 0, c);
    for (int64_t i = 0; i < rows * k; i++) {
        int64_t at = place(r, index * rows + i / k, i % k);

        w[i] = weight_at(r, at);
        s[i] = r->q->scale[quantized_scale_of(r->q, &r->rows, at)];
        q[i] = r->q->q[at];
    }
    e = adaround_solve(&p, q, &before, &after, err);
    if (e < 0)
        return e;
    for (int64_t i = 0; i < rows * k; i++)
        r->q->q[place(r, index * rows + i / k, i % k)] = q[i];
    for (int64_t i = 0; i < n * rows; i++)
        r->variance += (double)y[i] * (double)y[i] / (double)n;
    r->before += before;
    r->after += after;
    return 0;
}

/* The means of the layer's outputs are the parent's, with the weights that it has now. */
static int restore_means(struct graph *g, int node, const struct rounding *r, struct error *err) {
    const struct layer_rows *s = r->seen;
    _cleanup_(freep) float *mul = malloc((size_t)s->channels * sizeof(*mul) + 1);
    _cleanup_(freep) float *add = malloc((size_t)s->channels * sizeof(*add) + 1);

    if (!mul || !add)
        return error_oom(err);
    for (int64_t c = 0; c < s->channels; c++) {
        double mean = r->bias[c];

        for (int64_t i = 0; i < r->k; i++) {
            int64_t at = place(r, c, i);

            mean += (double)(r->q->scale[quantized_scale_of(r->q, &r->rows, at)] * (float)r->q->q[at]) *
                    r->mean_x[c / (s->channels / r->group) * r->k + i];
        }
        mul[c] = 1;
        add[c] = (float)(r->mean_y[c] - mean);
    }
    return affine_can_fold(g, node) ? affine_fold(g, node, mul, add, s->channels, err) : 0;
}

static int round_layer(struct work *work, int node, struct rounding *r, struct error *err) {
    struct graph *g = work->graph;
    const char *id = g->nodes[node].id; /* finishing the graph sorts its nodes */
    int e = find_means(r, err), value;

    for (int64_t i = 0; e == 0 && i < r->group; i++)
        e = round_group(r, i, err);
    if (e < 0)
        return e;
    value = quantize_codes_emit(g, id, &r->rows, r->q, err);
    if (value < 0)
        return value;
    g->nodes[node].in[1] = value;
    e = graph_finish(g, err);
    return e == 0 && r->is_centred ? restore_means(g, graph_find_node(g, id), r, err) : e;
}

/* So many rows that moments are known well, and no more than memory is for. */
static int64_t rows_wanted(int64_t k) {
    int64_t n = 8 * k;

    n = n < MIN_ROWS ? MIN_ROWS : n > MAX_ROWS ? MAX_ROWS : n;
    return n * k > ROWS_FLOATS ? ROWS_FLOATS / k : n;
}

static const char *misfit(const struct graph *g, const struct node *n, const struct weight_rows *rows) {
    if (strcmp(n->op_type, "Conv") != 0 && strcmp(n->op_type, "Gemm") != 0 &&
        strcmp(n->op_type, "MatMul") != 0)
        return "its operator is neither a convolution nor a matrix product";
    if (node_attr_int(n, "transA", 0) || node_attr_float(n, "alpha", 1) != 1 ||
        node_attr_float(n, "beta", 1) != 1)
        return "its matrix product is scaled or turned";
    if (rows->outer * rows->inner > MAX_INPUTS)
        return "too many inputs an output";
    return g->values[n->in[1]].init && rows->axis <= 1 ? NULL : "its weights are no constant matrix";
}

static int layer(struct work *work, const struct adaround *a, size_t index, json_t *row, struct error *err) {
    const struct layer_entry *e = &a->layers->entry[index];
    int node = graph_find_node(work->graph, e->id), parent = graph_find_node(a->parent, e->id), r;
    _cleanup_(rounding_done) struct rounding s = {.q = &a->weights[index], .is_centred = a->is_centred};
    _cleanup_(layer_rows_done) struct layer_rows seen = {0};
    const struct node *n = parent >= 0 ? &a->parent->nodes[parent] : NULL;
    struct samples some = *work->samples;
    const char *reason;

    if (!n || node < 0)
        return 0;
    r = weight_rows_of(a->parent, n, &s.rows, err);
    if (r < 0)
        return r;
    s.group = node_attr_int(n, "group", 1);
    s.k = s.rows.outer * s.rows.inner;
    reason = misfit(a->parent, n, &s.rows);
    some.n = some.n > MAX_SAMPLES ? MAX_SAMPLES : some.n;
    if (!reason) {
        r = layer_rows_read(work->graph, node, &s.rows.shape, a->parent, n->out[0], &some,
            rows_wanted(s.k * s.group), &seen, err);
        if (r == 0 && seen.n == 0)
            reason = "its outputs are not one a sample";
    }
    s.seen = &seen;
    s.w = a->parent->values[n->in[1]].init->data;
    if (r == 0 && !reason)
        r = round_layer(work, node, &s, err);
    json_object_set_new(row, "id", json_string(e->id));
    if (reason)
        json_object_set_new(row, "reason", json_string(reason));
    else if (s.variance > 0) {
        json_object_set_new(row, "error_nearest", json_real((s.before + s.variance) / s.variance));
        json_object_set_new(row, "error", json_real((s.after + s.variance) / s.variance));
    }
    return r;
}

int adaround(struct work *work, const struct adaround *a, json_t *report, struct error *err) {
    json_t *list = json_array();
    int r = 0;

    json_object_set_new(report, "adaround", list);
    for (size_t i = 0; r == 0 && i < a->layers->n; i++) {
        if (!a->layers->entry[i].is_selected || !a->weights[i].q)
            continue;
        r = progress_at(work->progress, (double)i / (double)a->layers->n, "rounding up or down", err);
        if (r == 0) {
            json_t *row = json_object();

            json_array_append_new(list, row);
            r = layer(work, a, i, row, err);
        }
    }
    return r < 0 ? r : graph_finish(work->graph, err);
}
