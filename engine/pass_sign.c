/* Signs of binary networks become values that travel as bits:
 *
 *     x ─ GreaterOrEqual(x, 0) ─ Where(…, 1, -1) ─ Conv(weights ±alpha)       Binarize ─ Conv
 *     x ─ BatchNormalization ─ GreaterOrEqual ─ Where ─ …                      Binarize (limits per channel)
 *     Conv ─ (Relu) ─ Binarize                                                 Conv[…, Binarize]
 *
 * only where a layer with weights of one size a channel reads them: everything else is as fast on floats. The
 * limits are what the operators themselves say, found by bisection: all of them are monotone. */
#include "engine/pass.h"

#include <errno.h>
#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "engine/binarize.h"
#include "engine/constant.h"
#include "engine/ops.h"
#include "engine/weight.h"

/* ---- the pattern ---- */

/* x op constant, or constant op x, that means x (or -x) >= limit, not-a-number being false. */
static const struct {
    const char *op;
    bool is_x_first;
    bool is_flipped, is_strict;
} compares[] = {
    {"GreaterOrEqual", true, false, false},
    {"LessOrEqual", false, false, false},
    {"Greater", true, false, true},
    {"Less", false, false, true},
    {"LessOrEqual", true, true, false},
    {"GreaterOrEqual", false, true, false},
    {"Less", true, true, true},
    {"Greater", false, true, true},
};

struct sign {
    int x;       /* value whose sign it is */
    float limit; /* as in struct binarize_param */
    bool is_flipped;
};

static bool scalar_of(const struct graph *g, int value, float *ret) {
    const struct tensor *t = constant_of(g, value);
    int64_t n;

    if (!t || t->dtype != DT_F32 || !shape_count(&t->shape, &n) || n != 1 || t->shape.rank > 1)
        return false;
    *ret = constant_f32(t, 0);
    return true;
}

static const struct node *producer_of(const struct graph *g, int value) {
    int p = value < 0 ? -1 : g->values[value].producer;

    return p < 0 || *g->nodes[p].domain || g->nodes[p].n_post ? NULL : &g->nodes[p];
}

static bool is_number(float v, float is) {
    return !(v < is) && !(v > is); /* both finite here */
}

static bool match_compare(const struct graph *g, const struct node *n, struct sign *ret) {
    for (size_t i = 0; i < sizeof(compares) / sizeof(*compares); i++) {
        int x = compares[i].is_x_first ? 0 : 1;
        float c;

        if (strcmp(n->op_type, compares[i].op) != 0 || n->n_in != 2 || !scalar_of(g, n->in[1 - x], &c) ||
            !isfinite(c) || n->in[x] < 0 || g->values[n->in[x]].init || g->values[n->in[x]].quant.scale > 0 ||
            g->values[n->in[x]].dtype == DT_S64)
            continue;
        c = compares[i].is_flipped ? -c : c;
        *ret = (struct sign){.x = n->in[x],
            .limit = compares[i].is_strict ? nextafterf(c, INFINITY) : c,
            .is_flipped = compares[i].is_flipped};
        return true;
    }
    return false;
}

static bool match_sign(const struct graph *g, const struct node *n, struct sign *ret) {
    const struct node *compare;
    float yes, no;

    if (strcmp(n->op_type, "Where") != 0 || *n->domain || n->n_in != 3 || n->n_post ||
        !scalar_of(g, n->in[1], &yes) || !scalar_of(g, n->in[2], &no) || !is_number(yes, 1) ||
        !is_number(no, -1))
        return false;
    compare = producer_of(g, n->in[0]);
    return compare && match_compare(g, compare, ret);
}

/* ---- layers whose weights are one number a channel, but for the sign ---- */

static bool is_layer(const struct node *n) {
    if (*n->domain || !n->weight || n->n_in < 2)
        return false;
    if (strcmp(n->op_type, "Conv") == 0)
        return n->weight->shape.rank >= 3 && node_attr_int(n, "group", 1) == 1;
    return n->weight->shape.rank == 2 &&
           (strcmp(n->op_type, "Gemm") == 0 || strcmp(n->op_type, "MatMul") == 0);
}

