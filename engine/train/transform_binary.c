/* Weights of one bit (BinaryConnect, BWN, XNOR) and of three values (TWN). */
#include <math.h>

#include "engine/train/transform_rows.h"

/* ---- sign ---- */

/* Sums, one a channel: |w| from forward, then dy sign(w). */
static int sign_prepare(
    const struct transform_site *site, const void *param, struct transform_needs *ret, struct error *err) {
    (void)param;
    (void)err;
    ret->n_sums = 2 * (size_t)site->channels;
    return 0;
}

/* Of channel c, or of all: the mean of what sums[] add up. */
static double mean_of(const struct transform_site *site, const double *sums, int64_t c, bool is_layer) {
    return is_layer ? transform_sum(sums, site->channels) / (double)site->n
                    : sums[c] / (double)(site->outer * site->inner);
}

/* splitmix64, uniform in [0, 1). */
static double draw(uint64_t seed, uint64_t step, uint64_t i) {
    uint64_t x = (seed * 0xd1342543de82ef95u ^ step) * 0xd1342543de82ef95u + i * 0x9e3779b97f4a7c15u;

    x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9u;
    x = (x ^ x >> 27) * 0x94d049bb133111ebu;
    return (double)((x ^ x >> 31) >> 11) * 0x1p-53;
}

static bool is_positive(const struct transform_io *io, int64_t i) {
    const struct transform_sign *p = io->param;

    if (p->rounding == TRANSFORM_STOCHASTIC && io->is_training)
        return draw(p->seed, io->step, (uint64_t)i) < ((double)io->x[i] + 1) / 2;
    return io->x[i] >= 0;
}

static void sum_magnitudes(const struct transform_io *io, double *sums, unsigned part) {
    const struct transform_site *site = io->site;
    int64_t c0 = transform_first_channel(site, part), c1 = transform_first_channel(site, part + 1);

    for (int64_t c = c0; c < c1; c++)
        sums[c] = 0;
    for (int64_t o = 0; o < site->outer; o++)
        for (int64_t c = c0; c < c1; c++) {
            int64_t first = transform_at(site, o, c);

            for (int64_t i = first; i < first + site->inner; i++)
                sums[c] += fabs((double)io->x[i]);
        }
}

static float magnitude_at(const struct transform_io *io, int64_t c) {
    const struct transform_sign *p = io->param;

    return p->magnitude == TRANSFORM_ONE
               ? 1
               : (float)mean_of(io->site, io->sums, c, p->magnitude == TRANSFORM_MEAN_LAYER);
}

static void sign_forward(const struct transform_io *io, int phase, unsigned part) {
    const struct transform_site *site = io->site;

    if (phase == 0) {
        sum_magnitudes(io, io->sums, part);
        return;
    }
    for (int64_t c = transform_first_channel(site, part); c < transform_first_channel(site, part + 1); c++) {
        float a = magnitude_at(io, c);

        for (int64_t o = 0; o < site->outer; o++) {
            int64_t first = transform_at(site, o, c);

            for (int64_t i = first; i < first + site->inner; i++)
                io->y[i] = is_positive(io, i) ? a : -a;
        }
    }
}

/* With b = ±1 as forward had it, seen = a b: dw = a g(w) dy + sign(w) / n sum(dy b). */
static void sign_backward(const struct transform_io *io, int phase, unsigned part) {
    const struct transform_sign *p = io->param;
    const struct transform_site *site = io->site;
    double *sums = io->sums + site->channels;

    for (int64_t c = transform_first_channel(site, part); c < transform_first_channel(site, part + 1); c++) {
        double through = phase == 1 && p->magnitude != TRANSFORM_ONE
                             ? mean_of(site, sums, c, p->magnitude == TRANSFORM_MEAN_LAYER)
                             : 0;
        float a = phase == 1 ? magnitude_at(io, c) : 0;

        if (phase == 0)
            sums[c] = 0;
        for (int64_t o = 0; o < site->outer; o++) {
            int64_t first = transform_at(site, o, c);

            for (int64_t i = first; i < first + site->inner; i++) {
                float dy = io->dy[i], w = io->x[i];

                if (phase == 0)
                    sums[c] += io->y[i] < 0 ? -(double)dy : (double)dy;
                else if (io->dx)
                    io->dx[i] =
                        a * transform_sign_slope(p->gradient, w) * dy + (float)(w < 0 ? -through : through);
            }
        }
    }
}

