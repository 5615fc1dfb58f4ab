#include <errno.h>
#include <string.h>

#include "base/cleanup.h"
#include "compress/linalg.h"
#include "compress/lowrank.h"
#include "engine/ops.h"

const char *const lowrank_decompositions[] = {"tucker2", "svd", "spatial", "channel", "cp", NULL};

/* ---- reading ---- */

static const char *read_conv(const struct node *n, const struct shape *w, struct lowrank_layer *l) {
    if (!strcmp(n->op_type, "ConvTranspose"))
        return "transposed convolutions are not factorised";
    if (node_attr_int(n, "group", 1) != 1)
        return "its convolution is depthwise or grouped";
    if (w->rank < 3 || w->rank > 2 + LOWRANK_MAX_DIMS)
        return "its weights are no convolution's of one to three dimensions";
    l->is_conv = true;
    l->outputs = w->dim[0];
    l->inputs = w->dim[1];
    l->n_dims = w->rank - 2;
    for (int d = 0; d < l->n_dims; d++) {
        l->kernel[d] = w->dim[d + 2];
        l->taps *= l->kernel[d];
    }
    return NULL;
}

static const char *read_matrix(const struct node *n, const struct shape *w, struct lowrank_layer *l) {
    bool is_turned = node_attr_int(n, "transB", 0) != 0;

    if (w->rank != 2)
        return "its weights are more than one matrix";
    if (node_attr_int(n, "transA", 0))
        return "its input is transposed";
    l->outputs = w->dim[is_turned ? 0 : 1];
    l->inputs = w->dim[is_turned ? 1 : 0];
    return NULL;
}

/* Sizes and MACs at the sample. */
static const char *read_sizes(const struct node *n, const struct shapes *shapes, struct lowrank_layer *l) {
    const struct shape *x = &shapes->value[n->in[0]].shape, *y = &shapes->value[n->out[0]].shape;
    int64_t count;

    if (x->rank < 1 || y->rank < 1 || !shape_count(x, &count))
        return "its shapes are not known";
    if (l->is_conv && (x->rank != l->n_dims + 2 || y->rank != x->rank))
        return "its shapes are not known";
    l->rows = l->is_conv ? x->dim[0] : count / l->inputs;
    l->macs = l->outputs * l->inputs * l->taps * l->rows;
    for (int d = 0; d < l->n_dims; d++) {
        l->in_size[d] = x->dim[d + 2];
        l->out_size[d] = y->dim[d + 2];
        l->macs *= l->out_size[d];
    }
    return NULL;
}

int lowrank_layer_read(const struct graph *g, int node, const struct shapes *shapes,
    struct lowrank_layer *ret, const char **ret_reason, struct error *err) {
    const struct node *n = &g->nodes[node];
    const struct tensor *w = g->values[n->in[1]].init;
    struct lowrank_layer l = {.node = node, .id = n->id, .taps = 1, .rows = 1};
    bool is_conv = !strcmp(n->op_type, "Conv") || !strcmp(n->op_type, "ConvTranspose");

    (void)err;
    if (!w || w->dtype != DT_F32)
        *ret_reason = "its weights are not float";
    else
        *ret_reason = is_conv ? read_conv(n, &w->shape, &l) : read_matrix(n, &w->shape, &l);
    if (!*ret_reason && (l.outputs < 1 || l.inputs < 1 || l.taps < 1))
        *ret_reason = "it has no weights";
    if (!*ret_reason)
        *ret_reason = read_sizes(n, shapes, &l);
    *ret = l;
    return 0;
}

int lowrank_read_weights(
    const struct graph *g, const struct lowrank_layer *l, double **ret, struct error *err) {
    const struct node *n = &g->nodes[l->node];
    const struct tensor *t = g->values[n->in[1]].init;
    /* [in][out] of MatMul, and of Gemm unless transB */
    bool is_turned = !l->is_conv && !node_attr_int(n, "transB", 0);
    double alpha = l->is_conv ? 1 : (double)node_attr_float(n, "alpha", 1);
    int64_t width = l->inputs * l->taps;
    double *w = linalg_new(l->outputs, width);

    if (!w)
        return error_oom(err);
    for (int64_t o = 0; o < l->outputs; o++)
        for (int64_t i = 0; i < width; i++) {
            size_t at = (size_t)(is_turned ? i * l->outputs + o : o * width + i);
            float v;

            memcpy(&v, (const char *)t->data + at * sizeof(v), sizeof(v));
            w[o * width + i] = alpha * (double)v;
        }
    *ret = w;
    return 0;
}

