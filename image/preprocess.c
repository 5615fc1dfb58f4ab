#include "image/preprocess.h"

#include <errno.h>
#include <math.h>
#include <string.h>

#include "base/cleanup.h"

int preprocess_channels(const struct preprocess *p) {
    return p->color == PREPROCESS_GRAY ? 1 : 3;
}

static int result_height(const struct preprocess *p) {
    return p->crop_height ? p->crop_height : p->height;
}

static int result_width(const struct preprocess *p) {
    return p->crop_width ? p->crop_width : p->width;
}

size_t preprocess_shape(const struct preprocess *p, int64_t dim[static 4]) {
    int64_t c = preprocess_channels(p), h = result_height(p), w = result_width(p);

    dim[0] = 1;
    dim[1] = p->layout == PREPROCESS_NCHW ? c : h;
    dim[2] = p->layout == PREPROCESS_NCHW ? h : w;
    dim[3] = p->layout == PREPROCESS_NCHW ? w : c;
    return (size_t)(c * h * w);
}

/* As torchvision: the longer side is rounded down. */
static int shorter_sizes(
    const struct preprocess *p, const struct picture *q, int *ret_w, int *ret_h, struct error *err) {
    bool is_tall = q->height > q->width;
    int64_t shorter = is_tall ? q->width : q->height, longer = is_tall ? q->height : q->width;
    int64_t size = longer * p->shorter / shorter;

    if (size > INT32_MAX)
        return error_set(err, -EFBIG, "a picture of %d x %d is too long to be resized", q->width, q->height);
    *ret_w = is_tall ? p->shorter : (int)size;
    *ret_h = is_tall ? (int)size : p->shorter;
    return 0;
}

static int resize(const struct preprocess *p, struct picture *q, struct error *err) {
    struct picture resized;
    int w = p->width, h = p->height, r = 0;

    if (p->shorter)
        r = shorter_sizes(p, q, &w, &h, err);
    if (r < 0 || (w == q->width && h == q->height))
        return r;
    r = resize_picture(q, w, h, p->mode, &resized, err);
    if (r < 0)
        return r;
    picture_done(q);
    *q = resized;
    return 0;
}

/* First row or column of the crop; negative: the picture is smaller. torchvision's CenterCrop: half of the
 * difference, a half rounded to even when cutting, down when padding. */
static int crop_start(int size, int crop) {
    int d = size - crop, half = d / 2;

    if (d < 0)
        return -((crop - size) / 2);
    return d % 2 && half % 2 ? half + 1 : half;
}

/* About the centre; what lies outside of the picture is black. */
static int crop(const struct preprocess *p, struct picture *q, struct error *err) {
    int h = result_height(p), w = result_width(p), top = crop_start(q->height, h),
        left = crop_start(q->width, w);
    int from = left > 0 ? left : 0, to = left + w < q->width ? left + w : q->width;
    size_t n = (size_t)q->channels;
    struct picture cut;
    int r;

    if (h == q->height && w == q->width)
        return 0;
    r = picture_init(&cut, w, h, q->channels, err);
    if (r < 0)
        return r;
    memset(cut.pixels, 0, picture_bytes(&cut));
    for (int y = 0; y < h; y++)
        if (top + y >= 0 && top + y < q->height)
            memcpy(cut.pixels + ((size_t)y * (size_t)w + (size_t)(from - left)) * n,
                q->pixels + ((size_t)(top + y) * (size_t)q->width + (size_t)from) * n,
                (size_t)(to - from) * n);
    picture_done(q);
    *q = cut;
    return 0;
}

/* Gray or coloured, resized, cropped. Frees the pixels on failure. */
static int make_ready(const struct preprocess *p, struct picture *q, struct error *err) {
    int r = picture_set_channels(q, preprocess_channels(p), err);

    if (r == 0)
        r = resize(p, q, err);
    if (r == 0)
        r = crop(p, q, err);
    if (r < 0)
        picture_done(q);
    return r;
}

static int copy_ready(
    const struct preprocess *p, const struct picture *picture, struct picture *ret, struct error *err) {
    int r = picture_init(ret, picture->width, picture->height, picture->channels, err);

    if (r < 0)
        return r;
    memcpy(ret->pixels, picture->pixels, picture_bytes(ret));
    return make_ready(p, ret, err);
}

static int decode_ready(const struct preprocess *p, const void *data, size_t size,
    const struct decode_options *limits, struct picture *ret, struct error *err) {
    struct decode_options o = limits ? *limits : (struct decode_options){0};
    int r;

    o.channels = preprocess_channels(p);
    o.is_turned = !p->is_exif_ignored;
    r = decode_picture(data, size, &o, ret, NULL, err);
    return r < 0 ? r : make_ready(p, ret, err);
}

