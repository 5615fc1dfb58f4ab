/* Which input elements an output element of a Resize is made of, one dimension at a time. */
#include <math.h>

#include "engine/ops/resize.h"

bool resize_is_plain(const struct resize_param *p) {
    return p->mode != RESIZE_CUBIC && p->coordinate != COORD_CROP && !p->is_antialias && !p->excludes_outside;
}

float resize_source(const struct resize_param *p, int64_t i, float scale, int64_t in, int64_t out) {
    switch (p->coordinate) {
    case COORD_ASYMMETRIC: return (float)i / scale;
    case COORD_ALIGN_CORNERS: return out > 1 ? (float)i * (float)(in - 1) / (float)(out - 1) : 0;
    case COORD_PYTORCH_HALF_PIXEL: return out > 1 ? ((float)i + 0.5f) / scale - 0.5f : 0;
    case COORD_HALF_PIXEL_SYMMETRIC: { /* what rounding the size down took is taken from both ends */
        float rounded = (float)out / (scale * (float)in);

        return (float)in / 2 * (1 - rounded) + ((float)i + 0.5f) / scale - 0.5f;
    }
    case COORD_CROP:
    case COORD_HALF_PIXEL:
    default: return ((float)i + 0.5f) / scale - 0.5f;
    }
}

static int64_t clamp(int64_t k, int64_t in) {
    return k < 0 ? 0 : k >= in ? in - 1 : k;
}

static int64_t round_source(const struct resize_param *p, float x, int64_t in) {
    float f = floorf(x);

    switch (p->round) {
    case ROUND_FLOOR: return clamp((int64_t)f, in);
    case ROUND_CEIL: return clamp((int64_t)ceilf(x), in);
    case ROUND_PREFER_CEIL: return clamp((int64_t)floorf(x + 0.5f), in);
    case ROUND_PREFER_FLOOR:
    default: return clamp(x == f + 0.5f ? (int64_t)f : (int64_t)roundf(x), in);
    }
}

int64_t resize_nearest(const struct resize_param *p, int64_t i, float scale, int64_t in, int64_t out) {
    return round_source(p, resize_source(p, i, scale, in, out), in);
}

static float source(const struct resize_axis *a, int64_t i) {
    float last = (float)(a->in - 1);

    if (a->param->coordinate != COORD_CROP)
        return resize_source(a->param, i, a->scale, a->in, a->out);
    if (a->out == 1)
        return (a->start + a->end) / 2 * last;
    return a->start * last + (float)i * (a->end - a->start) * last / (float)(a->out - 1);
}

/* The filter's reach to either side, in input elements. */
static double reach(const struct resize_axis *a) {
    double support = a->param->mode == RESIZE_CUBIC ? 2 : 1;

    return a->param->is_antialias && a->scale < 1 ? support / (double)a->scale : support;
}

int64_t resize_max_taps(const struct resize_axis *a) {
    return a->param->mode == RESIZE_NEAREST || a->in == 0 || a->out == 0 ? 1 : 2 * (int64_t)ceil(reach(a));
}

/* Triangle, or Keys' cubic convolution (1981) with the coefficient A. */
static double filter(const struct resize_param *p, double x) {
    double a = (double)p->cubic_a;

    x = fabs(x);
    if (p->mode == RESIZE_LINEAR)
        return x < 1 ? 1 - x : 0;
    if (x <= 1)
        return ((a + 2) * x - (a + 3)) * x * x + 1;
    return x < 2 ? ((a * x - 5 * a) * x + 8 * a) * x - 4 * a : 0;
}

int64_t resize_taps(const struct resize_axis *a, int64_t i, int64_t *index, float *weight) {
    const struct resize_param *p = a->param;
    double shrink = p->is_antialias && a->scale < 1 ? (double)a->scale : 1, sum = 0;
    float x = source(a, i);
    int64_t n = resize_max_taps(a), first;

    if (p->coordinate == COORD_CROP && !(x >= 0 && x <= (float)(a->in - 1)))
        return 0;
    if (p->mode == RESIZE_NEAREST) {
        index[0] = round_source(p, x, a->in);
        weight[0] = 1;
        return 1;
    }
    first = (int64_t)floor((double)x) - n / 2 + 1;
    for (int64_t k = 0; k < n; k++) {
        double w = filter(p, ((double)(first + k) - (double)x) * shrink);

        if (p->excludes_outside && (first + k < 0 || first + k >= a->in))
            w = 0;
        index[k] = clamp(first + k, a->in);
        weight[k] = (float)w;
        sum += w;
    }
    for (int64_t k = 0; k < n; k++)
        weight[k] = sum == 0 ? 0 : (float)((double)weight[k] / sum);
    return n;
}
