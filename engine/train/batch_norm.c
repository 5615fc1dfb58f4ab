/* BatchNormalization (Ioffe and Szegedy 2015): with the statistics of the minibatch, over all lanes, or with
 * the running ones. Backward of the first, with N elements a channel and xh = (x - mean) / deviation:
 *
 *   dx = gamma / deviation (dy - (sum of dy + xh sum of dy xh) / N)                     (their section 3)  */
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "engine/ops/norm.h"
#include "engine/train/rows.h"

#define BLOCK 64 /* rows summed in floats before they go into doubles */

struct train_state {
    int64_t rows, c; /* of a lane: pixels, channels */
    unsigned n_lanes;
    float epsilon, momentum;
    bool uses_batch_stats;
};

static bool batch_norm_fits(const struct train_layer *l) {
    return l->in[0]->dtype == DT_F32 && l->in[0]->shape.rank >= 2 && train_count(&l->in[0]->shape) > 0;
}

/* Two sums a channel, of each lane and, for backward, once more; then mean and 1 / deviation of a lane's own
 * copy. */
static int batch_norm_prepare(
    const struct train_layer *l, struct train_state **ret, struct train_needs *needs, struct error *err) {
    const struct batch_norm_param *p = l->node->param;
    struct train_state *s = calloc(1, sizeof(*s));

    if (!s)
        return error_oom(err);
    s->c = l->in[0]->shape.dim[1];
    s->rows = train_count(&l->in[0]->shape) / s->c;
    s->n_lanes = l->n_lanes;
    s->epsilon = p->epsilon;
    s->momentum = l->momentum;
    s->uses_batch_stats = l->uses_batch_stats;
    needs->shared = (size_t)s->c * 4 * l->n_lanes * sizeof(double);
    needs->saved = (size_t)s->c * 2 * sizeof(float);
    needs->scratch = (size_t)s->c * 4 * sizeof(float);
    *ret = s;
    return 0;
}

static struct train_state *batch_norm_done(struct train_state *s) {
    free(s);
    return NULL;
}

static double *sums_of(
    const struct train_state *s, const struct train_io *io, unsigned lane, bool is_backward) {
    return (double *)io->shared + ((size_t)is_backward * s->n_lanes + lane) * 2 * (size_t)s->c;
}

static void flush(const float *block, double *sum, int64_t n) {
    for (int64_t c = 0; c < n; c++)
        sum[c] += (double)block[c];
}

/* Sums of x and of x², in blocks. */
static void sum_forward(const struct train_state *s, const struct train_io *io) {
    double *sum = sums_of(s, io, io->lane, false);
    float *a = io->scratch, *b = a + s->c;
    const float *x = io->in[0];

    memset(sum, 0, (size_t)s->c * 2 * sizeof(*sum));
    for (int64_t r0 = 0; r0 < s->rows; r0 += BLOCK) {
        memset(a, 0, (size_t)s->c * 2 * sizeof(*a));
        for (int64_t r = r0; r < s->rows && r < r0 + BLOCK; r++, x += s->c)
            for (int64_t c = 0; c < s->c; c++) {
                a[c] += x[c];
                b[c] += x[c] * x[c];
            }
        flush(a, sum, 2 * s->c);
    }
}

/* Mean and 1 / deviation, the same in every lane. */
static void find_stats(const struct train_state *s, const struct train_io *io) {
    float *mean = io->saved, *inverse = mean + s->c;
    double n = (double)s->rows * s->n_lanes;

    for (int64_t c = 0; c < s->c; c++) {
        double sum = 0, square = 0, m, v;

        if (!s->uses_batch_stats) {
            mean[c] = ((const float *)io->in[3])[c];
            inverse[c] = 1 / sqrtf(((const float *)io->in[4])[c] + s->epsilon);
            continue;
        }
        for (unsigned lane = 0; lane < s->n_lanes; lane++) {
            sum += sums_of(s, io, lane, false)[c];
            square += sums_of(s, io, lane, false)[s->c + c];
        }
        m = sum / n;
        v = fmax(0, square / n - m * m);
        mean[c] = (float)m;
        inverse[c] = (float)(1 / sqrt(v + (double)s->epsilon));
        if (io->lane == 0 && io->stats[3] && io->stats[4]) { /* the running variance is the unbiased one */
            float *running_mean = io->stats[3], *running_var = io->stats[4];

            running_mean[c] = s->momentum * running_mean[c] + (1 - s->momentum) * (float)m;
            running_var[c] =
                s->momentum * running_var[c] + (1 - s->momentum) * (float)(n > 1 ? v * n / (n - 1) : v);
        }
    }
}

