/* A layer followed by y = a[c] x + b[c] with constant a, b: BatchNormalization, or Mul, Add, Sub, Div with a
 * constant per channel. The factors go into the layer's weights and bias:
 *     W'[c][…] = a[c] W[c][…]      bias'[c] = a[c] bias[c] + b[c]
 * The layer keeps its name and id and makes the value that the folded node made. Shared initialisers stay as
 * they are: new ones are added. */
#include <errno.h>
#include <math.h>
#include <string.h>

#include "engine/constant.h"
#include "engine/ops.h"
#include "engine/ops/element.h"
#include "engine/pass.h"
#include "engine/weight_rows.h"

/* The affine map of channels, in double: folded rounding happens once. */
struct affine {
    int64_t n;
    double *a, *b; /* owned */
};

static void affine_done(struct affine *f) {
    free(f->a);
    free(f->b);
}

/* Where the output channels are in a layer's weights: index i belongs to channel
 * (i / outer) / … as `channel` says. */
struct layer_weights {
    const struct tensor *w, *bias; /* bias NULL: none */
    int64_t n_channels;
    int rank; /* of the layer's output */
    int64_t (*channel)(const struct layer_weights *l, int64_t i);
    int64_t inner; /* elements of one output channel's run, see channel */
    int64_t per_group, group_inputs;
    double bias_scale; /* beta of Gemm */
};

/* OIHW and Gemm with transB: runs of `inner`. */
static int64_t channel_first(const struct layer_weights *l, int64_t i) {
    return i / l->inner;
}

/* ConvTranspose: [in][out of the group]kHkW. */
static int64_t channel_transposed(const struct layer_weights *l, int64_t i) {
    int64_t row = i / l->inner, input = row / l->per_group;

    return input / l->group_inputs * l->per_group + row % l->per_group;
}

/* Gemm without transB: [K][N]. */
static int64_t channel_last(const struct layer_weights *l, int64_t i) {
    return i % l->n_channels;
}

static bool get_conv(const struct node *n, struct layer_weights *l) {
    const struct shape *s = &l->w->shape;
    int64_t group = node_attr_int(n, "group", 1);
    bool is_transposed = strcmp(n->op_type, "ConvTranspose") == 0;

    if (s->rank < 3 || group < 1)
        return false;
    l->rank = s->rank;
    l->inner = 1;
    for (int i = is_transposed ? 2 : 1; i < s->rank; i++)
        l->inner *= s->dim[i];
    l->n_channels = is_transposed ? s->dim[1] * group : s->dim[0];
    l->per_group = s->dim[1];
    l->group_inputs = s->dim[0] / group;
    l->channel = is_transposed ? channel_transposed : channel_first;
    return l->inner > 0 && (!is_transposed || (l->group_inputs > 0 && s->dim[0] % group == 0));
}

static bool get_gemm(const struct node *n, struct layer_weights *l) {
    const struct shape *s = &l->w->shape;
    bool is_trans = node_attr_int(n, "transB", 0) != 0;

    if (s->rank != 2)
        return false;
    l->rank = 2;
    l->n_channels = is_trans ? s->dim[0] : s->dim[1];
    l->inner = s->dim[1];
    l->channel = is_trans ? channel_first : channel_last;
    l->bias_scale = (double)node_attr_float(n, "beta", 1);
    return l->inner > 0;
}

/* The layer's weights: floats, or halves that a Cast makes floats of (pass_widen). */
static const struct tensor *float_weights(const struct graph *g, int v) {
    const struct tensor *t = constant_of(g, v);
    enum dtype to;
    int halves;

    if (t)
        return t->dtype == DT_F32 ? t : NULL;
    halves = v < 0 ? -1 : weight_match_cast(g, v, &to);
    t = halves < 0 || to != DT_F32 ? NULL : constant_of(g, halves);
    return t && element_is_half(t->dtype) ? t : NULL;
}

/* Is the node a layer with constant float weights and bias? */
static bool get_layer(const struct graph *g, const struct node *n, struct layer_weights *ret) {
    struct layer_weights l = {.bias_scale = 1};
    int64_t count;
    bool ok;

    if (n->domain[0] || n->n_in < 2)
        return false;
    l.w = float_weights(g, n->in[1]);
    if (!l.w)
        return false;
    if (n->n_in > 2 && n->in[2] >= 0) {
        l.bias = constant_of(g, n->in[2]);
        if (!l.bias || l.bias->dtype != DT_F32)
            return false;
    }
    if (strcmp(n->op_type, "Conv") == 0 || strcmp(n->op_type, "ConvTranspose") == 0)
        ok = get_conv(n, &l);
    else
        ok = strcmp(n->op_type, "Gemm") == 0 && get_gemm(n, &l);
    if (!ok || l.n_channels < 1)
        return false;
    /* Gemm's bias may be one number; a matrix is no bias */
    if (l.bias && (!shape_count(&l.bias->shape, &count) || (count != 1 && count != l.n_channels) ||
                      (l.bias->shape.rank == 2 && l.bias->shape.dim[0] != 1)))
        return false;
    *ret = l;
    return true;
}

