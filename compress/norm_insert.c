#include "compress/norm_insert.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "compress/channel_stats.h"
#include "compress/probe.h"

#define EPSILON     1e-5
#define DUE_FROM    10 /* convolutions */
#define MAX_READERS 16

/* ---- where ---- */

static bool is_op(const struct node *n, const char *op_type) {
    return !n->domain[0] && strcmp(n->op_type, op_type) == 0;
}

bool norm_insert_is_due(const struct graph *g) {
    int n = 0;

    for (size_t i = 0; i < g->n_nodes; i++) {
        if (is_op(&g->nodes[i], "BatchNormalization"))
            return false;
        n += is_op(&g->nodes[i], "Conv");
    }
    return n >= DUE_FROM;
}

static const struct tensor *floats_of(const struct graph *g, const struct node *n, int k) {
    const struct tensor *t = n->n_in > k && n->in[k] >= 0 ? g->values[n->in[k]].init : NULL;

    return t && t->dtype == DT_F32 ? t : NULL;
}

static bool is_frozen(const struct frozen *f, int value) {
    for (size_t i = 0; f && i < f->n; i++)
        if (f->value[i] == value)
            return true;
    return false;
}

static bool has_norm(const struct graph *g, int value) {
    int reader[MAX_READERS];
    size_t n = graph_consumers(g, value, reader, MAX_READERS);

    for (size_t i = 0; i < n && i < MAX_READERS; i++)
        if (is_op(&g->nodes[reader[i]], "BatchNormalization"))
            return true;
    return false;
}

static bool takes_norm(const struct graph *g, const struct node *n, const struct frozen *frozen) {
    bool has_bias = n->n_in > 2 && n->in[2] >= 0;

    return is_op(n, "Conv") && n->n_out == 1 && n->out[0] >= 0 && floats_of(g, n, 1) &&
           (!has_bias || floats_of(g, n, 2)) && !g->values[n->out[0]].is_output &&
           !is_frozen(frozen, n->in[1]) && !has_norm(g, n->out[0]);
}

/* ---- what ---- */

struct place {
    int value; /* what the convolution gives */
    struct channel_stats stats;
};

struct places {
    struct place *place;
    size_t n;
    struct error *err;
};

static void places_done(struct places *p) {
    for (size_t i = 0; i < p->n; i++)
        channel_stats_done(&p->place[i].stats);
    free(p->place);
}

static int find_places(
    const struct graph *g, const struct frozen *frozen, struct places *ret, struct error *err) {
    ret->place = calloc(g->n_nodes + 1, sizeof(*ret->place));
    if (!ret->place)
        return error_oom(err);
    for (size_t i = 0; i < g->n_nodes; i++)
        if (takes_norm(g, &g->nodes[i], frozen))
            ret->place[ret->n++].value = g->nodes[i].out[0];
    return 0;
}

static void on_value(void *ctx, size_t k, const struct tensor *x) {
    struct places *p = ctx;

    channel_stats_add(&p->place[k].stats, x, p->err);
}

static int measure(const struct graph *g, struct places *p, const struct samples *s,
    const struct progress *progress, struct error *err) {
    _cleanup_(freep) int *values = calloc(p->n + 1, sizeof(*values));
    struct progress quiet = {0}; /* the fraction is that of the training */
    struct error e = {0};
    int r;

    if (!values)
        return error_oom(err);
    if (progress)
        quiet = (struct progress){.ctx = progress->ctx, .is_cancelled = progress->is_cancelled};
    for (size_t i = 0; i < p->n; i++)
        values[i] = p->place[i].value;
    p->err = &e;
    r = probe_run(g, values, p->n, s, &quiet, on_value, p, err);
    return r < 0 ? r : e.err ? error_copy(err, &e) : 0;
}

/* ---- putting them in ---- */

static int add_vector(struct graph *g, const char *base, const char *what, const float *data, int64_t n) {
    struct tensor t = {.dtype = DT_F32, .shape = {.rank = 1, .dim = {n}}, .data = (void *)(uintptr_t)data};
    char text[512];
    const char *name;

    snprintf(text, sizeof(text), "%.400s/%s", base, what);
    name = graph_unique_name(g, text);
    return name ? graph_add_init(g, name, &t, /* data_lives= */ false) : -ENOMEM;
}

