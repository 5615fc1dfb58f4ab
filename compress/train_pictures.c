#include "compress/train_pictures.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "compress/feed.h"

#define MOST_MEASURED  4096
#define MOST_KEPT_SIDE 256 /* larger pictures are made smaller unless the spec asks for them */

struct sizes {
    uint32_t height, width; /* of the first */
    bool is_uniform, is_gray;
    uint32_t shorter; /* median of the shorter sides */
};

static int by_value(const void *a, const void *b) {
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;

    return (x > y) - (x < y);
}

static int look_at_sizes(const struct pack *pack, struct sizes *ret, struct error *err) {
    int split = pack_find_split(pack, "train");
    uint64_t n = split < 0 ? 0 : pack_count(pack, (uint32_t)split);
    _cleanup_(freep) uint32_t *shorter = calloc(n + 1, sizeof(*shorter));
    struct pack_item item;

    if (n == 0)
        return error_code(err, -EBADMSG, "no_train_split", "the data set has no split 'train' to learn from");
    if (!shorter)
        return error_oom(err);
    pack_item(pack, (uint32_t)split, 0, &item);
    *ret = (struct sizes){.height = item.height, .width = item.width, .is_uniform = true, .is_gray = true};
    for (uint64_t i = 0; i < n; i++) {
        pack_item(pack, (uint32_t)split, i, &item);
        shorter[i] = item.height < item.width ? item.height : item.width;
        ret->is_uniform &= item.height == ret->height && item.width == ret->width;
        ret->is_gray &= item.channels <= 2; /* 2: with alpha */
    }
    qsort(shorter, n, sizeof(*shorter), by_value);
    ret->shorter = shorter[n / 2];
    return 0;
}

static int usual_size(uint32_t shorter) {
    static const int sizes[] = {224, 192, 160, 128, 96, 64, 48, 32};
    size_t i = 0;

    while (i + 1 < sizeof(sizes) / sizeof(sizes[0]) && (uint32_t)sizes[i] > shorter)
        i++;
    return sizes[i];
}

static void choose(const struct sizes *s, int size, struct preprocess *p) {
    bool is_small = s->height <= MOST_KEPT_SIDE && s->width <= MOST_KEPT_SIDE;
    bool is_square = s->is_uniform && s->height == s->width;

    if (size == 0 && s->is_uniform && is_small) {
        p->height = (int)s->height;
        p->width = (int)s->width;
        return;
    }
    size = size ? size : usual_size(s->shorter);
    if (is_square)
        p->height = p->width = size;
    else
        p->shorter = p->crop_height = p->crop_width = size;
}

static double rounded(double v) {
    return floor(v * 1e4 + 0.5) / 1e4;
}

/* Of values made with scale 1/255, mean 0 and deviation 1; planes, in double and in order: the same each
 * time. */
static int measure(struct feed *f, const struct progress *progress, struct preprocess *p, struct error *err) {
    _cleanup_(freep) float *x = malloc(f->item_floats * sizeof(*x) + 1);
    size_t channels = (size_t)preprocess_channels(p), plane = f->item_floats / channels;
    double sum[3] = {0}, squares[3] = {0}, n = (double)f->n * (double)plane;
    int r = x ? 0 : error_oom(err);

    for (uint64_t i = 0; r == 0 && i < f->n; i++) {
        r = feed_read(f, i, x, err);
        for (size_t k = 0; r == 0 && k < channels * plane; k++) {
            sum[k / plane] += (double)x[k];
            squares[k / plane] += (double)x[k] * (double)x[k];
        }
        if (r == 0)
            r = progress_at(progress, 0, "measuring the pictures", err);
    }
    for (size_t c = 0; r == 0 && c < channels; c++) {
        double mean = sum[c] / n, variance = squares[c] / n - mean * mean;
        double deviation = rounded(sqrt(variance > 0 ? variance : 0));

        p->mean[c] = rounded(mean);
        p->std[c] = deviation > 0 ? deviation : 1; /* pictures of one colour */
    }
    return r;
}

int train_pictures_look(const struct pack *pack, int size, bool measures, const struct progress *progress,
    struct preprocess *ret, struct error *err) {
    struct preprocess p = {.mode = RESIZE_BILINEAR, .scale = 1.0 / 255, .std = {1, 1, 1}};
    _cleanup_(feed_done) struct feed feed = {0};
    json_auto_t *j = NULL;
    struct value input = {.shape = {.rank = 4}};
    struct sizes sizes = {0};
    int r = look_at_sizes(pack, &sizes, err);

    if (r < 0)
        return r;
    p.color = sizes.is_gray ? PREPROCESS_GRAY : PREPROCESS_RGB;
    choose(&sizes, size, &p);
    if (!measures) {
        *ret = p;
        return 0;
    }
    preprocess_shape(&p, input.shape.dim);
    j = preprocess_to_json(&p);
    if (!j)
        return error_oom(err);
    r = feed_open(pack, "train", &input, j, MOST_MEASURED, &feed, err);
    if (r == 0)
        r = measure(&feed, progress, &p, err);
    if (r == 0)
        *ret = p;
    return r;
}