/* 1: *ret (in g's arena) is the size of each channel's weights; 0: they differ; negative errno. */
static int find_scale(struct graph *g, const struct node *n, const float **ret, struct error *err) {
    const struct weight *w = n->weight;
    bool is_kn = w->shape.rank == 2 && !node_attr_int(n, "transB", 0);
    int64_t count, oc = w->shape.dim[is_kn], inner;
    _cleanup_(freep) float *dense = NULL;
    float *scale;
    int r;

    if (!shape_count(&w->shape, &count) || count < 1 || oc < 1)
        return 0;
    inner = count / oc;
    dense = calloc((size_t)count, sizeof(*dense));
    scale = graph_alloc(g, (size_t)oc * sizeof(*scale));
    if (!dense || !scale)
        return error_oom(err);
    r = weight_decode(w, dense, err);
    if (r < 0)
        return r;
    for (int64_t i = 0; i < count; i++) {
        int64_t c = is_kn ? i % oc : i / inner;
        float size = fabsf(dense[i]);

        if (is_kn ? i < oc : i % inner == 0)
            scale[c] = size;
        if (!(size >= scale[c] && size <= scale[c]) || !(size > 0) || size > FLT_MAX)
            return 0;
    }
    *ret = scale;
    return 1;
}

static bool is_sign_pad(const struct graph *g, const struct node *n) {
    float v = node_attr_float(n, "value", 0);

    if (strcmp(n->op_type, "Pad") != 0 || *n->domain || n->n_post ||
        strcmp(node_attr_string(n, "mode", "constant"), "constant") != 0)
        return false;
    if (n->n_in > 2 && n->in[2] >= 0 && !scalar_of(g, n->in[2], &v))
        return false;
    return is_number(fabsf(v), 1);
}

#define MAX_READERS 64

/* Marks the layers that read value `v` of signs, itself or padded, and the padded values. 1: some; 0: none;
 * negative errno. */
static int mark_readers(struct graph *g, int v, bool through_pads, struct error *err) {
    int use[MAX_READERS], found = 0;
    size_t n = graph_consumers(g, v, use, MAX_READERS);

    for (size_t i = 0; i < n && i < MAX_READERS; i++) {
        struct node *to = &g->nodes[use[i]];
        int r = 0;

        if (to->in[0] != v)
            continue;
        if (is_layer(to))
            r = to->sign_scale ? 1 : find_scale(g, to, &to->sign_scale, err);
        else if (through_pads && is_sign_pad(g, to))
            r = mark_readers(g, to->out[0], false, err);
        if (r < 0)
            return r;
        if (r > 0 && !is_layer(to))
            g->values[to->out[0]].is_sign = true;
        found |= r;
    }
    return found;
}

/* ---- batch norm before the sign ---- */

/* Batch norm of channels, one number each, as its operator computes it. */
struct norm {
    const struct node *n;
    int64_t channels;
    struct tensor in[5], out;
    const struct tensor *in_ptr[5];
    float *data; /* aligned: x, y, and the four constants */
};

static void norm_done(struct norm *m) {
    free(m->data);
}

