#include "compress/feed.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"

struct choice {
    uint64_t item;
    uint8_t sha256[32];
};

static int by_digest(const void *a, const void *b) {
    const struct choice *x = a, *y = b;
    int c = memcmp(x->sha256, y->sha256, 32);

    return c ? c : (x->item > y->item) - (x->item < y->item);
}

/* All items as they stand in the file; or the `most` with the least digests, in that order: a draw that is
 * the same each time, and whose beginnings are draws too (files are often sorted by class). */
static int choose(struct feed *f, uint64_t count, uint64_t most, struct error *err) {
    struct choice *all = calloc(count + 1, sizeof(*all));

    f->item = calloc(count + 1, sizeof(*f->item));
    if (!all || !f->item) {
        free(all);
        return error_oom(err);
    }
    for (uint64_t i = 0; i < count; i++) {
        struct pack_item item;

        pack_item(f->pack, f->split, i, &item);
        all[i].item = i;
        memcpy(all[i].sha256, item.sha256, 32);
    }
    if (most)
        qsort(all, count, sizeof(*all), by_digest);
    f->n = most && most < count ? most : count;
    for (uint64_t i = 0; i < f->n; i++)
        f->item[i] = all[i].item;
    free(all);
    return 0;
}

void feed_source_done(struct feed_source *s) {
    pack_free(s->pack);
    json_decref(s->preprocess);
    json_decref(s->labels);
    *s = (struct feed_source){0};
}

int feed_open(const struct pack *p, const char *split, const struct value *input, const json_t *preprocess,
    uint64_t most, struct feed *ret, struct error *err) {
    struct feed f = {.pack = p};
    int id = pack_find_split(p, split), r;

    if (id < 0 || pack_count(p, (uint32_t)id) == 0)
        return error_code(err, -EBADMSG, !strcmp(split, "train") ? "no_train_split" : "bad_dataset",
            "the data set has no split '%.64s'", split);
    f.split = (uint32_t)id;
    r = preprocess_from_json(preprocess, input->shape.dim, input->shape.rank, &f.preprocess, err);
    if (r < 0)
        return r;
    preprocess_table(&f.preprocess, &f.table);
    f.shape.rank = 4;
    f.item_floats = preprocess_shape(&f.preprocess, f.shape.dim);
    r = choose(&f, pack_count(p, f.split), most, err);
    if (r < 0) {
        feed_done(&f);
        return r;
    }
    *ret = f;
    return 0;
}

void feed_done(struct feed *f) {
    free(f->item);
    free(f->class_of);
    *f = (struct feed){0};
}

/* Names that are only the numbers 0, 1, … in order say no more than the index. */
static bool has_names(const struct pack *p) {
    for (uint32_t i = 0; i < pack_n_classes(p); i++) {
        char *end;
        unsigned long v = strtoul(pack_class(p, i), &end, 10);

        if (*end || v != i)
            return true;
    }
    return false;
}

static int64_t find_label(const json_t *labels, const char *name) {
    for (size_t i = 0; i < json_array_size(labels); i++)
        if (json_is_string(json_array_get(labels, i)) &&
            !strcmp(json_string_value(json_array_get(labels, i)), name))
            return (int64_t)i;
    return -1;
}

int feed_map_classes(struct feed *f, const json_t *labels, int64_t n_classes, struct error *err) {
    bool by_name = json_array_size(labels) > 0 && has_names(f->pack);
    uint32_t n = pack_n_classes(f->pack);

    free(f->class_of);
    f->class_of = calloc((size_t)n + 1, sizeof(*f->class_of));
    if (!f->class_of)
        return error_oom(err);
    for (uint32_t i = 0; i < n; i++) {
        f->class_of[i] = by_name ? find_label(labels, pack_class(f->pack, i)) : (int64_t)i;
        if (f->class_of[i] < 0)
            return error_code(err, -EBADMSG, "classes_do_not_match",
                "the data set's class '%.64s' is none of the model's labels", pack_class(f->pack, i));
        if (f->class_of[i] >= n_classes)
            return error_code(err, -EBADMSG, "classes_do_not_match",
                "the data set has %u classes, the model's output has %lld", n, (long long)n_classes);
    }
    return 0;
}

