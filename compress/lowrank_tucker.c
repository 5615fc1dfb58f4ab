/* tucker2: w[t][s][k] = sum over a, b of u[t][b] core[b][a][k] v[a][s] (Kim et al. 2016, Compression of deep
 * convolutional neural networks for fast and low power mobile applications). u and v begin as the leading
 * eigenvectors of the two unfoldings' Gram matrices (truncated HOSVD) and are improved in turns, each the
 * best for the other (HOOI: De Lathauwer, De Moor and Vandewalle 2000): the error never grows.
 *
 * With samples the inputs are whitened by the covariance of the channels first. Then, v given, core and u are
 * the best for the outputs that this rank can have: reduced-rank regression. */
#include <errno.h>
#include <math.h>
#include <string.h>

#include "base/cleanup.h"
#include "compress/linalg.h"
#include "compress/lowrank.h"

#define FLOOR 1e-6 /* of the covariance's eigenvalues, of the largest */

/* to[b][a][k] = from[a][b][k] */
static void turn(int64_t a, int64_t b, int64_t k, const double *from, double *to) {
    for (int64_t i = 0; i < a; i++)
        for (int64_t j = 0; j < b; j++)
            memcpy(to + (j * a + i) * k, from + (i * b + j) * k, (size_t)k * sizeof(*to));
}

/* The `rank` leading left singular vectors of m[rows][cols], as rows of ret[rank][rows]. */
static int leading(
    int64_t rows, int64_t cols, const double *m, int64_t rank, double *ret, struct error *err) {
    _cleanup_(freep) double *gram = linalg_new(rows, rows), *values = linalg_new(rows, 1);
    int e;

    if (!gram || !values)
        return error_oom(err);
    linalg_gram(rows, cols, m, false, gram);
    e = linalg_eigen(rows, gram, values, err);
    if (e == 0)
        memcpy(ret, gram, (size_t)(rank * rows) * sizeof(*ret));
    return e;
}

struct hooi {
    int64_t t, s, k, a, b; /* w[t][s][k], ranks a of the inputs, b of the outputs */
    const double *w;       /* [t][s][k] */
    double *turned;        /* [s][t][k] of it */
    double *u, *v;         /* [b][t], [a][s]: orthonormal rows */
    double *part, *other;  /* room for w with one side projected, and turned */
};

static void hooi_done(struct hooi *h) {
    free(h->turned);
    free(h->u);
    free(h->v);
    free(h->part);
    free(h->other);
}

static int hooi_init(struct hooi *h, const struct lowrank_layer *l, const int64_t rank[2], const double *w,
    struct error *err) {
    int64_t most;

    *h = (struct hooi){.t = l->outputs, .s = l->inputs, .k = l->taps, .a = rank[0], .b = rank[1], .w = w};
    most = h->a * h->t > h->b * h->s ? h->a * h->t : h->b * h->s;
    h->turned = linalg_new(h->s * h->t, h->k);
    h->u = linalg_new(h->b, h->t);
    h->v = linalg_new(h->a, h->s);
    h->part = linalg_new(most, h->k);
    h->other = linalg_new(most, h->k);
    if (!h->turned || !h->u || !h->v || !h->part || !h->other)
        return error_oom(err);
    turn(h->t, h->s, h->k, w, h->turned);
    return 0;
}

static int hooi_start(struct hooi *h, struct error *err) {
    int e = leading(h->t, h->s * h->k, h->w, h->b, h->u, err);

    return e < 0 ? e : leading(h->s, h->t * h->k, h->turned, h->a, h->v, err);
}

static int hooi_sweep(struct hooi *h, struct error *err) {
    int e;

    /* part[a][t][k] = v turned; u is leading in [t][a k] */
    linalg_multiply(h->a, h->t * h->k, h->s, h->v, false, h->turned, false, h->part);
    turn(h->a, h->t, h->k, h->part, h->other);
    e = leading(h->t, h->a * h->k, h->other, h->b, h->u, err);
    if (e < 0)
        return e;
    /* part[b][s][k] = u w; v is leading in [s][b k] */
    linalg_multiply(h->b, h->s * h->k, h->t, h->u, false, h->w, false, h->part);
    turn(h->b, h->s, h->k, h->part, h->other);
    return leading(h->s, h->b * h->k, h->other, h->a, h->v, err);
}

/* core[b][a][k] */
static void hooi_core(struct hooi *h, double *core) {
    linalg_multiply(h->b, h->s * h->k, h->t, h->u, false, h->w, false, h->part);
    for (int64_t b = 0; b < h->b; b++)
        linalg_multiply(
            h->a, h->k, h->s, h->v, false, h->part + b * h->s * h->k, false, core + b * h->a * h->k);
}