/* 1: read; 0: not such a batch norm; -ENOMEM. */
static int norm_init(const struct graph *g, const struct node *n, struct norm *m) {
    size_t padded;

    if (!n || strcmp(n->op_type, "BatchNormalization") != 0 || n->n_in != 5 ||
        node_attr_int(n, "training_mode", 0) || n->in[0] < 0)
        return 0;
    for (int i = 1; i < n->n_out; i++)
        if (n->out[i] >= 0)
            return 0;
    for (int i = 1; i < 5; i++) {
        const struct tensor *t = constant_of(g, n->in[i]);

        if (!t || t->dtype != DT_F32 || t->shape.rank != 1 || (i > 1 && t->shape.dim[0] != m->channels))
            return 0;
        m->channels = t->shape.dim[0];
    }
    m->n = n;
    padded = ((size_t)m->channels + 15) / 16 * 16;
    m->data = aligned_alloc(64, (6 * padded + 16) * sizeof(float));
    if (!m->data)
        return -ENOMEM;
    m->out = (struct tensor){
        .dtype = DT_F32, .shape = {.rank = 2, .dim = {1, m->channels}}, .data = m->data + 5 * padded};
    for (int i = 0; i < 5; i++) {
        m->in[i] = i ? *constant_of(g, n->in[i]) : m->out;
        if (i)
            memcpy(m->data + (size_t)i * padded, m->in[i].data, (size_t)m->channels * sizeof(float));
        m->in[i].data = m->data + (size_t)i * padded;
        m->in_ptr[i] = &m->in[i];
    }
    return 1;
}

/* Floats in the order of numbers: a bisection over them ends after 32 steps. */
static float float_at(int32_t order) {
    uint32_t bits = order < 0 ? ~(uint32_t)order | 0x80000000u : (uint32_t)order;
    float f;

    memcpy(&f, &bits, sizeof(f));
    return f;
}

static int32_t order_of(float f) {
    uint32_t bits;

    memcpy(&bits, &f, sizeof(bits));
    return bits & 0x80000000u ? (int32_t) ~(bits & 0x7fffffffu) : (int32_t)bits;
}

static bool norm_reaches(const struct norm *m, const struct binarize_param *after, int64_t c) {
    return binarize_at(after, c, ((const float *)m->out.data)[c]);
}

static void norm_run(struct norm *m) {
    m->n->op->forward(m->n, m->in_ptr, &m->out, NULL);
}

/* limit and flip [channels] for x so that they say what `after` says of the normalised x. */
static void bisect(struct norm *m, const struct binarize_param *after, int64_t *no, int64_t *yes,
    float *limit, uint32_t *flip) {
    float *x = m->in[0].data;

    for (int end = 0; end < 2; end++) {
        for (int64_t c = 0; c < m->channels; c++)
            x[c] = end ? FLT_MAX : -FLT_MAX;
        norm_run(m);
        for (int64_t c = 0; c < m->channels; c++)
            *(end ? &yes[c] : &no[c]) = norm_reaches(m, after, c);
    }
    for (int64_t c = 0; c < m->channels; c++) {
        limit[c] = yes[c] == no[c] ? (yes[c] ? -INFINITY : NAN) : 0;
        flip[c] = no[c] && !yes[c] ? 0x80000000u : 0;
        no[c] = order_of(-FLT_MAX);
        yes[c] = order_of(FLT_MAX);
    }
    for (int step = 0; step < 33; step++) {
        for (int64_t c = 0; c < m->channels; c++) {
            float mid = float_at((int32_t)(no[c] + (yes[c] - no[c]) / 2));

            x[c] = flip[c] ? -mid : mid;
        }
        norm_run(m);
        for (int64_t c = 0; c < m->channels; c++) {
            int64_t mid = no[c] + (yes[c] - no[c]) / 2;

            if (yes[c] - no[c] > 1)
                *(norm_reaches(m, after, c) ? &yes[c] : &no[c]) = mid;
        }
    }
    for (int64_t c = 0; c < m->channels; c++)
        if (!(limit[c] < 0) && !isnan(limit[c]))
            limit[c] = float_at((int32_t)yes[c]);
}

/* Folds the batch norm that makes p's input: 1 done (*p rewritten), 0: none, negative errno. */
static int fold_norm(struct graph *g, const struct node *n, struct binarize_param *p, struct error *err) {
    _cleanup_(norm_done) struct norm m = {0};
    _cleanup_(freep) int64_t *ends = NULL;
    int r = norm_init(g, n, &m);
    uint32_t *flip;
    float *limit;

    if (r <= 0)
        return r < 0 ? error_oom(err) : 0;
    limit = graph_alloc(g, (size_t)m.channels * sizeof(*limit));
    flip = graph_alloc(g, (size_t)m.channels * sizeof(*flip));
    ends = calloc(2 * (size_t)m.channels + 1, sizeof(*ends));
    if (!limit || !flip || !ends)
        return error_oom(err);
    bisect(&m, p, ends, ends + m.channels, limit, flip);
    *p = (struct binarize_param){.n = m.channels, .limit = limit, .flip = flip};
    return 1;
}

