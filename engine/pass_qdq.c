/* Recognises QuantizeLinear/DequantizeLinear graphs, ours and other people's, and lets their values travel as
 * bytes:
 *
 *    file    Q ─ DQ ─ Conv ─ Relu ─ Q ─ DQ ─ Add ─ Q ─ DQ ─ GlobalAveragePool ─ Q ─ DQ ─ Gemm ─ logits
 *    here    Q ────── Conv(clamp) ─────────── Add ─────────── GlobalAveragePool ─────── Gemm ── logits
 *
 * The meaning does not change by a bit: a node that reads a quantised value reads scale * (code - zero), the
 * number DequantizeLinear gives; a node that writes one rounds as the QuantizeLinear behind it did. Clamps
 * between a node and its QuantizeLinear become posts or vanish where the type's range does the same; other
 * elementwise functions of one quantised value become tables (pass_qdq_table.c). Q and DQ stay where floats
 * begin and end.
 *
 * Signed activations become unsigned ones (code and zero point + 128): kernels know only those. */
#include "engine/pass_qdq.h"

#include <errno.h>
#include <float.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "engine/ops.h"
#include "engine/pass.h"
#include "engine/weight.h"

#define MAX_OUT 8 /* of a node that runs on codes (Split) */

static bool is_quantize(const struct node *n) {
    return strcmp(n->op_type, "QuantizeLinear") == 0 && !*n->domain;
}

static bool is_dequantize(const struct node *n) {
    return strcmp(n->op_type, "DequantizeLinear") == 0 && !*n->domain;
}

static const struct tensor *constant(const struct graph *g, const struct node *n, int i) {
    const struct tensor *t = i < n->n_in && n->in[i] >= 0 ? g->values[n->in[i]].init : NULL;

    return t && t->data ? t : NULL;
}

static const struct tensor *scalar(const struct graph *g, const struct node *n, int i) {
    const struct tensor *t = constant(g, n, i);
    int64_t count;

    return t && shape_count(&t->shape, &count) && count == 1 ? t : NULL;
}

/* Without a zero point the type is the other side's: uint8 for QuantizeLinear unless it says otherwise. */
static enum dtype implied_type(const struct graph *g, const struct node *n) {
    const struct value *v = &g->values[is_quantize(n) ? n->out[0] : n->in[0]];
    enum dtype t = (enum dtype)node_attr_int(n, "output_dtype", 0);

    if (is_quantize(n))
        return t == DT_NONE ? DT_U8 : t;
    return v->init ? v->init->dtype : v->dtype == DT_NONE ? DT_U8 : v->dtype;
}

bool qdq_read_params(const struct graph *g, const struct node *n, struct quant *ret, enum dtype *ret_type) {
    const struct tensor *scale = scalar(g, n, 1), *zero = scalar(g, n, 2);
    bool has_zero = n->n_in > 2 && n->in[2] >= 0;
    struct quant q = {0};

    if (!scale || scale->dtype != DT_F32 || (has_zero && !zero) || n->in[0] < 0 || n->out[0] < 0)
        return false;
    *ret_type = has_zero ? zero->dtype : implied_type(g, n);
    if (*ret_type != DT_U8 && *ret_type != DT_S8)
        return false;
    memcpy(&q.scale, scale->data, sizeof(q.scale));
    if (zero)
        q.zero = *ret_type == DT_S8 ? *(const int8_t *)zero->data : *(const uint8_t *)zero->data;
    *ret = q;
    return q.scale > 0 && q.scale < INFINITY;
}

static bool same_quant(struct quant a, struct quant b) {
    return a.zero == b.zero && !(a.scale < b.scale) && !(a.scale > b.scale);
}

static int grow(struct qdq *c) {
    size_t n = c->g->n_values;
    int *more = reallocarray(c->code, n + 1, sizeof(*more));

    if (!more)
        return -ENOMEM;
    c->code = more;
    for (; c->n < n; c->n++)
        c->code[c->n] = -1;
    return 0;
}

