/* Pictures in arrays: an npz with images and labels, or MNIST's IDX files. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/reader.h"
#include "compress/dataset_priv.h"
#include "compress/npy.h"

int arrays_hold(struct import *m, const char *member, uint8_t *data, size_t size, struct error *err) {
    struct held *h = &m->held[m->n_held];

    if (m->n_held == sizeof(m->held) / sizeof(m->held[0])) {
        free(data);
        return dataset_bad(err, member, "one array too many");
    }
    h->name = strdup(member);
    if (!h->name) {
        free(data);
        return error_oom(err);
    }
    h->data = data;
    h->size = size;
    m->n_held++;
    return 0;
}

int arrays_add(struct import *m, const uint8_t *pixels, uint32_t height, uint32_t width, uint8_t channels,
    int split, uint32_t label, struct error *err) {
    struct pack_item item = {.data = pixels,
        .size = (uint64_t)height * width * channels,
        .label = label,
        .kind = PACK_RAW,
        .channels = channels,
        .height = height,
        .width = width};

    dataset_digest(pixels, item.size, item.sha256);
    if (split < 0)
        split = m->o->split ? pack_writer_split(m->w, m->o->split, err) : dataset_divide(m, item.sha256, err);
    if (split < 0)
        return split;
    item.split = (uint16_t)split;
    return pack_writer_add(m->w, &item, err);
}

static const struct held *find_array(const struct import *m, const char *a, const char *b) {
    for (size_t i = 0; i < m->n_held; i++) {
        const char *base = strrchr(m->held[i].name, '/');
        size_t n;

        base = base ? base + 1 : m->held[i].name;
        n = strcspn(base, ".");
        if ((strlen(a) == n && !strncmp(base, a, n)) || (strlen(b) == n && !strncmp(base, b, n)))
            return &m->held[i];
    }
    return NULL;
}

static int64_t integer_at(const struct tensor *t, int64_t i) {
    const char *p = t->data;
    int64_t v8 = 0;
    int32_t v4 = 0;
    int16_t v2 = 0;

    switch (t->dtype) {
    case DT_U8: return (uint8_t)p[i];
    case DT_S8: return (int8_t)p[i];
    case DT_S16:
    case DT_U16: memcpy(&v2, p + i * 2, 2); return t->dtype == DT_U16 ? (uint16_t)v2 : v2;
    case DT_S32:
    case DT_U32: memcpy(&v4, p + i * 4, 4); return t->dtype == DT_U32 ? (int64_t)(uint32_t)v4 : v4;
    case DT_S64:
    case DT_U64: memcpy(&v8, p + i * 8, 8); return v8;
    case DT_NONE:
    case DT_F32:
    case DT_STRING:
    case DT_BOOL:
    case DT_F16:
    case DT_F64:
    case DT_BF16:
    case DT_U4:
    case DT_S4:
    case DT_U2:
    case DT_S2:
    default: return -1;
    }
}

/* Classes by number where no names are given. */
static int name_classes(
    struct import *m, const struct held *names, int64_t most, int64_t *ret_n, struct error *err) {
    char **list = NULL, number[24];
    size_t n = (size_t)most + 1;
    int r = 0;

    if (names) {
        r = npy_read_texts(names->data, names->size, &list, &n, err);
        if (r < 0)
            return error_prefix(err, r, "member '%.100s'", names->name);
    }
    for (size_t i = 0; i < n; i++) {
        snprintf(number, sizeof(number), "%zu", i);
        if (r >= 0)
            r = pack_writer_class(m->w, list ? list[i] : number, err);
        if (list)
            free(list[i]);
    }
    free(list);
    *ret_n = (int64_t)n;
    return r < 0 ? r : 0;
}

static int read_labels(struct import *m, const struct held *labels, const struct held *names, int64_t count,
    struct tensor *ret, struct error *err) {
    int64_t most = -1, n_classes = 0;
    int r = npy_read(labels->data, labels->size, ret, err);

    if (r < 0)
        return error_prefix(err, r, "member '%.100s'", labels->name);
    if (ret->shape.rank != 1 || ret->shape.dim[0] != count)
        return dataset_bad(
            err, labels->name, "it has not one label for each of the %lld pictures", (long long)count);
    for (int64_t i = 0; i < count; i++) {
        int64_t v = integer_at(ret, i);

        if (v < 0 || v >= PACK_MAX_CLASSES)
            return dataset_bad(err, labels->name, "label %lld is %lld", (long long)i, (long long)v);
        most = v > most ? v : most;
    }
    r = name_classes(m, names, most, &n_classes, err);
    if (r == 0 && most >= n_classes)
        r = dataset_bad(err, labels->name, "a label is %lld, there are %lld classes", (long long)most,
            (long long)n_classes);
    return r;
}