static struct picture raw_picture(const struct pack_item *item) {
    return (struct picture){.pixels = (uint8_t *)(uintptr_t)item->data,
        .width = (int)item->width,
        .height = (int)item->height,
        .channels = item->channels};
}

/* Do the pack's bytes need nothing done? */
static bool is_ready(const struct feed *f, const struct pack_item *item) {
    struct picture raw = raw_picture(item);

    return item->kind == PACK_RAW && preprocess_is_ready(&f->preprocess, &raw);
}

struct picture_cache *feed_cache(const struct feed *f, const struct picture_cache_place *at) {
    uint64_t n = pack_count(f->pack, f->split), n_ready = 0;
    const struct preprocess *p = &f->preprocess;
    char what[512];

    for (; n_ready < n; n_ready++) {
        struct pack_item item;

        pack_item(f->pack, f->split, n_ready, &item);
        if (!is_ready(f, &item))
            break;
    }
    if (n_ready == n)
        return NULL;
    snprintf(what, sizeof(what), "split %s, channels %d, exif %d, mode %d, %d x %d, shorter %d, crop %d x %d",
        pack_split(f->pack, f->split), preprocess_channels(p), !p->is_exif_ignored, p->mode, p->width,
        p->height, p->shorter, p->crop_width, p->crop_height);
    return picture_cache_open(at, what, n, f->item_floats);
}

static int make_pixels(const struct feed *f, const struct pack_item *item, uint8_t *ret, struct error *err) {
    struct picture raw = raw_picture(item);

    return item->kind == PACK_RAW
               ? preprocess_pixels(&f->preprocess, &raw, ret, err)
               : preprocess_pixels_encoded(&f->preprocess, item->data, item->size, NULL, ret, err);
}

int feed_pixels(const struct feed *f, uint64_t i, uint8_t *ret, struct error *err) {
    struct pack_item item;
    bool is_kept;
    int r;

    pack_item(f->pack, f->split, f->item[i], &item);
    is_kept = f->cache && !is_ready(f, &item);
    if (is_kept && picture_cache_get(f->cache, f->item[i], ret))
        return 0;
    r = make_pixels(f, &item, ret, err);
    if (r == 0 && is_kept)
        picture_cache_put(f->cache, f->item[i], ret);
    return r;
}

void feed_normalize(const struct feed *f, const uint8_t *pixels, float *ret) {
    preprocess_normalize(&f->preprocess, &f->table, pixels, ret);
}

int feed_read(const struct feed *f, uint64_t i, float *ret, struct error *err) {
    _cleanup_(freep) uint8_t *pixels = malloc(f->item_floats);
    int r = pixels ? feed_pixels(f, i, pixels, err) : error_oom(err);

    if (r == 0)
        feed_normalize(f, pixels, ret);
    return r;
}

int64_t feed_label(const struct feed *f, uint64_t i) {
    struct pack_item item;

    pack_item(f->pack, f->split, f->item[i], &item);
    if (item.label == PACK_NO_LABEL)
        return -1;
    return f->class_of ? f->class_of[item.label] : (int64_t)item.label;
}

static int samples_read(void *ctx, int64_t first, int64_t count, float *ret, struct error *err) {
    const struct feed *f = ctx;

    for (int64_t i = 0; i < count; i++) {
        int r = feed_read(f, (uint64_t)(first + i), ret + (size_t)i * f->item_floats, err);

        if (r < 0)
            return r;
    }
    return 0;
}

struct samples feed_samples(struct feed *f) {
    return (struct samples){.ctx = f, .n = (int64_t)f->n, .item = f->shape, .read = samples_read};
}
