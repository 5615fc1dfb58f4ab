#include "image/resize.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"

#define PRECISION_BITS (32 - 8 - 2) /* of a weight: 8 bits of pixel and 2 of overshoot fit beside them */

static double triangle(double x) {
    x = fabs(x);
    return x < 1.0 ? 1.0 - x : 0.0;
}

/* Keys 1981, a = -1/2 */
static double cubic(double x) {
    const double a = -0.5;

    x = fabs(x);
    if (x < 1.0)
        return ((a + 2.0) * x - (a + 3.0)) * x * x + 1;
    if (x < 2.0)
        return (((x - 5) * x + 8) * x - 4) * a;
    return 0.0;
}

static const struct filter {
    double (*weight)(double x);
    double support; /* it is 0 outside of -support … support */
} filters[] = {
    [RESIZE_BILINEAR] = {triangle, 1.0},
    [RESIZE_BICUBIC] = {cubic, 2.0},
};

/* Output i of one axis is the sum of weight[i][k] * input[first[i] + k], k < n[i]. */
struct taps {
    int size;        /* of a row of weights */
    int *first, *n;  /* [outputs] */
    int32_t *weight; /* [outputs][size], PRECISION_BITS of fraction */
};

static void taps_done(struct taps *t) {
    free(t->first);
    free(t->n);
    free(t->weight);
}

static int32_t fixed(double w) {
    return (int32_t)(w * (1 << PRECISION_BITS) + (w < 0 ? -0.5 : 0.5));
}

static void fill_taps(struct taps *t, double *w, int in, int out, const struct filter *f) {
    double scale = (double)in / out, widened = scale < 1.0 ? 1.0 : scale, support = f->support * widened;

    for (int i = 0; i < out; i++) {
        double centre = (i + 0.5) * scale, step = 1.0 / widened, sum = 0.0;
        int first = (int)(centre - support + 0.5), end = (int)(centre + support + 0.5);

        first = first < 0 ? 0 : first;
        end = end > in ? in : end;
        for (int k = 0; k < end - first; k++)
            sum += w[k] = f->weight((k + first - centre + 0.5) * step);
        for (int k = 0; k < end - first; k++)
            t->weight[(size_t)i * (size_t)t->size + (size_t)k] = fixed(sum == 0.0 ? w[k] : w[k] / sum);
        t->first[i] = first;
        t->n[i] = end - first;
    }
}

static int taps_init(struct taps *t, int in, int out, const struct filter *f, struct error *err) {
    double scale = (double)in / out;
    _cleanup_(freep) double *w = NULL;
    size_t n = (size_t)out, size, bytes;

    t->size = (int)ceil(f->support * (scale < 1.0 ? 1.0 : scale)) * 2 + 1;
    size = (size_t)t->size;
    if (__builtin_mul_overflow(n * sizeof(int32_t), size, &bytes))
        return error_set(err, -EFBIG, "the picture cannot be resized so far");
    w = malloc(size * sizeof(*w));
    t->first = malloc(n * sizeof(*t->first));
    t->n = malloc(n * sizeof(*t->n));
    t->weight = malloc(bytes);
    if (!w || !t->first || !t->n || !t->weight)
        return error_oom(err);
    fill_taps(t, w, in, out, f);
    return 0;
}

static uint8_t clip(int32_t v) {
    v >>= PRECISION_BITS;
    return (uint8_t)(v < 0 ? 0 : v > 255 ? 255 : v);
}

#define HALF (1 << (PRECISION_BITS - 1))

static void resample_row(const uint8_t *from, const struct taps *t, int out, int channels, uint8_t *to) {
    for (int i = 0; i < out; i++) {
        const int32_t *w = t->weight + (size_t)i * (size_t)t->size;
        const uint8_t *p = from + (size_t)t->first[i] * (size_t)channels;
        int32_t sum[3] = {HALF, HALF, HALF};

        if (channels == 1)
            for (int k = 0; k < t->n[i]; k++)
                sum[0] += p[k] * w[k];
        else
            for (int k = 0; k < t->n[i]; k++)
                for (int c = 0; c < 3; c++)
                    sum[c] += p[3 * k + c] * w[k];
        for (int c = 0; c < channels; c++)
            *to++ = clip(sum[c]);
    }
}