int npz_finish(struct import *m, struct error *err) {
    const struct held *images = find_array(m, "images", "x"), *labels = find_array(m, "labels", "y");
    struct tensor x, y = {0};
    int64_t height, width, channels;
    int r;

    if (!images)
        return error_code(err, -EBADMSG, "bad_dataset", "the npz has neither 'images' nor 'x'");
    r = npy_read(images->data, images->size, &x, err);
    if (r < 0)
        return error_prefix(err, r, "member '%.100s'", images->name);
    channels = x.shape.rank == 4 ? x.shape.dim[3] : 1;
    if (x.dtype != DT_U8 || (x.shape.rank != 3 && x.shape.rank != 4) || (channels != 1 && channels != 3))
        return dataset_bad(err, images->name, "it is not uint8 of shape [N,H,W], [N,H,W,1] or [N,H,W,3]");
    height = x.shape.dim[1];
    width = x.shape.dim[2];
    if (height < 1 || width < 1 || height > 65535 || width > 65535)
        return dataset_bad(err, images->name, "its pictures have no size, or too large a one");
    if (labels)
        r = read_labels(m, labels, find_array(m, "classes", "class_names"), x.shape.dim[0], &y, err);
    for (int64_t i = 0; r == 0 && i < x.shape.dim[0]; i++)
        r = arrays_add(m, (const uint8_t *)x.data + i * height * width * channels, (uint32_t)height,
            (uint32_t)width, (uint8_t)channels, -1, labels ? (uint32_t)integer_at(&y, i) : PACK_NO_LABEL,
            err);
    return r;
}

/* An IDX file of unsigned bytes: dimensions big-endian. */
static int read_idx(
    const struct held *h, uint32_t dim[4], int *ret_rank, const uint8_t **ret, struct error *err) {
    uint64_t count = 1;
    const uint8_t *magic;
    struct reader r;

    reader_init(&r, h->data, h->size);
    if (!reader_bytes(&r, 4, &magic) || magic[3] < 1 || magic[3] > 4)
        return dataset_bad(err, h->name, "its header is cut off");
    *ret_rank = magic[3];
    for (int i = 0; i < *ret_rank; i++) {
        if (!reader_u32be(&r, &dim[i]) || __builtin_mul_overflow(count, dim[i], &count))
            return dataset_bad(err, h->name, "its sizes are cut off or too large");
    }
    if (count > reader_left(&r))
        return dataset_bad(err, h->name, "it is shorter than its header says");
    *ret = r.pos;
    return 0;
}

/* MNIST's names say the split: train-…, t10k-…; others: none. */
static const char *idx_split(const char *name) {
    const char *base = strrchr(name, '/');

    base = base ? base + 1 : name;
    if (!strncmp(base, "train", 5))
        return "train";
    return !strncmp(base, "t10k", 4) || !strncmp(base, "test", 4) ? "test" : "";
}

static const struct held *idx_labels_of(const struct import *m, const struct held *images) {
    for (size_t i = 0; i < m->n_held; i++)
        if (m->held[i].data[3] == 1 && !strcmp(idx_split(m->held[i].name), idx_split(images->name)))
            return &m->held[i];
    return NULL;
}

static int add_idx(struct import *m, const struct held *images, struct error *err) {
    const struct held *labels = idx_labels_of(m, images);
    const char *name = idx_split(images->name);
    uint32_t dim[4], n[4];
    const uint8_t *pixels, *y = NULL;
    int rank, split = -1, r = read_idx(images, dim, &rank, &pixels, err);
    uint8_t channels;

    if (r < 0)
        return r;
    channels = rank == 4 ? (uint8_t)dim[3] : 1;
    if (rank < 3 || !dim[1] || !dim[2] || dim[1] > 65535 || dim[2] > 65535 ||
        (rank == 4 && dim[3] != 1 && dim[3] != 3))
        return dataset_bad(err, images->name, "its pictures have no size, or too large a one");
    if (labels) {
        r = read_idx(labels, n, &rank, &y, err);
        if (r == 0 && n[0] != dim[0])
            r = dataset_bad(err, labels->name, "it has %u labels for %u pictures", n[0], dim[0]);
    }
    if (r == 0 && *name && !m->o->split)
        split = pack_writer_split(m->w, name, err);
    for (uint32_t i = 0; r == 0 && i < dim[0]; i++) {
        size_t size = (size_t)dim[1] * dim[2] * channels;

        r = arrays_add(m, pixels + i * size, dim[1], dim[2], channels, split, y ? y[i] : PACK_NO_LABEL, err);
    }
    return r;
}

int idx_finish(struct import *m, struct error *err) {
    bool has_images = false;
    int most = -1, r = 0;

    for (size_t i = 0; i < m->n_held; i++) {
        const uint8_t *y;
        uint32_t n[4];
        int rank;

        if (m->held[i].data[3] != 1)
            continue;
        r = read_idx(&m->held[i], n, &rank, &y, err);
        for (uint32_t k = 0; r == 0 && k < n[0]; k++)
            most = y[k] > most ? y[k] : most;
        if (r < 0)
            return r;
    }
    for (int c = 0; c <= most && r >= 0; c++) {
        char number[16];

        snprintf(number, sizeof(number), "%d", c);
        r = pack_writer_class(m->w, number, err);
    }
    r = r < 0 ? r : 0;
    for (size_t i = 0; r == 0 && i < m->n_held; i++)
        if (m->held[i].data[3] != 1) {
            has_images = true;
            r = add_idx(m, &m->held[i], err);
        }
    if (r == 0 && !has_images)
        r = error_code(err, -EBADMSG, "bad_dataset", "the archive has IDX labels and no IDX pictures");
    return r;
}