static void take_pixels(struct picture *q, uint8_t *ret) {
    memcpy(ret, q->pixels, picture_bytes(q));
    picture_done(q);
}

bool preprocess_is_ready(const struct preprocess *p, const struct picture *q) {
    int shorter = q->height < q->width ? q->height : q->width;

    return q->channels == preprocess_channels(p) && q->height == result_height(p) &&
           q->width == result_width(p) &&
           (p->shorter ? shorter == p->shorter : q->height == p->height && q->width == p->width);
}

int preprocess_pixels(
    const struct preprocess *p, const struct picture *picture, uint8_t *ret, struct error *err) {
    struct picture q;
    int r;

    if (preprocess_is_ready(p, picture)) {
        memcpy(ret, picture->pixels, picture_bytes(picture));
        return 0;
    }
    r = copy_ready(p, picture, &q, err);
    if (r == 0)
        take_pixels(&q, ret);
    return r;
}

int preprocess_pixels_encoded(const struct preprocess *p, const void *data, size_t size,
    const struct decode_options *limits, uint8_t *ret, struct error *err) {
    struct picture q;
    int r = decode_ready(p, data, size, limits, &q, err);

    if (r == 0)
        take_pixels(&q, ret);
    return r;
}

void preprocess_table(const struct preprocess *p, struct preprocess_table *ret) {
    for (int c = 0; c < 3; c++)
        for (int v = 0; v < 256; v++)
            ret->value[c][v] = (float)((v * p->scale - p->mean[c]) / p->std[c]);
}

void preprocess_size(const struct preprocess *p, int *ret_height, int *ret_width, int *ret_channels) {
    *ret_height = result_height(p);
    *ret_width = result_width(p);
    *ret_channels = preprocess_channels(p);
}

void preprocess_zero(const struct preprocess *p, uint8_t ret[static 3]) {
    for (int c = 0; c < 3; c++) { /* means stand in the order of the result */
        double v = p->scale != 0 ? p->mean[c] / p->scale : 0;

        ret[p->color == PREPROCESS_BGR ? 2 - c : c] = (uint8_t)(v > 0 ? v < 255 ? v + 0.5 : 255 : 0);
    }
}

void preprocess_normalize(
    const struct preprocess *p, const struct preprocess_table *t, const uint8_t *pixels, float *ret) {
    size_t n = (size_t)preprocess_channels(p), plane = (size_t)result_height(p) * (size_t)result_width(p);
    bool is_planar = p->layout == PREPROCESS_NCHW;

    for (size_t c = 0; c < n; c++) {
        const uint8_t *from = pixels + (p->color == PREPROCESS_BGR ? 2 - c : c);
        float *to = is_planar ? ret + c * plane : ret + c;
        size_t step = is_planar ? 1 : n;

        for (size_t i = 0; i < plane; i++)
            to[i * step] = t->value[c][from[i * n]];
    }
}

/* Takes the pixels. */
static void finish(const struct preprocess *p, struct picture *q, float *ret) {
    struct preprocess_table t;

    preprocess_table(p, &t);
    preprocess_normalize(p, &t, q->pixels, ret);
    picture_done(q);
}

int preprocess_picture(
    const struct preprocess *p, const struct picture *picture, float *ret, struct error *err) {
    struct picture q;
    int r = copy_ready(p, picture, &q, err);

    if (r == 0)
        finish(p, &q, ret);
    return r;
}

int preprocess_encoded(const struct preprocess *p, const void *data, size_t size,
    const struct decode_options *limits, float *ret, struct error *err) {
    struct picture q;
    int r = decode_ready(p, data, size, limits, &q, err);

    if (r == 0)
        finish(p, &q, ret);
    return r;
}

int preprocess_array(
    const struct preprocess *p, const uint8_t *data, int height, int width, float *ret, struct error *err) {
    struct picture q;
    int r = picture_init(&q, width, height, preprocess_channels(p), err);
    size_t n, plane;

    if (r < 0)
        return r;
    n = (size_t)q.channels;
    plane = (size_t)width * (size_t)height;
    if (p->layout == PREPROCESS_NHWC)
        memcpy(q.pixels, data, picture_bytes(&q));
    else
        for (size_t c = 0; c < n; c++)
            for (size_t i = 0; i < plane; i++)
                q.pixels[i * n + c] = data[c * plane + i];
    r = make_ready(p, &q, err);
    if (r == 0)
        finish(p, &q, ret);
    return r;
}