int qdq_add_value(struct qdq *c, const char *base, enum dtype t, struct quant q) {
    struct shape unknown = {.rank = -1};
    char name[512];
    const char *unique;
    int v;

    snprintf(name, sizeof(name), "%.400s_codes", base);
    unique = graph_unique_name(c->g, name);
    v = unique ? graph_add_value(c->g, unique, t, &unknown) : -ENOMEM;
    if (v < 0 || grow(c) < 0)
        return v < 0 ? v : -ENOMEM;
    c->g->values[v].quant = q;
    return v;
}

/* ---- signed to unsigned ---- */

/* All readers of q are DequantizeLinear, as q's writer says it. */
static bool can_shift(const struct graph *g, int q, struct quant want) {
    for (size_t i = 0; i < g->n_nodes; i++) {
        const struct node *n = &g->nodes[i];
        struct quant have;
        enum dtype t;

        for (int k = 0; k < n->n_in; k++)
            if (n->in[k] == q && (k > 0 || !is_dequantize(n) || !qdq_read_params(g, n, &have, &t) ||
                                     t != DT_S8 || !same_quant(have, want)))
                return false;
    }
    return !g->values[q].is_output;
}

static int set_zero(struct graph *g, struct node *n, int zero) {
    int *in;

    if (n->n_in > 2) {
        n->in[2] = zero;
        return 0;
    }
    in = graph_alloc(g, 3 * sizeof(*in));
    if (!in)
        return -ENOMEM;
    memcpy(in, n->in, 2 * sizeof(*in));
    in[2] = zero;
    n->in = in;
    n->n_in = 3;
    return 0;
}

static int shift_signed(struct graph *g, struct node *n) {
    int q = n->out[0], zero, r;
    struct tensor t = {.dtype = DT_U8};
    struct quant params;
    const char *name;
    enum dtype type;
    uint8_t byte;

    if (!is_quantize(n) || !qdq_read_params(g, n, &params, &type) || type != DT_S8 || n->n_in < 2 ||
        !can_shift(g, q, params))
        return 0;
    byte = (uint8_t)(params.zero + 128);
    t.data = &byte;
    name = graph_unique_name(g, "zero_point_unsigned");
    zero = name ? graph_add_init(g, name, &t, /* data_lives= */ false) : -ENOMEM;
    if (zero < 0)
        return zero;
    r = set_zero(g, n, zero);
    for (size_t i = 0; i < g->n_nodes && r == 0; i++)
        if (g->nodes[i].n_in > 1 && g->nodes[i].in[0] == q)
            r = set_zero(g, &g->nodes[i], zero);
    g->values[q].dtype = DT_U8;
    return r;
}

/* ---- what is quantised ---- */

static void collect(struct qdq *c) {
    struct graph *g = c->g;

    for (size_t i = 0; i < g->n_nodes; i++) {
        const struct node *n = &g->nodes[i];
        bool writes = is_quantize(n);
        struct value *v;
        struct quant q;
        enum dtype t;

        if ((!writes && !is_dequantize(n)) || !qdq_read_params(g, n, &q, &t))
            continue;
        if (!writes)
            c->code[n->out[0]] = n->in[0];
        v = &g->values[writes ? n->out[0] : n->in[0]];
        if (v->init)
            continue; /* codes of a constant: marked when somebody reads them (weights are not marked) */
        if (v->quant.scale > 0 && (!same_quant(v->quant, q) || v->dtype != t)) {
            if (!writes)
                c->code[n->out[0]] = -1; /* this reader means other numbers: it stays */
            continue;
        }
        v->quant = q;
        v->dtype = t;
    }
}

