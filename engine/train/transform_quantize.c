/* seen = s clip(round(w / s), -q, q); a learned scale by LSQ (Esser 2020). */
#include <errno.h>
#include <math.h>

#include "engine/train/transform_rows.h"

#define SCALE_MIN 1e-8f

static float most_of(const struct transform_fake_quantize *p) {
    return (float)((1 << (p->bits - 1)) - 1);
}

static int64_t n_scales(const struct transform_site *site, const struct transform_fake_quantize *p) {
    return p->range == TRANSFORM_CHANNEL ? site->channels : 1;
}

static int quantize_prepare(
    const struct transform_site *site, const void *param, struct transform_needs *ret, struct error *err) {
    const struct transform_fake_quantize *p = param;

    if (p->bits < 2 || p->bits > 8)
        return error_set(err, -EINVAL, "parameter '%s': %d bits are not 2 to 8", site->name, p->bits);
    if (!p->scale && !p->learns_scale)
        return error_set(err, -EINVAL, "parameter '%s': a scale is missing", site->name);
    for (int64_t i = 0; p->scale && i < n_scales(site, p); i++)
        if (!(p->scale[i] > 0) || !isfinite(p->scale[i]))
            return error_set(err, -EINVAL, "parameter '%s': scale %lld is %g", site->name, (long long)i,
                (double)p->scale[i]);
    if (!p->learns_scale)
        return 0;
    ret->n_own = 1;
    ret->own[0].name = "scale";
    ret->own[0].n = n_scales(site, p);
    ret->n_sums = (size_t)site->channels;
    return 0;
}

/* 2 mean |w| / sqrt(q) (Esser 2020, 2.1) of each range, unless scales are given. */
static void quantize_start(const struct transform_site *site, const void *param, float *const *own) {
    const struct transform_fake_quantize *p = param;
    int64_t n = p->learns_scale ? n_scales(site, p) : 0;

    for (int64_t i = 0; i < n; i++) {
        double sum = 0;

        for (int64_t k = 0; k < site->n; k++)
            if (n == 1 || k / site->inner % site->channels == i)
                sum += fabs((double)site->data[k]);
        own[0][i] =
            p->scale
                ? p->scale[i]
                : fmaxf((float)(2 * sum * (double)n / (double)site->n / sqrt((double)most_of(p))), SCALE_MIN);
    }
}

static float scale_at(const struct transform_io *io, int64_t c) {
    const struct transform_fake_quantize *p = io->param;
    const float *scale = p->learns_scale ? io->own[0] : p->scale;

    return scale[p->range == TRANSFORM_CHANNEL ? c : 0];
}

static void quantize_forward(const struct transform_io *io, int phase, unsigned part) {
    const struct transform_site *site = io->site;
    float most = most_of(io->param);

    (void)phase;
    for (int64_t o = 0; o < site->outer; o++)
        for (int64_t c = transform_first_channel(site, part); c < transform_first_channel(site, part + 1);
             c++) {
            int64_t first = transform_at(site, o, c);
            float s = scale_at(io, c);

            for (int64_t i = first; i < first + site->inner; i++)
                io->y[i] = s * fminf(fmaxf(rintf(io->x[i] / s), -most), most);
        }
}

/* dw = dy inside, and the sum of what dy is worth to the scale. */
static double run_backward(const struct transform_io *io, int64_t first, float s, float most) {
    double sum = 0;

    for (int64_t i = first; i < first + io->site->inner; i++) {
        float v = io->x[i] / s, dy = io->dy[i];
        bool is_inside = fabsf(v) <= most;

        sum += (double)dy * (double)(is_inside ? rintf(v) - v : v > 0 ? most : -most);
        if (io->dx)
            io->dx[i] = is_inside ? dy : 0;
    }
    return sum;
}

static void quantize_backward(const struct transform_io *io, int phase, unsigned part) {
    const struct transform_fake_quantize *p = io->param;
    const struct transform_site *site = io->site;
    int64_t n = n_scales(site, p), c0 = transform_first_channel(site, part),
            c1 = transform_first_channel(site, part + 1);
    float most = most_of(p);

    if (phase == 1) {
        double g = 1 / sqrt((double)(site->n / n) * (double)most);

        for (int64_t i = 0; part == 0 && p->learns_scale && i < n; i++)
            io->d_own[0][i] = (float)(g * (n == 1 ? transform_sum(io->sums, site->channels) : io->sums[i]));
        return;
    }
    for (int64_t c = c0; p->learns_scale && c < c1; c++)
        io->sums[c] = 0;
    for (int64_t o = 0; o < site->outer; o++)
        for (int64_t c = c0; c < c1; c++) {
            double sum = run_backward(io, transform_at(site, o, c), scale_at(io, c), most);

            if (p->learns_scale)
                io->sums[c] += sum;
        }
}

static void quantize_confine(
    const struct transform_site *site, const void *param, float *x, float *const *own) {
    const struct transform_fake_quantize *p = param;

    (void)x;
    for (int64_t i = 0; p->learns_scale && i < n_scales(site, p); i++)
        own[0][i] = fmaxf(own[0][i], SCALE_MIN);
}

const struct transform transform_fake_quantize_row = {
    .name = "fake_quantize",
    .n_forward = 1,
    .n_backward = 2,
    .prepare = quantize_prepare,
    .start = quantize_start,
    .forward = quantize_forward,
    .backward = quantize_backward,
    .confine = quantize_confine,
};