static void sign_confine(const struct transform_site *site, const void *param, float *x, float *const *own) {
    const struct transform_sign *p = param;

    (void)own;
    for (int64_t i = 0; p->magnitude == TRANSFORM_ONE && i < site->n; i++)
        x[i] = fminf(fmaxf(x[i], -1), 1);
}

const struct transform transform_sign_row = {
    .name = "sign",
    .stops_decay = true,
    .n_forward = 2,
    .n_backward = 2,
    .prepare = sign_prepare,
    .forward = sign_forward,
    .backward = sign_backward,
    .confine = sign_confine,
};

/* ---- ternary ---- */

/* A channel each: sum of |w|; sum of the |w| above the threshold; how many they are. */
static int ternary_prepare(
    const struct transform_site *site, const void *param, struct transform_needs *ret, struct error *err) {
    (void)param;
    (void)err;
    ret->n_sums = 3 * (size_t)site->channels;
    return 0;
}

static float threshold_at(const struct transform_io *io, int64_t c) {
    const struct transform_ternary *p = io->param;

    return (float)(0.7 * mean_of(io->site, io->sums, c, p->range == TRANSFORM_LAYER));
}

static void sum_above(const struct transform_io *io, unsigned part) {
    const struct transform_site *site = io->site;
    double *sum = io->sums + site->channels, *count = sum + site->channels;

    for (int64_t c = transform_first_channel(site, part); c < transform_first_channel(site, part + 1); c++) {
        float t = threshold_at(io, c);

        sum[c] = count[c] = 0;
        for (int64_t o = 0; o < site->outer; o++) {
            int64_t first = transform_at(site, o, c);

            for (int64_t i = first; i < first + site->inner; i++) {
                bool is_above = fabsf(io->x[i]) > t;

                sum[c] += is_above ? fabs((double)io->x[i]) : 0;
                count[c] += is_above;
            }
        }
    }
}

static void ternary_forward(const struct transform_io *io, int phase, unsigned part) {
    const struct transform_ternary *p = io->param;
    const struct transform_site *site = io->site;
    const double *sum = io->sums + site->channels, *count = sum + site->channels;
    bool is_layer = p->range == TRANSFORM_LAYER;

    if (phase == 0)
        sum_magnitudes(io, io->sums, part);
    if (phase == 1)
        sum_above(io, part);
    if (phase < 2)
        return;
    for (int64_t c = transform_first_channel(site, part); c < transform_first_channel(site, part + 1); c++) {
        double n = is_layer ? transform_sum(count, site->channels) : count[c];
        double all = is_layer ? transform_sum(sum, site->channels) : sum[c];
        float t = threshold_at(io, c), a = n > 0 ? (float)(all / n) : 0;

        for (int64_t o = 0; o < site->outer; o++) {
            int64_t first = transform_at(site, o, c);

            for (int64_t i = first; i < first + site->inner; i++)
                io->y[i] = io->x[i] > t ? a : io->x[i] < -t ? -a : 0;
        }
    }
}

static void ternary_backward(const struct transform_io *io, int phase, unsigned part) {
    (void)phase;
    if (io->dx)
        transform_copy_part(io->site, part, io->dy, io->dx);
}

const struct transform transform_ternary_row = {
    .name = "ternary",
    .n_forward = 3,
    .n_backward = 1,
    .prepare = ternary_prepare,
    .forward = ternary_forward,
    .backward = ternary_backward,
};