static void normalise(const struct train_state *s, const struct train_io *io) {
    const float *mean = io->saved, *inverse = mean + s->c, *gamma = io->in[1], *beta = io->in[2];
    float *scale = io->scratch, *shift = scale + s->c, *y = io->out[0];
    const float *x = io->in[0];

    for (int64_t c = 0; c < s->c; c++) {
        scale[c] = gamma[c] * inverse[c];
        shift[c] = beta[c] - mean[c] * scale[c];
    }
    for (int64_t r = 0; r < s->rows; r++, x += s->c, y += s->c)
        for (int64_t c = 0; c < s->c; c++)
            y[c] = x[c] * scale[c] + shift[c];
}

static void batch_norm_forward(const struct train_state *s, const struct train_io *io, int phase) {
    if (phase == 0) {
        if (s->uses_batch_stats)
            sum_forward(s, io);
        return;
    }
    find_stats(s, io);
    normalise(s, io);
}

/* Sums of dy and of dy xh: the lane's gradients of beta and gamma. */
static void sum_backward(const struct train_state *s, const struct train_io *io) {
    const float *mean = io->saved, *inverse = mean + s->c, *x = io->in[0], *dy = io->d_out[0];
    double *sum = sums_of(s, io, io->lane, true);
    float *a = io->scratch, *b = a + s->c;

    memset(sum, 0, (size_t)s->c * 2 * sizeof(*sum));
    for (int64_t r0 = 0; r0 < s->rows; r0 += BLOCK) {
        memset(a, 0, (size_t)s->c * 2 * sizeof(*a));
        for (int64_t r = r0; r < s->rows && r < r0 + BLOCK; r++, x += s->c, dy += s->c)
            for (int64_t c = 0; c < s->c; c++) {
                a[c] += dy[c];
                b[c] += dy[c] * (x[c] - mean[c]) * inverse[c];
            }
        flush(a, sum, 2 * s->c);
    }
    for (int64_t c = 0; c < s->c; c++) {
        float *d_gamma = io->d_in[1], *d_beta = io->d_in[2];

        if (d_gamma)
            d_gamma[c] = (io->adds[1] ? d_gamma[c] : 0) + (float)sum[s->c + c];
        if (d_beta)
            d_beta[c] = (io->adds[2] ? d_beta[c] : 0) + (float)sum[c];
    }
}

/* dx = k dy + a x + b, a line a channel. */
static void spread(const struct train_state *s, const struct train_io *io) {
    const float *mean = io->saved, *inverse = mean + s->c, *gamma = io->in[1], *x = io->in[0];
    const float *dy = io->d_out[0];
    float *k = io->scratch, *a = k + s->c, *b = a + s->c, *dx = io->d_in[0];
    double n = (double)s->rows * s->n_lanes;

    for (int64_t c = 0; c < s->c; c++) {
        double sum = 0, product = 0, slope;

        for (unsigned lane = 0; s->uses_batch_stats && lane < s->n_lanes; lane++) {
            sum += sums_of(s, io, lane, true)[c];
            product += sums_of(s, io, lane, true)[s->c + c];
        }
        k[c] = gamma[c] * inverse[c];
        slope = -(double)k[c] * product / n * (double)inverse[c];
        a[c] = (float)slope;
        b[c] = (float)(-(double)k[c] * sum / n - slope * (double)mean[c]);
    }
    if (!io->adds[0])
        for (int64_t r = 0; r < s->rows; r++, x += s->c, dy += s->c, dx += s->c)
            for (int64_t c = 0; c < s->c; c++)
                dx[c] = k[c] * dy[c] + (a[c] * x[c] + b[c]);
    else
        for (int64_t r = 0; r < s->rows; r++, x += s->c, dy += s->c, dx += s->c)
            for (int64_t c = 0; c < s->c; c++)
                dx[c] += k[c] * dy[c] + (a[c] * x[c] + b[c]);
}

static void batch_norm_backward(const struct train_state *s, const struct train_io *io, int phase) {
    if (phase == 0)
        sum_backward(s, io);
    else if (io->d_in[0])
        spread(s, io);
}

const struct train_kernel train_batch_norm = {
    .name = "batch_norm",
    .op_types = (const char *const[]){"BatchNormalization", NULL},
    .fits = batch_norm_fits,
    .prepare = batch_norm_prepare,
    .n_forward = 2,
    .n_backward = 2,
    .forward = batch_norm_forward,
    .backward = batch_norm_backward,
    .done = batch_norm_done,
    .saves_in = true,
};
