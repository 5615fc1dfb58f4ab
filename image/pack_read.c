#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include "base/reader.h"
#include "image/pack.h"
#include "image/pack_format.h"

struct pack {
    const uint8_t *data;
    size_t size;
    uint32_t n_splits, n_classes;
    uint64_t n_items;
    char **split, **class;               /* names */
    uint64_t first[PACK_MAX_SPLITS + 1]; /* record where a split begins */
    const uint8_t *records;
};

static int damaged(struct error *err, const char *what) {
    return error_code(err, -EBADMSG, "bad_dataset", "the pack is damaged: %s", what);
}

struct pack *pack_free(struct pack *p) {
    if (!p)
        return NULL;
    for (uint32_t i = 0; p->split && i < p->n_splits; i++)
        free(p->split[i]);
    for (uint32_t i = 0; p->class && i < p->n_classes; i++)
        free(p->class[i]);
    free(p->split);
    free(p->class);
    if (p->data)
        munmap((void *)(uintptr_t)p->data, p->size);
    free(p);
    return NULL;
}

static int map_file(struct pack *p, int fd, struct error *err) {
    struct stat st;
    void *data;

    if (fstat(fd, &st) < 0)
        return error_errno(err, "the pack");
    if (st.st_size < PACK_HEADER_SIZE)
        return damaged(err, "it is too short");
    p->size = (size_t)st.st_size;
    data = mmap(NULL, p->size, PROT_READ, MAP_PRIVATE, fd, 0);
    if (data == MAP_FAILED)
        return error_errno(err, "the pack");
    p->data = data;
    return 0;
}

static int read_names(struct reader *r, uint32_t n, char ***ret, struct error *err) {
    char **names = calloc((size_t)n + 1, sizeof(*names));

    *ret = names;
    if (!names)
        return error_oom(err);
    for (uint32_t i = 0; i < n; i++) {
        const uint8_t *text;
        uint8_t size;

        if (!reader_u8(r, &size) || !reader_bytes(r, size, &text))
            return damaged(err, "a name is cut off");
        names[i] = strndup((const char *)text, size);
        if (!names[i])
            return error_oom(err);
    }
    return 0;
}

static void read_record(const uint8_t *at, struct pack_item *item, uint64_t *ret_offset) {
    struct reader r;
    uint8_t kind = 0;
    const uint8_t *sha = at;

    reader_init(&r, at, PACK_RECORD_SIZE);
    (void)(reader_u64le(&r, ret_offset) && reader_u64le(&r, &item->size) && reader_u32le(&r, &item->label) &&
           reader_u16le(&r, &item->split) && reader_u8(&r, &kind) && reader_u8(&r, &item->channels) &&
           reader_u32le(&r, &item->height) && reader_u32le(&r, &item->width) && reader_bytes(&r, 32, &sha));
    memcpy(item->sha256, sha, 32);
    item->kind = (enum pack_kind)kind;
}

static int check_record(
    const struct pack *p, const struct pack_item *item, uint64_t offset, struct error *err) {
    uint64_t pixels = (uint64_t)item->height * item->width;

    if (offset > p->size || item->size > p->size - offset)
        return damaged(err, "an item lies outside of the file");
    if (item->kind > PACK_PNG || item->split >= p->n_splits)
        return damaged(err, "an item has no known kind or split");
    if (item->label != PACK_NO_LABEL && item->label >= p->n_classes)
        return damaged(err, "a label is out of range");
    if (item->kind == PACK_RAW && ((item->channels != 1 && item->channels != 3) || pixels > UINT32_MAX ||
                                      pixels * item->channels != item->size))
        return damaged(err, "an item's size is not that of its pixels");
    return 0;
}

static int check_records(struct pack *p, struct error *err) {
    uint32_t present = 0;

    for (uint64_t i = 0; i < p->n_items; i++) {
        struct pack_item item;
        uint64_t offset;
        int r;

        read_record(p->records + i * PACK_RECORD_SIZE, &item, &offset);
        r = check_record(p, &item, offset, err);
        if (r < 0)
            return r;
        if (item.split < present)
            return damaged(err, "its items are not in the order of splits");
        while (present < item.split)
            p->first[++present] = i;
    }
    while (present < p->n_splits)
        p->first[++present] = p->n_items;
    return 0;
}

static int read_index(struct pack *p, struct error *err) {
    const uint8_t *magic;
    uint32_t version, reserved;
    uint64_t at;
    struct reader r;
    int e;

    reader_init(&r, p->data, p->size);
    if (!reader_bytes(&r, 8, &magic) || memcmp(magic, PACK_MAGIC, 8) != 0)
        return damaged(err, "it does not start as a pack");
    (void)(reader_u32le(&r, &version) && reader_u32le(&r, &p->n_splits) && reader_u32le(&r, &p->n_classes) &&
           reader_u32le(&r, &reserved) && reader_u64le(&r, &p->n_items) && reader_u64le(&r, &at));
    if (version != PACK_VERSION || p->n_splits > PACK_MAX_SPLITS || p->n_classes > PACK_MAX_CLASSES ||
        at > p->size) {
        p->n_splits = p->n_classes = 0;
        return damaged(err, "its header makes no sense");
    }
    reader_init(&r, p->data + at, p->size - at);
    e = read_names(&r, p->n_splits, &p->split, err);
    if (e == 0)
        e = read_names(&r, p->n_classes, &p->class, err);
    if (e < 0)
        return e;
    if (p->n_items > reader_left(&r) / PACK_RECORD_SIZE)
        return damaged(err, "its index is cut off");
    p->records = r.pos;
    return check_records(p, err);
}

int pack_open(int fd, struct pack **ret, struct error *err) {
    _cleanup_(pack_freep) struct pack *p = calloc(1, sizeof(*p));
    int r;

    if (!p)
        return error_oom(err);
    r = map_file(p, fd, err);
    if (r == 0)
        r = read_index(p, err);
    if (r < 0)
        return r;
    *ret = TAKE(p);
    return 0;
}

uint32_t pack_n_classes(const struct pack *p) {
    return p->n_classes;
}

const char *pack_class(const struct pack *p, uint32_t i) {
    return p->class[i];
}

uint32_t pack_n_splits(const struct pack *p) {
    return p->n_splits;
}

const char *pack_split(const struct pack *p, uint32_t i) {
    return p->split[i];
}

int pack_find_split(const struct pack *p, const char *name) {
    for (uint32_t i = 0; i < p->n_splits; i++)
        if (!strcmp(p->split[i], name))
            return (int)i;
    return -1;
}

uint64_t pack_count(const struct pack *p, uint32_t split) {
    return p->first[split + 1] - p->first[split];
}

void pack_item(const struct pack *p, uint32_t split, uint64_t i, struct pack_item *ret) {
    uint64_t offset;

    read_record(p->records + (p->first[split] + i) * PACK_RECORD_SIZE, ret, &offset);
    ret->data = p->data + offset;
}