static int affine_init(struct affine *f, int64_t n) {
    f->n = n;
    f->a = calloc((size_t)n, sizeof(*f->a));
    f->b = calloc((size_t)n, sizeof(*f->b));
    return f->a && f->b ? 0 : -ENOMEM;
}

/* A constant that broadcasts along channels only: [1], [C,1,1], [1,C,1,1], … against `rank` dimensions. */
static const struct tensor *channel_constant(
    const struct graph *g, int value, const struct layer_weights *l) {
    const struct tensor *t = constant_of(g, value);

    if (!t || t->dtype != DT_F32 || t->shape.rank > l->rank)
        return NULL;
    for (int i = 0; i < t->shape.rank; i++) {
        int axis = i + l->rank - t->shape.rank;

        if (t->shape.dim[i] != 1 && (axis != 1 || t->shape.dim[i] != l->n_channels))
            return NULL;
    }
    return t;
}

static double channel_value(const struct tensor *t, int64_t c) {
    int64_t n;

    return shape_count(&t->shape, &n) && n > 1 ? (double)constant_f32(t, c) : (double)constant_f32(t, 0);
}

/* 1: filled; 0: not such a node; negative errno. y = scale (x - mean) / sqrt(var + epsilon) + bias. */
static int read_batch_norm(
    const struct graph *g, const struct node *n, const struct layer_weights *l, struct affine *ret) {
    const struct tensor *t[4];
    double epsilon = (double)node_attr_float(n, "epsilon", 1e-5f);
    int64_t count;

    if (n->n_in != 5 || node_attr_int(n, "training_mode", 0) != 0)
        return 0;
    for (int k = 1; k < n->n_out; k++)
        if (n->out[k] >= 0)
            return 0;
    for (int k = 0; k < 4; k++) {
        t[k] = constant_of(g, n->in[k + 1]);
        if (!t[k] || t[k]->dtype != DT_F32 || !shape_count(&t[k]->shape, &count) || count != l->n_channels)
            return 0;
    }
    if (affine_init(ret, l->n_channels) < 0)
        return -ENOMEM;
    for (int64_t c = 0; c < ret->n; c++) {
        ret->a[c] = (double)constant_f32(t[0], c) / sqrt((double)constant_f32(t[3], c) + epsilon);
        ret->b[c] = (double)constant_f32(t[1], c) - (double)constant_f32(t[2], c) * ret->a[c];
    }
    return 1;
}

/* `k` is the constant's place: x op k (1) or k op x (0). */
static bool set_arithmetic(const char *op, int k, double v, double *a, double *b) {
    *a = 1;
    *b = 0;
    if (strcmp(op, "Mul") == 0)
        *a = v;
    else if (strcmp(op, "Add") == 0)
        *b = v;
    else if (strcmp(op, "Div") == 0 && k == 1)
        *a = 1 / v;
    else if (strcmp(op, "Sub") == 0) {
        *a = k == 1 ? 1 : -1;
        *b = k == 1 ? -v : v;
    } else
        return false;
    return true;
}

static int read_arithmetic(
    const struct graph *g, const struct node *n, int x, const struct layer_weights *l, struct affine *ret) {
    const struct tensor *t;
    double a, b;
    int k;

    if (n->n_in != 2 || n->in[0] == n->in[1])
        return 0;
    k = n->in[0] == x ? 1 : 0;
    t = channel_constant(g, n->in[k], l);
    if (!t || !set_arithmetic(n->op_type, k, 1, &a, &b))
        return 0;
    if (affine_init(ret, l->n_channels) < 0)
        return -ENOMEM;
    for (int64_t c = 0; c < ret->n; c++)
        set_arithmetic(n->op_type, k, channel_value(t, c), &ret->a[c], &ret->b[c]);
    return 1;
}

static int read_affine(
    const struct graph *g, const struct node *n, int x, const struct layer_weights *l, struct affine *ret) {
    if (n->domain[0])
        return 0;
    if (strcmp(n->op_type, "BatchNormalization") == 0)
        return n->in[0] == x ? read_batch_norm(g, n, l, ret) : 0;
    return read_arithmetic(g, n, x, l, ret);
}