/* ---- parts ---- */

int lowrank_fit(const struct lowrank_layer *l, int wanted, const char **ret_reason) {
    *ret_reason = NULL;
    if (l->taps == 1)
        return LOWRANK_SVD;
    if (wanted == LOWRANK_SVD)
        *ret_reason = "svd is for 1x1 convolutions and fully connected layers";
    else if ((wanted == LOWRANK_SPATIAL || wanted == LOWRANK_CP) && l->n_dims != 2)
        *ret_reason = "its kernel is not two-dimensional";
    return *ret_reason ? -1 : wanted;
}

static int64_t least(int64_t a, int64_t b) {
    return a < b ? a : b;
}

static int64_t most(int64_t a, int64_t b) {
    return a > b ? a : b;
}

void lowrank_full(const struct lowrank_layer *l, int decomposition, int64_t ret[2]) {
    ret[1] = 0;
    switch (decomposition) {
    case LOWRANK_TUCKER2:
        ret[0] = least(l->inputs, l->outputs * l->taps);
        ret[1] = least(l->outputs, l->inputs * l->taps);
        break;
    case LOWRANK_SPATIAL: ret[0] = least(l->inputs * l->kernel[0], l->outputs * l->kernel[1]); break;
    case LOWRANK_CP: ret[0] = most(l->inputs, l->outputs); break;
    default: ret[0] = least(l->outputs, l->inputs * l->taps); break;
    }
}

int lowrank_parts(const struct lowrank_layer *l, const struct lowrank_choice *c,
    struct lowrank_part ret[LOWRANK_MAX_PARTS]) {
    const unsigned all = l->is_conv ? (1u << l->n_dims) - 1 : 0, rows = 1, cols = 2;
    int64_t r = c->rank[0], last = c->decomposition == LOWRANK_TUCKER2 ? c->rank[1] : r;
    int n = 0;

    switch (c->decomposition) {
    case LOWRANK_TUCKER2:
        ret[n++] = (struct lowrank_part){"v", r, l->inputs, 1, 0};
        ret[n++] = (struct lowrank_part){"core", last, r, 1, all};
        break;
    case LOWRANK_SPATIAL: ret[n++] = (struct lowrank_part){"v", r, l->inputs, 1, rows}; break;
    case LOWRANK_CP:
        ret[n++] = (struct lowrank_part){"v", r, l->inputs, 1, 0};
        ret[n++] = (struct lowrank_part){"y", r, 1, r, rows};
        ret[n++] = (struct lowrank_part){"x", r, 1, r, cols};
        break;
    default: ret[n++] = (struct lowrank_part){"v", r, l->inputs, 1, all}; break;
    }
    ret[n++] =
        (struct lowrank_part){"u", l->outputs, last, 1, c->decomposition == LOWRANK_SPATIAL ? cols : 0};
    return n;
}

static int64_t part_taps(const struct lowrank_layer *l, const struct lowrank_part *p) {
    int64_t taps = 1;

    for (int d = 0; d < l->n_dims; d++)
        if (p->dims & 1u << d)
            taps *= l->kernel[d];
    return taps;
}

int64_t lowrank_part_params(const struct lowrank_layer *l, const struct lowrank_part *p) {
    return p->outputs * p->inputs * part_taps(l, p);
}

int64_t lowrank_params(const struct lowrank_layer *l, const struct lowrank_choice *c) {
    struct lowrank_part part[LOWRANK_MAX_PARTS];
    int n = lowrank_parts(l, c, part);
    int64_t sum = 0;

    for (int k = 0; k < n; k++)
        sum += lowrank_part_params(l, &part[k]);
    return sum;
}

int64_t lowrank_macs(const struct lowrank_layer *l, const struct lowrank_choice *c) {
    struct lowrank_part part[LOWRANK_MAX_PARTS];
    int n = lowrank_parts(l, c, part);
    unsigned done = 0; /* dimensions that have the output's size by now */
    int64_t sum = 0;

    for (int k = 0; k < n; k++) {
        int64_t pixels = l->rows;

        done |= part[k].dims;
        for (int d = 0; d < l->n_dims; d++)
            pixels *= done & 1u << d ? l->out_size[d] : l->in_size[d];
        sum += pixels * lowrank_part_params(l, &part[k]);
    }
    return sum;
}

