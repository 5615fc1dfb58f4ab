/* BatchNormalization (Ioffe and Szegedy 2015), and in the same passes what stands behind it: an addition, a
 * clamp. With the statistics of the minibatch, over all lanes, or with the running ones. Backward of the
 * first, with N elements a channel and xh = (x - mean) / deviation:
 *
 *   dx = gamma / deviation (dy - (sum of dy + xh sum of dy xh) / N)                     (their section 3)  */
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "engine/ops/norm.h"
#include "engine/train/norm_rows.h"
#include "engine/train/rows.h"

struct train_state {
    int64_t rows, c; /* of a lane: pixels, channels */
    unsigned n_lanes;
    float epsilon, momentum;
    bool uses_batch_stats;
    struct train_tail tail;
    const struct norm_rows *passes;
};

static bool batch_norm_fits(const struct train_layer *l) {
    enum dtype t = l->in[0]->dtype;

    if (l->out[0].dtype != t || (l->tail.residual >= 0 && l->in[l->tail.residual]->dtype != t))
        return false;
    return (t == DT_F32 || t == DT_BF16) && l->in[0]->shape.rank >= 2 && train_count(&l->in[0]->shape) > 0;
}

static bool is_clamped(const struct train_tail *t) {
    return isfinite(t->low) || isfinite(t->high);
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
    s->tail = l->tail;
    s->passes = norm_rows_for(l->cpu, l->in[0]->dtype == DT_BF16);
    needs->shared = (size_t)s->c * 4 * l->n_lanes * sizeof(double);
    needs->saved = (size_t)s->c * 2 * sizeof(float);
    needs->scratch = (size_t)s->c * 5 * sizeof(float);
    needs->saves_out =
        l->tail.residual >= 0 && is_clamped(&l->tail); /* without, x tells what was let through */
    needs->in_place = l->tail.residual >= 0 ? l->tail.residual : 0;
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

/* y = scale x + shift: the same bits forward and backward. */
static void find_lines(const struct train_state *s, const struct train_io *io, float *scale, float *shift) {
    const float *mean = io->saved, *inverse = mean + s->c, *gamma = io->in[1], *beta = io->in[2];

    for (int64_t c = 0; c < s->c; c++) {
        scale[c] = gamma[c] * inverse[c];
        shift[c] = beta[c] - mean[c] * scale[c];
    }
}

static void batch_norm_forward(const struct train_state *s, const struct train_io *io, int phase) {
    float *scale = io->scratch, *shift = scale + s->c;
    double *sum = sums_of(s, io, io->lane, false);
    struct norm_forward f = {.rows = s->rows,
        .c = s->c,
        .x = io->in[0],
        .scale = scale,
        .shift = shift,
        .residual = s->tail.residual >= 0 ? io->in[s->tail.residual] : NULL,
        .low = s->tail.low,
        .high = s->tail.high,
        .y = io->out[0]};

    if (phase > 0) {
        find_stats(s, io);
        find_lines(s, io, scale, shift);
        s->passes->apply(&f);
    } else if (s->uses_batch_stats) {
        memset(sum, 0, (size_t)s->c * 2 * sizeof(*sum));
        s->passes->sum(&f, sum);
    }
}

/* Of one lane. sum: of dz and of dz xh. */
static void give_lines(const struct train_state *s, const struct train_io *io, const double *sum) {
    float *d_gamma = io->d_in[1], *d_beta = io->d_in[2];

    for (int64_t c = 0; c < s->c; c++) {
        if (d_gamma)
            d_gamma[c] = (io->adds[1] ? d_gamma[c] : 0) + (float)sum[s->c + c];
        if (d_beta)
            d_beta[c] = (io->adds[2] ? d_beta[c] : 0) + (float)sum[c];
    }
}

/* dx = k dz + a x + b, a line a channel. */
static void find_spread(
    const struct train_state *s, const struct train_io *io, float *k, float *a, float *b) {
    const float *mean = io->saved, *inverse = mean + s->c, *gamma = io->in[1];
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
}

/* The residual's gradient is dz itself: the first pass writes it there, unless a sum is there already. The
 * second then reads it instead of dy. */
static void batch_norm_backward(const struct train_state *s, const struct train_io *io, int phase) {
    const float *mean = io->saved, *inverse = mean + s->c;
    float *scale = io->scratch, *shift = scale + s->c, *k = shift + s->c, *a = k + s->c, *b = a + s->c;
    double *sum = sums_of(s, io, io->lane, true);
    float *residual = s->tail.residual >= 0 ? io->d_in[s->tail.residual] : NULL;
    bool writes_dz = residual && !io->adds[s->tail.residual];
    struct norm_backward f = {.rows = s->rows,
        .c = s->c,
        .x = io->in[0],
        .y = s->tail.residual >= 0 ? io->out[0] : NULL,
        .dy = io->d_out[0],
        .scale = scale,
        .shift = shift,
        .low = s->tail.low,
        .high = s->tail.high,
        .mean = mean};

    find_lines(s, io, scale, shift);
    if (phase == 0) {
        f.dz = writes_dz ? residual : NULL;
        memset(sum, 0, (size_t)s->c * 2 * sizeof(*sum));
        s->passes->sum_back(&f, sum);
        for (int64_t c = 0; c < s->c; c++)
            sum[s->c + c] *= (double)inverse[c];
        give_lines(s, io, sum);
        return;
    }
    if (writes_dz) {
        f.dy = residual;
        f.low = -HUGE_VALF;
        f.high = HUGE_VALF;
    }
    find_spread(s, io, k, a, b);
    f.k = k;
    f.a = a;
    f.b = b;
    f.dx = io->d_in[0];
    f.adds = io->adds[0];
    f.residual = writes_dz ? NULL : residual;
    if (f.dx || f.residual)
        s->passes->spread(&f);
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
    .is_in_place = true,
    .takes_tail = true,
};