/* An int32 bias at scale_x * scale_w becomes the floats it means; kernels round them back, without loss. */
static int fold_bias(struct graph *g, const struct node *n, struct error *err) {
    const struct tensor *stored = constant(g, n, 0), *scale = constant(g, n, 1);
    struct tensor t = {.dtype = DT_F32};
    int64_t count, n_scales;
    float *data;

    if (!is_dequantize(n) || !stored || !scale || stored->dtype != DT_S32 || scale->dtype != DT_F32 ||
        !shape_count(&stored->shape, &count) || !shape_count(&scale->shape, &n_scales) ||
        stored->shape.rank > 1 || (n_scales != 1 && n_scales != count))
        return 0;
    t.shape = stored->shape;
    data = graph_alloc(g, (size_t)count * sizeof(*data) + 1);
    if (!data)
        return error_oom(err);
    for (int64_t i = 0; i < count; i++) {
        int32_t v;
        float s;

        memcpy(&v, (const char *)stored->data + (size_t)i * sizeof(v), sizeof(v));
        memcpy(&s, (const char *)scale->data + (n_scales == 1 ? 0 : (size_t)i) * sizeof(s), sizeof(s));
        data[i] = (float)v * s;
    }
    t.data = data;
    g->values[n->out[0]].producer = -1;
    return graph_set_init(g, n->out[0], &t) < 0 ? error_oom(err) : 0;
}

/* ---- nodes that run on codes ---- */

/* Weights in integer codes, a constant bias. */
static bool layer_is_ready(const struct graph *g, const struct node *n) {
    if (!n->weight || !weight_is_integer(n->weight))
        return false;
    return n->n_in < 3 || n->in[2] < 0 || constant(g, n, 2);
}

/* Every input of numbers is quantised; constants that only say how (shapes, sizes) stay. */
static bool inputs_are_codes(const struct qdq *c, const struct node *n, int *ret_n) {
    bool is_layer = n->op->couple == OP_COUPLE_FREE;
    int n_codes = 0;

    for (int k = 0; k < n->n_in; k++) {
        int v = n->in[k];

        if (v < 0 || (is_layer && k > 0))
            continue;
        if (c->code[v] >= 0)
            n_codes++;
        else if (!c->g->values[v].init || k == 0 || n->op->quant != OP_QUANT_SAME)
            return false;
    }
    *ret_n = n_codes;
    return n_codes > 0;
}

struct sink {
    struct node *quantize;
    const struct node *clamp; /* NULL: none */
};

static struct node *only_reader(struct graph *g, int v) {
    int reader;

    if (v < 0 || g->values[v].is_output || graph_consumers(g, v, &reader, 1) != 1)
        return NULL;
    return &g->nodes[reader];
}

static bool find_sink(struct qdq *c, int v, struct sink *ret) {
    struct node *n = only_reader(c->g, v);
    struct quant q;
    enum dtype t;

    *ret = (struct sink){0};
    if (n && n->op->is_clamp && n->in[0] == v) {
        ret->clamp = n;
        n = only_reader(c->g, n->out[0]);
    }
    if (!n || !is_quantize(n) || !qdq_read_params(c->g, n, &q, &t) || t != DT_U8)
        return false;
    ret->quantize = n;
    return true;
}

static const struct tensor *aligned_constant(struct graph *g, const struct node *n, int i) {
    const struct tensor *t = constant(g, n, i);
    struct tensor *copy;
    size_t size;

    if (!t || !shape_bytes(&t->shape, t->dtype, &size))
        return NULL;
    copy = graph_alloc(g, sizeof(*copy));
    if (!copy)
        return NULL;
    *copy = *t;
    copy->data = graph_alloc(g, size + 64); /* 64 and more are aligned to 64 */
    if (!copy->data)
        return NULL;
    memcpy(copy->data, t->data, size);
    return copy;
}