/* ---- rewriting ---- */

static int make_binarize(struct graph *g, struct node *n, const struct sign *sign, struct error *err) {
    struct binarize_param *p = graph_alloc(g, sizeof(*p));
    float *limit = graph_alloc(g, sizeof(*limit));
    uint32_t *flip = graph_alloc(g, sizeof(*flip));
    int *links = graph_alloc(g, sizeof(*links));
    const struct node *norm = producer_of(g, sign->x);
    int r;

    if (!p || !limit || !flip || !links)
        return error_oom(err);
    *limit = sign->limit;
    *flip = sign->is_flipped ? 0x80000000u : 0;
    *p = (struct binarize_param){.n = 1, .limit = limit, .flip = flip};
    r = fold_norm(g, norm, p, err);
    if (r < 0)
        return r;
    *links = r > 0 ? norm->in[0] : sign->x;
    n->op = &op_binarize;
    n->op_type = op_binarize.name;
    n->domain = op_binarize.domain;
    n->param = p;
    n->is_parsed = true;
    n->attr = NULL;
    n->n_attr = 0;
    n->in = links;
    n->n_in = 1;
    g->values[n->out[0]].is_sign = true;
    return 0;
}

/* The layer of signs that makes Binarize's input for it alone, and can give bits: NULL. */
static struct node *layer_before(struct graph *g, const struct node *n) {
    int v = n->in[0], use[2];
    struct node *to = g->values[v].producer < 0 ? NULL : &g->nodes[g->values[v].producer];

    if (!to || !to->sign_scale || strcmp(to->op_type, "Conv") != 0 || to->n_post == NODE_MAX_POSTS ||
        g->values[v].is_output || graph_consumers(g, v, use, 2) != 1 || !g->values[to->in[0]].is_sign)
        return NULL;
    for (int i = 0; i < to->n_post; i++)
        if (!to->post[i].op->is_clamp || to->post[i].other >= 0)
            return NULL;
    return to;
}

static void absorb(struct graph *g, struct node *into, struct node *n) {
    int v = into->out[0];

    into->post[into->n_post++] = (struct post){.op = n->op, .param = n->param, .other = -1};
    into->out[0] = n->out[0];
    g->values[n->out[0]].producer = (int)(into - g->nodes);
    g->values[v].producer = -1;
    n->out[0] = -1;
    n->in[0] = -1;
}

static int absorb_signs(struct graph *g, struct error *err) {
    _cleanup_(freep) bool *is_gone = calloc(g->n_nodes + 1, sizeof(*is_gone));

    if (!is_gone)
        return error_oom(err);
    for (size_t i = 0; i < g->n_nodes; i++) {
        struct node *n = &g->nodes[i], *into = n->op == &op_binarize ? layer_before(g, n) : NULL;

        if (into) {
            absorb(g, into, n);
            is_gone[i] = true;
        }
    }
    for (size_t i = g->n_nodes; i-- > 0;)
        if (is_gone[i])
            graph_remove_node(g, i);
    return 0;
}

int pass_sign(struct graph *g, struct error *err) {
    bool found = false;

    for (size_t i = 0; i < g->n_nodes; i++) {
        struct sign sign;
        int r;

        if (!match_sign(g, &g->nodes[i], &sign))
            continue;
        r = mark_readers(g, g->nodes[i].out[0], true, err);
        if (r > 0)
            r = make_binarize(g, &g->nodes[i], &sign, err);
        if (r < 0)
            return r;
        found = found || g->nodes[i].op == &op_binarize;
    }
    if (!found)
        return 0;
    if (graph_drop_unused(g) < 0)
        return error_oom(err);
    return absorb_signs(g, err);
}