static int resample_rows(
    const struct picture *p, int width, const struct filter *f, struct picture *ret, struct error *err) {
    _cleanup_(taps_done) struct taps t = {0};
    struct picture q;
    size_t c = (size_t)p->channels;
    int r = taps_init(&t, p->width, width, f, err);

    if (r == 0)
        r = picture_init(&q, width, p->height, p->channels, err);
    if (r < 0)
        return r;
    for (size_t y = 0; y < (size_t)p->height; y++)
        resample_row(
            p->pixels + y * (size_t)p->width * c, &t, width, p->channels, q.pixels + y * (size_t)width * c);
    *ret = q;
    return 0;
}

static int resample_columns(
    const struct picture *p, int height, const struct filter *f, struct picture *ret, struct error *err) {
    size_t stride = (size_t)p->width * (size_t)p->channels;
    _cleanup_(freep) int32_t *sum = malloc(stride * sizeof(*sum));
    _cleanup_(taps_done) struct taps t = {0};
    struct picture q;
    int r = sum ? taps_init(&t, p->height, height, f, err) : error_oom(err);

    if (r == 0)
        r = picture_init(&q, p->width, height, p->channels, err);
    if (r < 0)
        return r;
    for (int y = 0; y < height; y++) {
        const uint8_t *from = p->pixels + (size_t)t.first[y] * stride;
        uint8_t *to = q.pixels + (size_t)y * stride;

        for (size_t x = 0; x < stride; x++)
            sum[x] = HALF;
        for (int k = 0; k < t.n[y]; k++, from += stride) {
            int32_t w = t.weight[(size_t)y * (size_t)t.size + (size_t)k];

            for (size_t x = 0; x < stride; x++)
                sum[x] += from[x] * w;
        }
        for (size_t x = 0; x < stride; x++)
            to[x] = clip(sum[x]);
    }
    *ret = q;
    return 0;
}

/* The source coordinate is added up in doubles, not multiplied: the last bit decides which pixel is taken. */
static int take_nearest(
    const struct picture *p, int width, int height, struct picture *ret, struct error *err) {
    double step_x = (double)p->width / width, step_y = (double)p->height / height, at = step_x * 0.5;
    _cleanup_(freep) int *column = malloc((size_t)width * sizeof(*column));
    size_t c = (size_t)p->channels;
    struct picture q;
    uint8_t *to;
    int r = column ? picture_init(&q, width, height, p->channels, err) : error_oom(err);

    if (r < 0)
        return r;
    for (int x = 0; x < width; x++, at += step_x)
        column[x] = (int)at < p->width ? (int)at : p->width - 1;
    at = step_y * 0.5;
    to = q.pixels;
    for (int y = 0; y < height; y++, at += step_y) {
        size_t row = (size_t)((int)at < p->height ? (int)at : p->height - 1) * (size_t)p->width;

        for (int x = 0; x < width; x++, to += c)
            memcpy(to, p->pixels + (row + (size_t)column[x]) * c, c);
    }
    *ret = q;
    return 0;
}

static int copy(const struct picture *p, struct picture *ret, struct error *err) {
    int r = picture_init(ret, p->width, p->height, p->channels, err);

    if (r == 0)
        memcpy(ret->pixels, p->pixels, picture_bytes(p));
    return r;
}

int resize_picture(const struct picture *p, int width, int height, enum resize_mode mode, struct picture *ret,
    struct error *err) {
    _cleanup_(picture_done) struct picture between = {0};
    const struct picture *rows = p;
    int r;

    if (width < 1 || height < 1 || (int64_t)width * height > RESIZE_MAX_PIXELS ||
        (int64_t)width * p->height > RESIZE_MAX_PIXELS)
        return error_set(err, -EFBIG, "a picture of %d x %d cannot be resized to %d x %d: too many pixels",
            p->width, p->height, width, height);
    if (width == p->width && height == p->height)
        return copy(p, ret, err);
    if (mode == RESIZE_NEAREST)
        return take_nearest(p, width, height, ret, err);
    if (width != p->width) {
        r = resample_rows(p, width, &filters[mode], height == p->height ? ret : &between, err);
        if (r < 0 || height == p->height)
            return r;
        rows = &between;
    }
    return resample_columns(rows, height, &filters[mode], ret, err);
}