/* ---- factors ---- */

int lowrank_factors_init(const struct lowrank_layer *l, const struct lowrank_choice *c,
    struct lowrank_factors *ret, struct error *err) {
    struct lowrank_part part[LOWRANK_MAX_PARTS];

    *ret = (struct lowrank_factors){.choice = *c, .n = lowrank_parts(l, c, part)};
    for (int k = 0; k < ret->n; k++) {
        ret->part[k] = linalg_new(lowrank_part_params(l, &part[k]), 1);
        if (!ret->part[k])
            return error_oom(err);
    }
    return 0;
}

void lowrank_factors_done(struct lowrank_factors *f) {
    for (int k = 0; k < LOWRANK_MAX_PARTS; k++)
        free(f->part[k]);
    *f = (struct lowrank_factors){0};
}

/* w[t][s][ij] = sum over a, b of u[t][b] core[b][a][ij] v[a][s] */
static int compose_tucker(
    const struct lowrank_layer *l, const struct lowrank_factors *f, double *ret, struct error *err) {
    int64_t a = f->choice.rank[0], b = f->choice.rank[1];
    _cleanup_(freep) double *wide = linalg_new(b * l->inputs, l->taps);

    if (!wide)
        return error_oom(err);
    for (int64_t o = 0; o < b; o++) /* [S][taps] = v' [S][a] core[a][taps] */
        linalg_multiply(l->inputs, l->taps, a, f->part[0], true, f->part[1] + o * a * l->taps, false,
            wide + o * l->inputs * l->taps);
    linalg_multiply(l->outputs, l->inputs * l->taps, b, f->part[2], false, wide, false, ret);
    return 0;
}

/* w[t][s][i][j] = sum over r of u[t][r][j] v[r][s][i] */
static void compose_spatial(const struct lowrank_layer *l, const struct lowrank_factors *f, double *ret) {
    int64_t kh = l->kernel[0], kw = l->kernel[1], rank = f->choice.rank[0], tall = l->inputs * kh;

    memset(ret, 0, (size_t)(l->outputs * l->inputs * l->taps) * sizeof(*ret));
    for (int64_t t = 0; t < l->outputs; t++)
        for (int64_t r = 0; r < rank; r++)
            for (int64_t j = 0; j < kw; j++) {
                double u = f->part[1][(t * rank + r) * kw + j];

                for (int64_t i = 0; i < tall; i++)
                    ret[(t * tall + i) * kw + j] += u * f->part[0][r * tall + i];
            }
}

/* w[t][s][i][j] = sum over r of u[t][r] v[r][s] y[r][i] x[r][j] */
static int compose_cp(
    const struct lowrank_layer *l, const struct lowrank_factors *f, double *ret, struct error *err) {
    int64_t kh = l->kernel[0], kw = l->kernel[1], rank = f->choice.rank[0], width = l->inputs * l->taps;
    _cleanup_(freep) double *b = linalg_new(rank, width);

    if (!b)
        return error_oom(err);
    for (int64_t r = 0; r < rank; r++)
        for (int64_t i = 0; i < width; i++)
            b[r * width + i] = f->part[0][r * l->inputs + i / l->taps] *
                               f->part[1][r * kh + i % l->taps / kw] * f->part[2][r * kw + i % kw];
    linalg_multiply(l->outputs, width, rank, f->part[3], false, b, false, ret);
    return 0;
}

int lowrank_compose(
    const struct lowrank_layer *l, const struct lowrank_factors *f, double *ret, struct error *err) {
    switch (f->choice.decomposition) {
    case LOWRANK_TUCKER2: return compose_tucker(l, f, ret, err);
    case LOWRANK_SPATIAL: compose_spatial(l, f, ret); return 0;
    case LOWRANK_CP: return compose_cp(l, f, ret, err);
    default:
        linalg_multiply(
            l->outputs, l->inputs * l->taps, f->choice.rank[0], f->part[1], false, f->part[0], false, ret);
        return 0;
    }
}

int lowrank_decompose(const struct lowrank_input *in, struct lowrank_factors *f, struct error *err) {
    switch (f->choice.decomposition) {
    case LOWRANK_TUCKER2: return lowrank_tucker(in, f, err);
    case LOWRANK_SPATIAL: return lowrank_spatial(in, f, err);
    case LOWRANK_CP: return lowrank_cp(in, f, err);
    default: return lowrank_svd(in, f, err);
    }
}
