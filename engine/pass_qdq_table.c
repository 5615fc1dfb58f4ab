/* Elementwise functions of one quantised value, between its DequantizeLinear and a QuantizeLinear, as tables
 * of 256 bytes: hard-swish spelled out, Sigmoid, Relu behind a Q, a change of scale. The table is computed by
 * the operators' own forward functions on the 256 numbers, then rounded as QuantizeLinear does. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "engine/lookup.h"
#include "engine/pass_qdq.h"

#define CHAIN_MAX 16
#define N_CODES   256

/* The nodes between the quantised value and the QuantizeLinear, in topological order. */
struct chain {
    const struct qdq *c;
    int source; /* float value that stands for the quantised one, -1: not found yet */
    int n;
    int node[CHAIN_MAX];
};

struct eval {
    const struct graph *g;
    int count;
    int n;
    int value[CHAIN_MAX + 1];
    float *data[CHAIN_MAX + 1]; /* owned */
};

static void eval_done(struct eval *e) {
    for (int i = 0; i < e->n; i++)
        free(e->data[i]);
}

static float *eval_add(struct eval *e, int value) {
    float *p = e->n <= CHAIN_MAX ? aligned_alloc(64, N_CODES * sizeof(*p)) : NULL;

    if (!p)
        return NULL;
    e->value[e->n] = value;
    e->data[e->n++] = p;
    return p;
}

static float *eval_find(const struct eval *e, int value) {
    for (int i = 0; i < e->n; i++)
        if (e->value[i] == value)
            return e->data[i];
    return NULL;
}

static bool is_scalar(const struct tensor *t) {
    int64_t n;

    return t && t->data && shape_count(&t->shape, &n) && n == 1;
}

#define EVAL_MAX_IN 8

/* Constants are moved to aligned memory: the mapped file is not. */
struct eval_inputs {
    struct tensor view[EVAL_MAX_IN];
    const struct tensor *in[EVAL_MAX_IN];
    _Alignas(64) uint8_t constant[EVAL_MAX_IN][64];
};

static bool eval_inputs(const struct eval *e, const struct node *n, struct eval_inputs *x) {
    if (n->n_in > EVAL_MAX_IN)
        return false;
    for (int k = 0; k < n->n_in; k++) {
        const struct tensor *t;
        size_t size;

        x->in[k] = NULL;
        if (n->in[k] < 0)
            continue;
        x->in[k] = &x->view[k];
        t = e->g->values[n->in[k]].init;
        if (t) {
            if (!is_scalar(t) || !shape_bytes(&t->shape, t->dtype, &size) || size > 64)
                return false;
            memcpy(x->constant[k], t->data, size);
            x->view[k] = *t;
            x->view[k].data = x->constant[k];
            continue;
        }
        x->view[k] = (struct tensor){.dtype = DT_F32, .shape = {.rank = 1, .dim = {e->count}}};
        x->view[k].data = eval_find(e, n->in[k]);
        if (!x->view[k].data)
            return false;
    }
    return true;
}

static bool eval_node(struct eval *e, const struct node *n) {
    struct eval_inputs x;
    struct tensor out = {.layout = LAYOUT_PLAIN};
    _cleanup_(freep) void *scratch = NULL;
    struct error ignored = {0};
    size_t size;
    int64_t count;

    if (!n->op->shape || !n->op->forward || !eval_inputs(e, n, &x) ||
        n->op->shape(n, x.in, &out, &ignored) < 0 || out.dtype != DT_F32 ||
        !shape_count(&out.shape, &count) || count != e->count)
        return false;
    size = n->op->scratch ? n->op->scratch(n, x.in, &out) : 0;
    scratch = aligned_alloc(64, (size + 64) & ~(size_t)63);
    out.data = scratch ? eval_add(e, n->out[0]) : NULL;
    if (!out.data)
        return false;
    n->op->forward(n, x.in, &out, scratch);
    return true;
}

bool qdq_eval_unary(const struct graph *g, const struct node *n, const float *x, float *y, int count) {
    _cleanup_(eval_done) struct eval e = {.g = g, .count = count};
    float *in = count <= N_CODES && n->n_out > 0 ? eval_add(&e, n->in[0]) : NULL;

    if (!in)
        return false;
    memcpy(in, x, (size_t)count * sizeof(*x));
    if (!eval_node(&e, n))
        return false;
    memcpy(y, e.data[e.n - 1], (size_t)count * sizeof(*y));
    return true;
}

