/* Activations of few bits: y = f(x), elementwise, with its straight-through gradient. */
#include <errno.h>
#include <math.h>

#include "engine/train/transform_rows.h"

#define SCALE_MIN 1e-8f

static float clamp(float v, float low, float high) {
    return fminf(fmaxf(v, low), high);
}

static void put(float *dx, int64_t i, float v, bool adds) {
    if (dx)
        dx[i] = adds ? dx[i] + v : v;
}

static int check_range(float scale, int low, int high, struct error *err) {
    if (!(scale > 0) || !isfinite(scale) || low >= high || low < -128 || high > 255)
        return error_set(
            err, -EINVAL, "an activation cannot have scale %g and codes %d to %d", (double)scale, low, high);
    return 0;
}

/* ---- clip_quantize ---- */

static int clip_prepare(const void *param, float *ret_own, struct error *err) {
    const struct activation_clip_quantize *p = param;

    *ret_own = NAN;
    return check_range(p->scale, p->low, p->high, err);
}

static void clip_forward(const void *param, float own, const float *x, int64_t n, float *y) {
    const struct activation_clip_quantize *p = param;
    float low = (float)(p->low - p->zero), high = (float)(p->high - p->zero);

    (void)own;
    for (int64_t i = 0; i < n; i++)
        y[i] = p->scale * clamp(rintf(x[i] / p->scale), low, high);
}

static double clip_backward(const void *param, float own, const float *x, const float *dy, int64_t n,
    int64_t features, float *dx, bool adds) {
    const struct activation_clip_quantize *p = param;
    float low = (float)(p->low - p->zero), high = (float)(p->high - p->zero);

    (void)own;
    (void)features;
    for (int64_t i = 0; i < n; i++) {
        float v = x[i] / p->scale;

        put(dx, i, v >= low && v <= high ? dy[i] : 0, adds);
    }
    return 0;
}

const struct activation activation_clip_quantize_row = {
    .name = "clip_quantize",
    .prepare = clip_prepare,
    .forward = clip_forward,
    .backward = clip_backward,
};

/* ---- lsq ---- */

static int lsq_prepare(const void *param, float *ret_own, struct error *err) {
    const struct activation_lsq *p = param;

    *ret_own = p->scale;
    return p->high < 1 ? error_set(err, -EINVAL, "an activation's highest code is %d", p->high)
                       : check_range(p->scale, p->low, p->high, err);
}

static void lsq_forward(const void *param, float own, const float *x, int64_t n, float *y) {
    const struct activation_lsq *p = param;
    float s = fmaxf(own, SCALE_MIN), low = (float)p->low, high = (float)p->high;

    for (int64_t i = 0; i < n; i++)
        y[i] = s * clamp(rintf(x[i] / s), low, high);
}

static double lsq_backward(const void *param, float own, const float *x, const float *dy, int64_t n,
    int64_t features, float *dx, bool adds) {
    const struct activation_lsq *p = param;
    float s = fmaxf(own, SCALE_MIN), low = (float)p->low, high = (float)p->high;
    double sum = 0;

    for (int64_t i = 0; i < n; i++) {
        float v = x[i] / s;
        bool is_inside = v >= low && v <= high;

        sum += (double)dy[i] * (double)(is_inside ? rintf(v) - v : v < low ? low : high);
        put(dx, i, is_inside ? dy[i] : 0, adds);
    }
    return sum / sqrt((double)features * (double)high);
}

const struct activation activation_lsq_row = {
    .name = "lsq",
    .prepare = lsq_prepare,
    .forward = lsq_forward,
    .backward = lsq_backward,
};

/* ---- pact ---- */

static int pact_prepare(const void *param, float *ret_own, struct error *err) {
    const struct activation_pact *p = param;

    *ret_own = p->bound;
    if (p->bits < 1 || p->bits > 8 || !(p->bound > 0) || !isfinite(p->bound))
        return error_set(
            err, -EINVAL, "an activation cannot have %d bits up to %g", p->bits, (double)p->bound);
    return 0;
}

static void pact_forward(const void *param, float own, const float *x, int64_t n, float *y) {
    const struct activation_pact *p = param;
    float a = fmaxf(own, SCALE_MIN), s = a / (float)((1 << p->bits) - 1);

    for (int64_t i = 0; i < n; i++)
        y[i] = s * rintf(clamp(x[i], 0, a) / s);
}

static double pact_backward(const void *param, float own, const float *x, const float *dy, int64_t n,
    int64_t features, float *dx, bool adds) {
    float a = fmaxf(own, SCALE_MIN);
    double sum = 0;

    (void)param;
    (void)features;
    for (int64_t i = 0; i < n; i++) {
        bool is_above = x[i] >= a;

        sum += is_above ? (double)dy[i] : 0;
        put(dx, i, x[i] >= 0 && !is_above ? dy[i] : 0, adds);
    }
    return sum;
}

const struct activation activation_pact_row = {
    .name = "pact",
    .prepare = pact_prepare,
    .forward = pact_forward,
    .backward = pact_backward,
};

/* ---- sign ---- */

static int sign_prepare(const void *param, float *ret_own, struct error *err) {
    (void)param;
    (void)err;
    *ret_own = NAN;
    return 0;
}

static void sign_forward(const void *param, float own, const float *x, int64_t n, float *y) {
    (void)param;
    (void)own;
    for (int64_t i = 0; i < n; i++)
        y[i] = x[i] >= 0 ? 1 : -1;
}

static double sign_backward(const void *param, float own, const float *x, const float *dy, int64_t n,
    int64_t features, float *dx, bool adds) {
    const struct activation_sign *p = param;

    (void)own;
    (void)features;
    for (int64_t i = 0; i < n; i++)
        put(dx, i, transform_sign_slope(p->gradient, x[i]) * dy[i], adds);
    return 0;
}

const struct activation activation_sign_row = {
    .name = "sign",
    .prepare = sign_prepare,
    .forward = sign_forward,
    .backward = sign_backward,
};
