/* Quantised values: a pair of QuantizeLinear and DequantizeLinear is what clip_quantize does. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "compress/trainable_priv.h"

#define MAX_READERS 64

static bool is_op(const struct node *n, const char *op_type) {
    return !n->domain[0] && strcmp(n->op_type, op_type) == 0;
}

/* One number for all: of a scale or a zero point, constant. */
static const struct tensor *single(const struct graph *g, const struct node *n, int k) {
    const struct tensor *t = n->n_in > k && n->in[k] >= 0 ? g->values[n->in[k]].init : NULL;
    int64_t count;

    return t && shape_count(&t->shape, &count) && count == 1 ? t : NULL;
}

static bool read_pair(const struct graph *g, const struct node *q, struct activation_clip_quantize *ret) {
    const struct tensor *scale = single(g, q, 1), *zero = single(g, q, 2);

    if (!scale || scale->dtype != DT_F32 || (q->n_in > 2 && q->in[2] >= 0 && !zero) ||
        (zero && zero->dtype != DT_U8 && zero->dtype != DT_S8))
        return false;
    memcpy(&ret->scale, scale->data, sizeof(ret->scale));
    ret->low = zero && zero->dtype == DT_S8 ? -128 : 0;
    ret->high = ret->low + 255;
    ret->zero = !zero ? 0 : zero->dtype == DT_S8 ? *(const int8_t *)zero->data : *(const uint8_t *)zero->data;
    return true;
}

/* A pair on a value. */
struct pair {
    struct activation_clip_quantize param;
    const char *scale; /* name of its initialiser */
};

static int note(
    struct trainable *t, const char *value, const char *consumer, const struct pair *p, struct error *err) {
    struct trainable_value *more = realloc(t->value, (t->n_values + 1) * sizeof(*more)), *v;

    if (!more)
        return error_oom(err);
    t->value = more;
    v = &t->value[t->n_values++];
    *v = (struct trainable_value){.name = strdup(value),
        .consumer = consumer ? strdup(consumer) : NULL,
        .scale = strdup(p->scale),
        .param = p->param};
    return v->name && v->scale && (!consumer || v->consumer) ? 0 : error_oom(err);
}

/* The readers of value `v` read `x` from now on; with `alone`, they are all that do. */
static int take_readers(
    struct trainable *t, int v, int x, bool alone, const struct pair *p, struct error *err) {
    struct graph *g = t->graph;
    int reader[MAX_READERS], r = 0;
    size_t n = graph_consumers(g, v, reader, MAX_READERS);

    if (n > MAX_READERS)
        return error_set(err, -EOPNOTSUPP, "value '%s' has too many readers", g->values[v].name);
    for (size_t i = 0; r == 0 && !alone && i < n; i++)
        r = note(t, g->values[x].name, g->nodes[reader[i]].id, p, err);
    graph_replace_value(g, v, x);
    return r;
}

/* All readers of a QuantizeLinear must be DequantizeLinear. */
static int take_pair(struct trainable *t, int node, struct error *err) {
    struct graph *g = t->graph;
    const struct node *q = &g->nodes[node];
    struct pair p;
    int pair[MAX_READERS], x = q->in[0], other[2], r = 0;
    size_t n = graph_consumers(g, q->out[0], pair, MAX_READERS);
    bool alone = graph_consumers(g, x, other, 2) == 1 && !g->values[x].is_output;

    for (size_t i = 0; i < n && i < MAX_READERS; i++)
        if (!is_op(&g->nodes[pair[i]], "DequantizeLinear") || g->values[g->nodes[pair[i]].out[0]].is_output)
            n = MAX_READERS + 1;
    if (n > MAX_READERS || !read_pair(g, q, &p.param))
        return error_code(err, -EBADMSG, "method_not_applicable",
            "node '%s': a quantised value like this one cannot be trained through", q->id);
    p.scale = g->values[q->in[1]].name;
    if (alone)
        r = note(t, g->values[x].name, NULL, &p, err);
    for (size_t i = 0; r == 0 && i < n; i++)
        r = take_readers(t, g->nodes[pair[i]].out[0], x, alone, &p, err);
    return r;
}

/* A bias in 32 bits becomes a float one, by the same name. */
static int take_bias(struct graph *g, int node, struct error *err) {
    const struct node *n = &g->nodes[node];
    const struct tensor *q = g->values[n->in[0]].init, *scale = g->values[n->in[1]].init;
    struct tensor f = {.dtype = DT_F32, .shape = q->shape};
    int64_t count, n_scale;
    float *bias;

    if (q->dtype != DT_S32 || !scale || scale->dtype != DT_F32 || !shape_count(&q->shape, &count) ||
        !shape_count(&scale->shape, &n_scale) || (n_scale != 1 && n_scale != count))
        return 0; /* refused with the other operators on codes */
    bias = graph_alloc(g, (size_t)count * sizeof(*bias) + 1);
    if (!bias)
        return error_oom(err);
    for (int64_t i = 0; i < count; i++) {
        int32_t v;
        float s;

        memcpy(&v, (const char *)q->data + (size_t)i * sizeof(v), sizeof(v));
        memcpy(&s, (const char *)scale->data + (size_t)(n_scale == 1 ? 0 : i) * sizeof(s), sizeof(s));
        bias[i] = (float)v * s;
    }
    f.data = bias;
    g->values[n->out[0]].producer = -1;
    if (graph_set_init(g, n->out[0], &f) < 0)
        return error_oom(err);
    return 0;
}

/* A scale is learned where it is one value's alone, for all of its readers, and with codes around zero that
 * the transform knows (Esser 2020). */
static void choose_learned(struct trainable *t) {
    for (size_t i = 0; i < t->n_values; i++) {
        struct trainable_value *v = &t->value[i];
        int n = 0;

        for (size_t k = 0; k < t->n_values; k++)
            n += strcmp(t->value[k].scale, v->scale) == 0;
        v->lsq = (struct activation_lsq){.scale = v->param.scale,
            .low = v->param.low - v->param.zero,
            .high = v->param.high - v->param.zero};
        v->learns = t->learns_scales && n == 1 && !v->consumer && v->lsq.low >= -128 && v->lsq.high >= 1;
    }
}

int trainable_values_take(struct trainable *t, struct error *err) {
    struct graph *g = t->graph;

    for (size_t i = 0; i < g->n_nodes; i++) {
        const struct node *n = &g->nodes[i];
        int r;

        if (is_op(n, "DequantizeLinear") && g->values[n->in[0]].init)
            r = take_bias(g, (int)i, err);
        else if (is_op(n, "QuantizeLinear") && !g->values[n->in[0]].init)
            r = take_pair(t, (int)i, err);
        else
            continue;
        if (r < 0)
            return r;
    }
    choose_learned(t);
    return graph_drop_unused(g) < 0 ? error_oom(err) : graph_finish(g, err);
}