/* gamma, beta, mean, variance of one, in the order of the operator's inputs. */
static int add_numbers(struct graph *g, const char *base, const struct place *p, int64_t n, int *in) {
    static const char *const names[] = {"gamma", "beta", "mean", "variance"};
    _cleanup_(freep) float *all = calloc((size_t)n * 4 + 1, sizeof(*all));

    if (!all)
        return -ENOMEM;
    for (int64_t c = 0; c < n; c++) {
        double mean = p->stats.n ? channel_mean(&p->stats, c) : 0,
               deviation = p->stats.n ? channel_deviation(&p->stats, c) : 1;
        float variance = (float)(deviation * deviation);

        all[c] = (float)sqrt((double)variance + EPSILON);
        all[n + c] = all[2 * n + c] = (float)mean;
        all[3 * n + c] = variance;
    }
    for (int k = 0; k < 4; k++) {
        in[k] = add_vector(g, base, names[k], all + k * n, n);
        if (in[k] < 0)
            return in[k];
    }
    return 0;
}

/* The convolution gives a new value, the batch norm the old one: whoever read it reads it still. */
static int put_behind(struct graph *g, const struct place *p, struct norm_insert *ret) {
    int conv = g->values[p->value].producer, in[5], node, *links, r;
    int64_t channels = g->values[g->nodes[conv].in[1]].init->shape.dim[0];
    const char *id = g->nodes[conv].id, *name;
    char text[512];

    snprintf(text, sizeof(text), "%.400s/norm", id);
    name = graph_unique_name(g, text);
    in[0] = name ? graph_add_value(g, name, DT_F32, NULL) : -ENOMEM;
    links = graph_alloc(g, sizeof(*links));
    if (in[0] < 0 || !links)
        return -ENOMEM;
    r = add_numbers(g, name, p, channels, in + 1);
    if (r < 0)
        return r;
    node = graph_insert_node(g, (size_t)conv + 1, "BatchNormalization", name, in, 5, &p->value, 1);
    if (node < 0 || graph_set_attr_float(g, &g->nodes[node], "epsilon", (float)EPSILON) < 0)
        return -ENOMEM;
    *links = in[0];
    g->nodes[conv].out = links;
    g->values[in[0]].producer = conv;
    g->nodes[node].id = name;
    ret->node[ret->n] = strdup(name);
    return ret->node[ret->n] ? (int)ret->n++ : -ENOMEM;
}

int norm_insert(struct graph *g, const struct samples *s, const struct frozen *frozen,
    const struct progress *p, struct norm_insert *ret, struct error *err) {
    _cleanup_(places_done) struct places places = {0};
    int r = find_places(g, frozen, &places, err);

    *ret = (struct norm_insert){0};
    if (r < 0 || places.n == 0)
        return r;
    if (s)
        r = measure(g, &places, s, p, err);
    ret->node = calloc(places.n + 1, sizeof(*ret->node));
    if (r == 0 && !ret->node)
        r = error_oom(err);
    if (r == 0)
        r = graph_clone(g, &ret->before, err);
    for (size_t i = places.n; r == 0 && i > 0; i--)
        if (put_behind(g, &places.place[i - 1], ret) < 0)
            r = error_oom(err);
    if (r == 0)
        r = graph_finish(g, err);
    if (r < 0) {
        norm_insert_undo(ret, g);
        norm_insert_done(ret);
    }
    return r;
}

/* ---- taking them out ---- */

static size_t count_readers(const struct graph *g, int value) {
    return graph_consumers(g, value, NULL, 0);
}

/* The tensor in place of the initialiser `value`, or beside it where others read that too. */
static int replace_init(struct graph *g, int value, const struct tensor *t) {
    const char *name;

    if (count_readers(g, value) == 1)
        return graph_set_init(g, value, t) < 0 ? -ENOMEM : value;
    name = graph_unique_name(g, g->values[value].name);
    return name ? graph_add_init(g, name, t, /* data_lives= */ true) : -ENOMEM;
}

