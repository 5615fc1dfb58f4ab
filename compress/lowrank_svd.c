/* svd and channel: w[T][n] = u[T][r] v[r][n]. The outputs are projected on the r directions in which they
 * vary most: of the weights, u are left singular vectors; of samples, eigenvectors of the outputs' covariance
 * (Zhang et al. 2015, Accelerating very deep convolutional networks for classification and detection,
 * section 3.1), fitted to the inputs as the layers before have left them (there, section 3.3, asymmetric
 * reconstruction). */
#include <errno.h>
#include <math.h>
#include <string.h>

#include "base/cleanup.h"
#include "compress/linalg.h"
#include "compress/lowrank.h"

/* Column of u and row of v get the same norm: neither learns or rounds worse than the other. */
static void balance(int64_t outputs, int64_t r, int64_t n, double *u, double *v) {
    for (int64_t k = 0; k < r; k++) {
        double a = 0, b = 0, f;

        for (int64_t t = 0; t < outputs; t++)
            a += u[t * r + k] * u[t * r + k];
        for (int64_t i = 0; i < n; i++)
            b += v[k * n + i] * v[k * n + i];
        f = a > 0 && b > 0 ? pow(b / a, 0.25) : 1;
        for (int64_t t = 0; t < outputs; t++)
            u[t * r + k] *= f;
        for (int64_t i = 0; i < n; i++)
            v[k * n + i] /= f;
    }
}

int lowrank_svd(const struct lowrank_input *in, struct lowrank_factors *f, struct error *err) {
    const struct lowrank_layer *l = in->layer;
    const struct lowrank_stats *s = in->stats;
    int64_t n = l->inputs * l->taps, r = f->choice.rank[0];
    _cleanup_(freep) double *a = NULL, *gram = NULL;
    int e = 0;

    if (s && s->cov) {
        a = linalg_new(l->outputs, n);
        e = a ? lowrank_regress(s, NULL, n, a, &gram, err) : error_oom(err);
    }
    if (e == 0 && s && !s->cov)
        e = lowrank_reduce_outputs(
            l->outputs, n, r, in->w, s->cov_out, in->gain, f->part[1], f->part[0], err);
    else if (e == 0)
        e = lowrank_reduce(l->outputs, n, r, a ? a : in->w, gram, in->gain, f->part[1], f->part[0], err);
    if (e == 0)
        balance(l->outputs, r, n, f->part[1], f->part[0]);
    return e;
}