/* Inserts in ascending order; false: full. */
static bool chain_add(struct chain *h, int node) {
    int at = h->n;

    for (int i = 0; i < h->n; i++)
        if (h->node[i] == node)
            return true;
    if (h->n == CHAIN_MAX)
        return false;
    for (; at > 0 && h->node[at - 1] > node; at--)
        h->node[at] = h->node[at - 1];
    h->node[at] = node;
    h->n++;
    return true;
}

/* Value v is the source, or an elementwise node's output whose inputs are. */
static bool chain_walk(struct chain *h, int v, int depth) {
    const struct graph *g = h->c->g;
    const struct node *n;

    if (h->c->code[v] >= 0) {
        if (h->source >= 0 && h->source != v)
            return false;
        h->source = v;
        return true;
    }
    if (g->values[v].producer < 0 || depth == CHAIN_MAX)
        return false;
    n = &g->nodes[g->values[v].producer];
    if (n->n_out != 1 || n->n_post || !(n->op->is_unary || n->op->couple == OP_COUPLE_JOIN))
        return false;
    for (int k = 0; k < n->n_in; k++) {
        if (n->in[k] < 0 || is_scalar(g->values[n->in[k]].init))
            continue;
        if (g->values[n->in[k]].init || !chain_walk(h, n->in[k], depth + 1))
            return false;
    }
    return chain_add(h, g->values[v].producer);
}

static float real_of(struct quant q, enum dtype t, int byte) {
    return (float)((t == DT_S8 ? (int8_t)byte : byte) - q.zero) * q.scale;
}

static uint8_t code_of(struct quant q, enum dtype t, float real) {
    float low = t == DT_S8 ? -128.0f : 0.0f, high = t == DT_S8 ? 127.0f : 255.0f;
    float v = nearbyintf(fminf(fmaxf(real / q.scale, low - (float)q.zero), high - (float)q.zero));

    return (uint8_t)(int)(v + (float)q.zero);
}

int qdq_make_table(
    struct qdq *c, struct node *n, int from, int to, const float real[N_CODES], struct error *err) {
    struct graph *g = c->g;
    const struct value *x = &g->values[from], *y = &g->values[to];
    struct lookup_param *p = graph_alloc(g, sizeof(*p));
    int *links = graph_alloc(g, 2 * sizeof(*links));

    if (!p || !links)
        return error_oom(err);
    for (int i = 0; i < N_CODES; i++)
        p->table[i] = code_of(y->quant, y->dtype, real ? real[i] : real_of(x->quant, x->dtype, i));
    p->out = y->dtype;
    links[0] = from;
    links[1] = to;
    n->op = &op_lookup;
    n->op_type = op_lookup.name;
    n->domain = op_lookup.domain;
    n->param = p;
    n->is_parsed = true;
    n->attr = NULL;
    n->n_attr = 0;
    n->in = links;
    n->out = links + 1;
    n->n_in = n->n_out = 1;
    g->values[to].producer = (int)(n - g->nodes);
    return 0;
}

int qdq_table_of_chain(struct qdq *c, struct node *n, struct error *err) {
    struct graph *g = c->g;
    struct chain h = {.c = c, .source = -1};
    _cleanup_(eval_done) struct eval e = {.g = g, .count = N_CODES};
    const struct value *from;
    float *x;
    int r;

    if (g->values[n->out[0]].quant.scale <= 0 || !chain_walk(&h, n->in[0], 0) || h.source < 0)
        return 0;
    from = &g->values[c->code[h.source]];
    if (from->init)
        return 0;
    x = eval_add(&e, h.source);
    if (!x)
        return error_oom(err);
    for (int i = 0; i < N_CODES; i++)
        x[i] = real_of(from->quant, from->dtype, i);
    for (int i = 0; i < h.n; i++)
        if (!eval_node(&e, &g->nodes[h.node[i]]))
            return 0;
    r = qdq_make_table(c, n, c->code[h.source], n->out[0], eval_find(&e, n->in[0]), err);
    return r < 0 ? r : 1;
}