/* The clamp becomes a post of `n` unless rounding to the type does it anyway. False: it cannot be one. */
static bool absorb_clamp(struct graph *g, struct node *n, const struct node *clamp, struct quant q) {
    static const float ends[2] = {-FLT_MAX, FLT_MAX};
    float bound[2];
    struct post p = {.op = clamp->op, .param = clamp->param, .other = -1};

    if (n->n_post >= NODE_MAX_POSTS || !qdq_eval_unary(g, clamp, ends, bound, 2))
        return false;
    if (nearbyintf(bound[0] / q.scale) + (float)q.zero <= 0 &&
        nearbyintf(bound[1] / q.scale) + (float)q.zero >= 255)
        return true;
    for (int k = 1; k < clamp->n_in && k < 3; k++) {
        if (clamp->in[k] < 0)
            continue;
        p.arg[k - 1] = aligned_constant(g, clamp, k);
        if (!p.arg[k - 1])
            return false;
    }
    p.alpha = bound[0];
    p.beta = bound[1];
    n->post[n->n_post++] = p;
    return true;
}

/* `n` writes what its QuantizeLinear wrote. */
static bool take_sink(struct qdq *c, struct node *n, int k, const struct sink *s) {
    int q = s->quantize->out[0];

    if (s->clamp && !absorb_clamp(c->g, n, s->clamp, c->g->values[q].quant))
        return false;
    n->out[k] = q;
    c->g->values[q].producer = (int)(n - c->g->nodes);
    s->quantize->n_out = 0;
    return true;
}

/* An operator that keeps a scale, between two different ones: a table behind it changes the scale. */
static int requantise_behind(struct qdq *c, size_t i, struct error *err) {
    struct graph *g = c->g;
    int from = g->nodes[i].in[0], to = g->nodes[i].out[0], mid, node;

    if (same_quant(g->values[from].quant, g->values[to].quant) ||
        g->values[from].dtype != g->values[to].dtype || g->nodes[i].n_post)
        return 0;
    mid = qdq_add_value(c, g->values[to].name, g->values[from].dtype, g->values[from].quant);
    if (mid < 0)
        return error_oom(err);
    g->nodes[i].out[0] = mid;
    g->values[mid].producer = (int)i;
    node = graph_insert_node(g, i + 1, "Lookup", "", &mid, 1, &to, 1);
    if (node < 0)
        return error_oom(err);
    g->nodes[node].id = g->nodes[i].id;
    return qdq_make_table(c, &g->nodes[node], mid, to, NULL, err);
}

/* A constant's codes, unsigned and marked with what they mean: its value, or a negative errno. */
static int constant_codes(struct qdq *c, int real) {
    struct graph *g = c->g;
    int code = c->code[real], v;
    const struct node *dequantize = &g->nodes[g->values[real].producer];
    struct tensor t = *g->values[code].init;
    struct quant q = {0};
    enum dtype type = DT_U8;
    size_t size;
    uint8_t *bytes;

    (void)qdq_read_params(g, dequantize, &q, &type);
    if (type == DT_U8) {
        g->values[code].quant = q;
        return code;
    }
    if (!shape_bytes(&t.shape, t.dtype, &size))
        return -EINVAL;
    bytes = graph_alloc(g, size + 1);
    if (!bytes)
        return -ENOMEM;
    for (size_t i = 0; i < size; i++)
        bytes[i] = (uint8_t)(((const uint8_t *)t.data)[i] ^ 0x80);
    q.zero += 128;
    v = qdq_add_value(c, g->values[code].name, DT_U8, q);
    t.dtype = DT_U8;
    t.data = bytes;
    if (v < 0 || graph_set_init(g, v, &t) < 0)
        return v < 0 ? v : -ENOMEM;
    c->code[real] = v;
    return v;
}

static int read_codes(struct qdq *c, struct node *n) {
    bool is_layer = n->op->couple == OP_COUPLE_FREE;

    for (int k = 0; k < (is_layer ? 1 : n->n_in); k++) {
        int code = n->in[k] >= 0 ? c->code[n->in[k]] : -1;

        if (code >= 0 && c->g->values[code].init && c->g->values[code].quant.scale <= 0)
            code = constant_codes(c, n->in[k]);
        if (code < -1)
            return code;
        if (code >= 0)
            n->in[k] = code;
    }
    return 0;
}

/* Moves elements and has no QuantizeLinear behind it: a twin of it moves the codes, for those readers that
 * can use them. The one that is not read goes. */
