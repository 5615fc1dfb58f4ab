/* spatial: w[t][s][i][j] = sum over r of u[t][r][j] v[r][s][i], which is one matrix [(t,j)][(s,i)] of rank r,
 * cut by its singular values (Jaderberg, Vedaldi and Zisserman 2014, Speeding up convolutional neural
 * networks with low rank expansions, scheme 2).
 *
 * With samples the columns' inputs (s,i) are whitened by their covariance, the same for all j, before the
 * cut; then u is the least-squares fit to the outputs, given what v makes of the inputs. */
#include <errno.h>
#include <math.h>
#include <string.h>

#include "base/cleanup.h"
#include "compress/linalg.h"
#include "compress/lowrank.h"

#define FLOOR 1e-6 /* of the covariance's eigenvalues, of the largest */

struct spatial {
    const struct lowrank_layer *l;
    int64_t kh, kw, tall, wide; /* tall: inputs x kh, wide: outputs x kw */
};

/* ret[(s,i)][(t,j)] = gain[t] w[t][s][i][j] */
static void unfold(const struct spatial *p, const double *w, const double *gain, double *ret) {
    for (int64_t t = 0; t < p->l->outputs; t++)
        for (int64_t i = 0; i < p->tall; i++)
            for (int64_t j = 0; j < p->kw; j++)
                ret[i * p->wide + t * p->kw + j] = w[(t * p->tall + i) * p->kw + j] * (gain ? gain[t] : 1);
}

/* Mean over j of the covariance of a column's inputs: ret[tall][tall]. */
static void column_covariance(const struct spatial *p, const double *cov, double *ret) {
    int64_t n = p->tall * p->kw;

    for (int64_t a = 0; a < p->tall; a++)
        for (int64_t b = 0; b < p->tall; b++) {
            double sum = 0;

            for (int64_t j = 0; j < p->kw; j++)
                sum += cov[(a * p->kw + j) * n + b * p->kw + j];
            ret[a * p->tall + b] = sum / (double)p->kw;
        }
}

/* The cut: v[r][tall] and u[t][r][j] from m[tall][wide]; the roots of the singular values go to both sides.
 */
static int cut(const struct spatial *p, double *m, const double *gain, int64_t rank, double *v, double *u,
    struct error *err) {
    int64_t k = p->tall < p->wide ? p->tall : p->wide;
    _cleanup_(freep) double *left = linalg_new(p->tall, k), *s = linalg_new(k, 1),
                            *right = linalg_new(k, p->wide);
    int e = left && s && right ? linalg_svd(p->tall, p->wide, m, left, s, right, err) : error_oom(err);

    for (int64_t r = 0; e == 0 && r < rank; r++) {
        double root = sqrt(s[r]);

        for (int64_t i = 0; i < p->tall; i++)
            v[r * p->tall + i] = root * left[i * k + r];
        for (int64_t i = 0; i < p->wide; i++) {
            int64_t t = i / p->kw;

            u[(t * rank + r) * p->kw + i % p->kw] = root * right[r * p->wide + i] / (gain ? gain[t] : 1);
        }
    }
    return e;
}

/* u fitted to samples. Features: (r, j) of v over column j. */
static int fit(const struct spatial *p, const struct lowrank_stats *s, int64_t rank, const double *v,
    double *u, struct error *err) {
    int64_t n = p->tall * p->kw, q = rank * p->kw;
    _cleanup_(freep) double *b = linalg_new(q, n);

    if (!b)
        return error_oom(err);
    for (int64_t r = 0; r < rank; r++)
        for (int64_t i = 0; i < p->tall; i++)
            for (int64_t j = 0; j < p->kw; j++)
                b[(r * p->kw + j) * n + i * p->kw + j] = v[r * p->tall + i];
    return lowrank_regress(s, b, q, u, NULL, err);
}

int lowrank_spatial(const struct lowrank_input *in, struct lowrank_factors *f, struct error *err) {
    const struct lowrank_layer *l = in->layer;
    struct spatial p = {l, l->kernel[0], l->kernel[1], l->inputs * l->kernel[0], l->outputs * l->kernel[1]};
    int64_t rank = f->choice.rank[0];
    _cleanup_(freep) double *m = linalg_new(p.tall, p.wide), *cov = NULL, *root = NULL, *inverse = NULL,
                            *white = NULL;
    int e;

    if (!m)
        return error_oom(err);
    unfold(&p, in->w, in->gain, m);
    if (!in->stats)
        return cut(&p, m, in->gain, rank, f->part[0], f->part[1], err);
    cov = linalg_new(p.tall, p.tall);
    root = linalg_new(p.tall, p.tall);
    inverse = linalg_new(p.tall, p.tall);
    white = linalg_new(p.tall, p.wide);
    if (!cov || !root || !inverse || !white)
        return error_oom(err);
    column_covariance(&p, in->stats->cov, cov);
    e = linalg_roots(p.tall, cov, FLOOR, root, inverse, err);
    if (e < 0)
        return e;
    linalg_multiply(p.tall, p.wide, p.tall, root, false, m, false, white);
    e = cut(&p, white, in->gain, rank, m, f->part[1], err); /* m: v of white inputs */
    if (e < 0)
        return e;
    linalg_multiply(rank, p.tall, p.tall, m, false, inverse, false, f->part[0]);
    return fit(&p, in->stats, rank, f->part[0], f->part[1], err);
}