/* Weak or dead channels may have a variance of nearly nothing: what is not finite is not folded. */
static bool is_finite(const struct affine *f) {
    for (int64_t c = 0; c < f->n; c++)
        if (!isfinite(f->a[c]) || !isfinite(f->b[c]))
            return false;
    return true;
}

static int add_scaled(struct graph *g, int old, const struct layer_weights *l, const struct affine *f) {
    struct tensor t = *l->w;
    const char *name = graph_unique_name(g, g->values[old].name);
    int64_t n;
    size_t size;
    float *to;

    if (!name || !shape_count(&t.shape, &n) || !shape_bytes(&t.shape, DT_F32, &size))
        return -ENOMEM;
    to = graph_alloc(g, size);
    if (!to)
        return -ENOMEM;
    for (int64_t i = 0; i < n; i++)
        to[i] = (float)(element_get(l->w, i) * f->a[l->channel(l, i)]);
    t.dtype = DT_F32;
    t.data = to;
    return graph_add_init(g, name, &t, /* data_lives= */ true);
}

static int add_bias(
    struct graph *g, const char *base, const struct layer_weights *l, const struct affine *f) {
    struct tensor t = {.dtype = DT_F32, .shape = {.rank = 1, .dim = {f->n}}};
    const char *name = graph_unique_name(g, base);
    float *to = graph_alloc(g, (size_t)f->n * sizeof(*to));

    if (!name || !to)
        return -ENOMEM;
    for (int64_t c = 0; c < f->n; c++) {
        double bias = l->bias ? channel_value(l->bias, c) * l->bias_scale : 0;

        to[c] = (float)(f->a[c] * bias + f->b[c]);
    }
    t.data = to;
    return graph_add_init(g, name, &t, /* data_lives= */ true);
}

static const char *bias_name(struct graph *g, const struct node *n) {
    const char *base = n->n_in > 2 && n->in[2] >= 0 ? g->values[n->in[2]].name : g->values[n->in[1]].name;
    size_t size = strlen(base) + sizeof("_bias");
    char *name;

    if (n->n_in > 2 && n->in[2] >= 0)
        return base;
    name = graph_alloc(g, size);
    if (name)
        snprintf(name, size, "%s_bias", base);
    return name;
}

static int fold(struct graph *g, size_t layer, size_t next, const struct layer_weights *l,
    const struct affine *f, struct error *err) {
    struct node *n = &g->nodes[layer];
    const char *base = bias_name(g, n);
    int w = add_scaled(g, n->in[1], l, f), bias = base ? add_bias(g, base, l, f) : -ENOMEM;
    int *links = graph_alloc(g, 4 * sizeof(*links)), out = g->nodes[next].out[0];

    if (w < 0 || bias < 0 || !links)
        return error_oom(err);
    links[0] = n->in[0];
    links[1] = w;
    links[2] = bias;
    links[3] = out;
    n->in = links;
    n->n_in = 3;
    n->out = links + 3;
    if (strcmp(n->op_type, "Gemm") == 0 && l->bias_scale != 1 && graph_set_attr_float(g, n, "beta", 1) < 0)
        return error_oom(err);
    graph_remove_node(g, next);
    g->values[out].producer = (int)layer;
    return 0;
}

/* Folds what follows layer `i`: 1 done, 0 nothing to do. */
static int fold_next(struct graph *g, size_t i, struct error *err) {
    _cleanup_(affine_done) struct affine f = {0};
    const struct node *n = &g->nodes[i];
    struct layer_weights l;
    int next, r;

    if (n->n_out != 1 || n->out[0] < 0 || g->values[n->out[0]].is_output || !get_layer(g, n, &l) ||
        graph_consumers(g, n->out[0], &next, 1) != 1)
        return 0;
    r = read_affine(g, &g->nodes[next], n->out[0], &l, &f);
    if (r < 0)
        return error_oom(err);
    if (r == 0 || !is_finite(&f))
        return 0;
    r = fold(g, i, (size_t)next, &l, &f, err);
    return r < 0 ? r : 1;
}

int pass_fold_batch_norm(struct graph *g, struct error *err) {
    for (size_t i = 0; i < g->n_nodes; i++) {
        int r;

        /* each fold takes a node away: this ends */
        while ((r = fold_next(g, i, err)) > 0)
            ;
        if (r < 0)
            return r;
    }
    if (graph_drop_unused(g) < 0)
        return error_oom(err);
    return graph_finish(g, err);
}