static int hooi_run(struct hooi *h, int sweeps, struct error *err) {
    int e = hooi_start(h, err);

    for (int i = 0; e == 0 && i < sweeps; i++)
        e = hooi_sweep(h, err);
    return e;
}

/* Mean over taps of the covariance of the channels: ret[s][s]. */
static void channel_covariance(const struct lowrank_layer *l, const double *cov, double *ret) {
    int64_t n = l->inputs * l->taps;

    for (int64_t a = 0; a < l->inputs; a++)
        for (int64_t b = 0; b < l->inputs; b++) {
            double sum = 0;

            for (int64_t k = 0; k < l->taps; k++)
                sum += cov[(a * l->taps + k) * n + b * l->taps + k];
            ret[a * l->inputs + b] = sum / (double)l->taps;
        }
}

/* w[t][s][k] on white inputs: root[s][s] in front of each w[t]. */
static void whiten(const struct lowrank_layer *l, const double *root, double *w, double *room) {
    for (int64_t t = 0; t < l->outputs; t++) {
        double *at = w + t * l->inputs * l->taps;

        linalg_multiply(l->inputs, l->taps, l->inputs, root, false, at, false, room);
        memcpy(at, room, (size_t)(l->inputs * l->taps) * sizeof(*at));
    }
}

/* core and u, given v. Features: (a, k) of v at tap k. */
static int fit(const struct lowrank_input *in, struct lowrank_factors *f, struct error *err) {
    const struct lowrank_layer *l = in->layer;
    int64_t n = l->inputs * l->taps, q = f->choice.rank[0] * l->taps;
    _cleanup_(freep) double *b = linalg_new(q, n), *a = linalg_new(l->outputs, q), *gram = NULL;
    int e;

    if (!a || !b)
        return error_oom(err);
    for (int64_t r = 0; r < f->choice.rank[0]; r++)
        for (int64_t s = 0; s < l->inputs; s++)
            for (int64_t k = 0; k < l->taps; k++)
                b[(r * l->taps + k) * n + s * l->taps + k] = f->part[0][r * l->inputs + s];
    e = lowrank_regress(in->stats, b, q, a, &gram, err);
    return e < 0 ? e
                 : lowrank_reduce(
                       l->outputs, q, f->choice.rank[1], a, gram, in->gain, f->part[2], f->part[1], err);
}

static int with_data(
    const struct lowrank_input *in, double *w, struct lowrank_factors *f, struct error *err) {
    const struct lowrank_layer *l = in->layer;
    _cleanup_(hooi_done) struct hooi h = {0};
    _cleanup_(freep) double *cov = linalg_new(l->inputs, l->inputs), *root = linalg_new(l->inputs, l->inputs),
                            *inverse = linalg_new(l->inputs, l->inputs),
                            *room = linalg_new(l->inputs, l->taps);
    int e;

    if (!cov || !root || !inverse || !room)
        return error_oom(err);
    channel_covariance(l, in->stats->cov, cov);
    e = linalg_roots(l->inputs, cov, FLOOR, root, inverse, err);
    if (e < 0)
        return e;
    whiten(l, root, w, room);
    e = hooi_init(&h, l, f->choice.rank, w, err);
    if (e == 0)
        e = hooi_run(&h, in->sweeps, err);
    if (e < 0)
        return e;
    linalg_multiply(h.a, h.s, h.s, h.v, false, inverse, false, f->part[0]);
    return fit(in, f, err);
}

int lowrank_tucker(const struct lowrank_input *in, struct lowrank_factors *f, struct error *err) {
    const struct lowrank_layer *l = in->layer;
    int64_t width = l->inputs * l->taps;
    _cleanup_(freep) double *w = linalg_new(l->outputs, width);
    _cleanup_(hooi_done) struct hooi h = {0};
    int e;

    if (!w)
        return error_oom(err);
    for (int64_t i = 0; i < l->outputs * width; i++)
        w[i] = in->w[i] * (in->gain ? in->gain[i / width] : 1);
    if (in->stats)
        return with_data(in, w, f, err);
    e = hooi_init(&h, l, f->choice.rank, w, err);
    if (e == 0)
        e = hooi_run(&h, in->sweeps, err);
    if (e < 0)
        return e;
    memcpy(f->part[0], h.v, (size_t)(h.a * h.s) * sizeof(double));
    hooi_core(&h, f->part[1]);
    for (int64_t t = 0; t < h.t; t++)
        for (int64_t b = 0; b < h.b; b++)
            f->part[2][t * h.b + b] = h.u[b * h.t + t] / (in->gain ? in->gain[t] : 1);
    return 0;
}
