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

/* table[c][v] = (v * scale - mean[c]) / std[c] */
static void fill_table(const struct preprocess *p, float table[3][256]) {
    for (int c = 0; c < 3; c++)
        for (int v = 0; v < 256; v++)
            table[c][v] = (float)((v * p->scale - p->mean[c]) / p->std[c]);
}

/* One row of the result, channel c of it: to[x * step]. `row` NULL: outside of the picture. */
static void write_row(const struct picture *q, const uint8_t *row, int left, int width,
    const float table[256], float *to, size_t step) {
    for (int x = 0; x < width; x++) {
        int from = left + x;
        bool is_inside = row && from >= 0 && from < q->width;

        to[(size_t)x * step] = table[is_inside ? row[(size_t)from * (size_t)q->channels] : 0];
    }
}

static void write_tensor(const struct preprocess *p, const struct picture *q, float *ret) {
    int h = result_height(p), w = result_width(p), top = crop_start(q->height, h),
        left = crop_start(q->width, w);
    size_t n = (size_t)preprocess_channels(p), plane = (size_t)h * (size_t)w;
    bool is_planar = p->layout == PREPROCESS_NCHW;
    float table[3][256];

    fill_table(p, table);
    for (int y = 0; y < h; y++)
        for (size_t c = 0; c < n; c++) {
            int from = top + y;
            size_t source = p->color == PREPROCESS_BGR ? 2 - c : c;
            const uint8_t *row = from < 0 || from >= q->height
                                     ? NULL
                                     : q->pixels + (size_t)from * (size_t)q->width * n + source;
            float *to = ret + (is_planar ? c * plane + (size_t)y * (size_t)w : (size_t)y * (size_t)w * n + c);

            write_row(q, row, left, w, table[c], to, is_planar ? 1 : n);
        }
}

/* Takes the pixels. */
static int finish(const struct preprocess *p, struct picture *q, float *ret, struct error *err) {
    int r = picture_set_channels(q, preprocess_channels(p), err);

    if (r == 0)
        r = resize(p, q, err);
    if (r == 0)
        write_tensor(p, q, ret);
    picture_done(q);
    return r;
}

int preprocess_picture(
    const struct preprocess *p, const struct picture *picture, float *ret, struct error *err) {
    struct picture q;
    int r = picture_init(&q, picture->width, picture->height, picture->channels, err);

    if (r < 0)
        return r;
    memcpy(q.pixels, picture->pixels, picture_bytes(&q));
    return finish(p, &q, ret, err);
}

int preprocess_encoded(const struct preprocess *p, const void *data, size_t size,
    const struct decode_options *limits, float *ret, struct error *err) {
    struct decode_options o = limits ? *limits : (struct decode_options){0};
    struct picture q;
    int r;

    o.channels = preprocess_channels(p);
    o.is_turned = !p->is_exif_ignored;
    r = decode_picture(data, size, &o, &q, NULL, err);
    return r < 0 ? r : finish(p, &q, ret, err);
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
    return finish(p, &q, ret, err);
}