static int add_twin(struct qdq *c, size_t i, struct error *err) {
    struct graph *g = c->g;
    int from = c->code[g->nodes[i].in[0]], to, node;
    struct node twin = g->nodes[i];
    _cleanup_(freep) int *in = calloc((size_t)twin.n_in + 1, sizeof(*in));

    if (!in)
        return error_oom(err);
    to = qdq_add_value(c, g->values[twin.out[0]].name, g->values[from].dtype, g->values[from].quant);
    if (to < 0)
        return error_oom(err);
    memcpy(in, twin.in, (size_t)twin.n_in * sizeof(*in));
    in[0] = from;
    node = graph_insert_node(g, i + 1, twin.op_type, twin.name, in, twin.n_in, &to, 1);
    if (node < 0)
        return error_oom(err);
    twin.in = g->nodes[node].in;
    twin.out = g->nodes[node].out;
    g->nodes[node] = twin;
    c->code[g->nodes[i].out[0]] = to;
    return 0;
}

/* May the node run on codes at all, given what it reads? */
static bool may_run_on_codes(struct qdq *c, const struct node *n, int *ret_n_codes) {
    if (n->op->sees_codes || n->op->is_unary || n->op->quant == OP_QUANT_FLOAT || n->n_post)
        return false;
    if (n->n_out < 1 || n->n_out > MAX_OUT || n->out[0] < 0 || !inputs_are_codes(c, n, ret_n_codes))
        return false;
    return n->op->couple != OP_COUPLE_FREE || layer_is_ready(c->g, n);
}

/* 1: a node was put behind it. */
static int run_on_codes(struct qdq *c, size_t i, struct error *err) {
    struct node *n = &c->g->nodes[i];
    bool is_layer = n->op->couple == OP_COUPLE_FREE, is_same = n->op->quant == OP_QUANT_SAME;
    struct sink sink[MAX_OUT];
    int n_codes, r;

    if (!may_run_on_codes(c, n, &n_codes))
        return 0;
    for (int k = 0; k < n->n_out; k++) {
        if (n->out[k] >= 0 && find_sink(c, n->out[k], &sink[k]) && (n->n_out == 1 || !sink[k].clamp))
            continue;
        if (is_layer)
            return read_codes(c, n) < 0 ? error_oom(err) : 0; /* int32 sums to floats */
        if (!is_same || n_codes != 1 || n->n_out != 1)
            return 0;
        r = add_twin(c, i, err);
        return r < 0 ? r : 1;
    }
    for (int k = 0; k < n->n_out; k++)
        if (!take_sink(c, n, k, &sink[k]))
            return 0;
    if (read_codes(c, n) < 0)
        return error_oom(err);
    if (!is_same || n_codes != 1 || n->n_out != 1)
        return 0;
    return requantise_behind(c, i, err);
}

static void qdq_done(struct qdq *c) {
    free(c->code);
}

static int prepare(struct qdq *c, struct error *err) {
    for (size_t i = 0; i < c->g->n_nodes; i++) {
        int r = fold_bias(c->g, &c->g->nodes[i], err);

        if (r < 0)
            return r;
        r = shift_signed(c->g, &c->g->nodes[i]);
        if (r < 0)
            return error_oom(err);
    }
    if (grow(c) < 0)
        return error_oom(err);
    collect(c);
    return 0;
}

int pass_qdq(struct graph *g, struct error *err) {
    _cleanup_(qdq_done) struct qdq c = {.g = g};
    int r = prepare(&c, err);

    for (size_t i = 0; i < g->n_nodes && r >= 0; i++) {
        struct node *n = &g->nodes[i];

        if (n->n_out == 0)
            continue;
        if (is_quantize(n))
            r = qdq_table_of_chain(&c, n, err);
        else
            r = run_on_codes(&c, i, err);
    }
    if (r < 0)
        return r;
    return graph_drop_unused(g) < 0 ? error_oom(err) : 0;
}