/* W'[c][…] = a[c] W[c][…], b'[c] = a[c] b[c] + shift[c]: rounded once. */
static int fold_into(struct graph *g, int conv, const double *a, const double *shift) {
    struct node *n = &g->nodes[conv];
    struct tensor w = *floats_of(g, n, 1),
                  b = {.dtype = DT_F32, .shape = {.rank = 1, .dim = {w.shape.dim[0]}}};
    const struct tensor *old = floats_of(g, n, 2);
    int64_t count = 0, channels = w.shape.dim[0];
    const char *from = w.data, *from_b = old ? old->data : NULL;
    float *to, *to_b, v;
    char base[512];
    int *links, r;

    (void)shape_count(&w.shape, &count);
    w.data = to = graph_alloc(g, (size_t)count * sizeof(*to));
    b.data = to_b = graph_alloc(g, (size_t)channels * sizeof(*to_b));
    links = graph_alloc(g, 3 * sizeof(*links));
    if (!to || !to_b || !links)
        return -ENOMEM;
    for (int64_t i = 0; i < count; i++) { /* unaligned in the file */
        memcpy(&v, from + (size_t)i * sizeof(v), sizeof(v));
        to[i] = (float)(a[i / (count / channels)] * (double)v);
    }
    for (int64_t c = 0; c < channels; c++) {
        v = 0;
        if (from_b)
            memcpy(&v, from_b + (size_t)c * sizeof(v), sizeof(v));
        to_b[c] = (float)(a[c] * (double)v + shift[c]);
    }
    snprintf(base, sizeof(base), "%.400s/bias", n->id);
    links[0] = n->in[0];
    links[1] = replace_init(g, n->in[1], &w);
    links[2] = old ? replace_init(g, n->in[2], &b) : -1;
    if (!old) {
        const char *name = graph_unique_name(g, base);

        links[2] = name ? graph_add_init(g, name, &b, /* data_lives= */ true) : -ENOMEM;
    }
    r = links[1] < 0 ? links[1] : links[2];
    g->nodes[conv].in = links;
    g->nodes[conv].n_in = 3;
    return r < 0 ? r : 0;
}

static int fold_one(struct graph *g, const char *id) {
    int norm = graph_find_node(g, id), conv, out;
    const float *gamma, *beta, *mean, *variance;
    _cleanup_(freep) double *a = NULL;
    int64_t n;

    if (norm < 0)
        return -ENOENT;
    conv = g->values[g->nodes[norm].in[0]].producer;
    out = g->nodes[norm].out[0];
    gamma = floats_of(g, &g->nodes[norm], 1)->data;
    beta = floats_of(g, &g->nodes[norm], 2)->data;
    mean = floats_of(g, &g->nodes[norm], 3)->data;
    variance = floats_of(g, &g->nodes[norm], 4)->data;
    n = g->values[g->nodes[norm].in[1]].init->shape.dim[0];
    a = calloc((size_t)n * 2 + 1, sizeof(*a));
    if (!a)
        return -ENOMEM;
    for (int64_t c = 0; c < n; c++) {
        a[c] = (double)gamma[c] / sqrt((double)variance[c] + EPSILON);
        a[n + c] = (double)beta[c] - (double)mean[c] * a[c];
    }
    if (fold_into(g, conv, a, a + n) < 0)
        return -ENOMEM;
    g->nodes[conv].out[0] = out;
    graph_remove_node(g, (size_t)norm);
    g->values[out].producer = conv;
    return 0;
}

int norm_insert_fold(struct norm_insert *n, struct graph *g, struct error *err) {
    if (!n->before)
        return 0;
    for (size_t i = 0; i < n->n; i++)
        if (fold_one(g, n->node[i]) < 0)
            return error_oom(err);
    return graph_drop_unused(g) < 0 ? error_oom(err) : graph_finish(g, err);
}

void norm_insert_undo(struct norm_insert *n, struct graph *g) {
    struct graph changed = *g;

    if (!n->before)
        return;
    *g = *n->before;
    *n->before = changed; /* freed by norm_insert_done() */
}

void norm_insert_done(struct norm_insert *n) {
    n->before = graph_free(n->before);
    for (size_t i = 0; n->node && i < n->n; i++)
        free(n->node[i]);
    free(n->node);
    *n = (struct norm_insert){0};
}
