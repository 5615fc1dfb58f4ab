#include <endian.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "image/pack.h"
#include "image/pack_format.h"

#define BLOCK_SIZE (1u << 20)

struct names {
    char **name;
    uint32_t n;
};

struct record {
    struct pack_item item;
    uint64_t offset;
    bool is_dropped;
};

struct pack_writer {
    int fd;
    uint8_t *block;
    size_t used;     /* of the block */
    uint64_t offset; /* of the next item */
    struct names split, class;
    struct record *record;
    uint64_t n, cap;
};

static void names_done(struct names *s) {
    for (uint32_t i = 0; i < s->n; i++)
        free(s->name[i]);
    free(s->name);
}

struct pack_writer *pack_writer_free(struct pack_writer *w) {
    if (!w)
        return NULL;
    names_done(&w->split);
    names_done(&w->class);
    free(w->record);
    free(w->block);
    free(w);
    return NULL;
}

static int flush(struct pack_writer *w, struct error *err) {
    for (size_t at = 0; at < w->used;) {
        ssize_t n = write(w->fd, w->block + at, w->used - at);

        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return errno == ENOSPC ? error_code(err, -ENOSPC, "disk_budget", "the disk is full")
                                   : error_errno(err, "the pack cannot be written");
        at += (size_t)n;
    }
    w->used = 0;
    return 0;
}

static int put(struct pack_writer *w, const void *data, size_t size, struct error *err) {
    const uint8_t *from = data;

    while (size) {
        size_t n = BLOCK_SIZE - w->used < size ? BLOCK_SIZE - w->used : size;

        memcpy(w->block + w->used, from, n);
        w->used += n;
        from += n;
        size -= n;
        if (w->used == BLOCK_SIZE) {
            int r = flush(w, err);

            if (r < 0)
                return r;
        }
    }
    return 0;
}

int pack_writer_new(int fd, struct pack_writer **ret, struct error *err) {
    _cleanup_(pack_writer_freep) struct pack_writer *w = calloc(1, sizeof(*w));
    uint8_t header[PACK_HEADER_SIZE] = {0}; /* written for good at the end */
    int r;

    if (!w || !(w->block = malloc(BLOCK_SIZE)))
        return error_oom(err);
    w->fd = fd;
    w->offset = PACK_HEADER_SIZE;
    r = put(w, header, sizeof(header), err);
    if (r < 0)
        return r;
    *ret = TAKE(w);
    return 0;
}

static int name_id(struct names *s, const char *name, uint32_t max, const char *what, struct error *err) {
    char **bigger;

    for (uint32_t i = s->n; i-- > 0;) /* mostly the last one again */
        if (!strcmp(s->name[i], name))
            return (int)i;
    if (s->n >= max || strlen(name) > 255 || !*name)
        return error_code(
            err, -EBADMSG, "bad_dataset", "%s '%.64s' is one too many, empty or too long", what, name);
    bigger = realloc(s->name, (s->n + 1) * sizeof(*bigger));
    if (!bigger)
        return error_oom(err);
    s->name = bigger;
    s->name[s->n] = strdup(name);
    return s->name[s->n] ? (int)s->n++ : error_oom(err);
}

int pack_writer_split(struct pack_writer *w, const char *name, struct error *err) {
    return name_id(&w->split, name, PACK_MAX_SPLITS, "split", err);
}

int pack_writer_class(struct pack_writer *w, const char *name, struct error *err) {
    return name_id(&w->class, name, PACK_MAX_CLASSES, "class", err);
}

int pack_writer_add(struct pack_writer *w, const struct pack_item *item, struct error *err) {
    int r;

    if (w->n == w->cap) {
        uint64_t cap = w->cap ? w->cap * 2 : 1024;
        struct record *bigger = realloc(w->record, cap * sizeof(*bigger));

        if (!bigger)
            return error_oom(err);
        w->record = bigger;
        w->cap = cap;
    }
    r = put(w, item->data, item->size, err);
    if (r < 0)
        return r;
    w->record[w->n++] = (struct record){.item = *item, .offset = w->offset};
    w->offset += item->size;
    return 0;
}

uint64_t pack_writer_count(const struct pack_writer *w) {
    return w->n;
}

const struct pack_item *pack_writer_item(const struct pack_writer *w, uint64_t i) {
    return &w->record[i].item;
}

void pack_writer_set(struct pack_writer *w, uint64_t i, uint16_t split, uint32_t label) {
    w->record[i].item.split = split;
    w->record[i].item.label = label;
}

void pack_writer_drop(struct pack_writer *w, uint64_t i) {
    w->record[i].is_dropped = true;
}

static int by_name(const void *a, const void *b) {
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

/* Labels follow their names to the sorted order. */
static int sort_classes(struct pack_writer *w, struct error *err) {
    uint32_t n = w->class.n;
    _cleanup_(freep) char **old = malloc((n + 1) * sizeof(*old));
    _cleanup_(freep) uint32_t *place = malloc((n + 1) * sizeof(*place));

    if (!old || !place)
        return error_oom(err);
    if (n)
        memcpy(old, w->class.name, n * sizeof(*old));
    if (n > 1)
        qsort(w->class.name, n, sizeof(*old), by_name);
    for (uint32_t i = 0; i < n; i++)
        for (uint32_t k = 0; k < n; k++)
            if (w->class.name[k] == old[i])
                place[i] = k;
    for (uint64_t i = 0; i < w->n; i++)
        if (w->record[i].item.label != PACK_NO_LABEL)
            w->record[i].item.label = place[w->record[i].item.label];
    return 0;
}

static int put_names(struct pack_writer *w, const struct names *s, struct error *err) {
    int r = 0;

    for (uint32_t i = 0; r == 0 && i < s->n; i++) {
        uint8_t size = (uint8_t)strlen(s->name[i]);

        r = put(w, &size, 1, err);
        if (r == 0)
            r = put(w, s->name[i], size, err);
    }
    return r;
}

static int put_record(struct pack_writer *w, const struct record *r, struct error *err) {
    uint64_t a[2] = {htole64(r->offset), htole64(r->item.size)};
    uint32_t label = htole32(r->item.label), b[2] = {htole32(r->item.height), htole32(r->item.width)};
    uint16_t split = htole16(r->item.split);
    uint8_t record[PACK_RECORD_SIZE];

    memcpy(record, a, 16);
    memcpy(record + 16, &label, 4);
    memcpy(record + 20, &split, 2);
    record[22] = (uint8_t)r->item.kind;
    record[23] = r->item.channels;
    memcpy(record + 24, b, 8);
    memcpy(record + 32, r->item.sha256, 32);
    return put(w, record, sizeof(record), err);
}

static int put_header(struct pack_writer *w, uint64_t index_at, struct error *err) {
    uint32_t a[4] = {htole32(PACK_VERSION), htole32(w->split.n), htole32(w->class.n), 0};
    uint64_t n = 0, b[2];
    uint8_t header[PACK_HEADER_SIZE];

    for (uint64_t i = 0; i < w->n; i++)
        n += !w->record[i].is_dropped;
    b[0] = htole64(n);
    b[1] = htole64(index_at);
    memcpy(header, PACK_MAGIC, 8);
    memcpy(header + 8, a, 16);
    memcpy(header + 24, b, 16);
    if (pwrite(w->fd, header, sizeof(header), 0) != (ssize_t)sizeof(header) || fsync(w->fd) < 0)
        return error_errno(err, "the pack cannot be written");
    return 0;
}

int pack_writer_finish(struct pack_writer *w, bool sorts_classes, struct error *err) {
    uint64_t index_at = w->offset;
    int r = sorts_classes ? sort_classes(w, err) : 0;

    if (r == 0)
        r = put_names(w, &w->split, err);
    if (r == 0)
        r = put_names(w, &w->class, err);
    for (uint32_t s = 0; r == 0 && s < w->split.n; s++)
        for (uint64_t i = 0; r == 0 && i < w->n; i++)
            if (w->record[i].item.split == s && !w->record[i].is_dropped)
                r = put_record(w, &w->record[i], err);
    if (r == 0)
        r = flush(w, err);
    return r < 0 ? r : put_header(w, index_at, err);
}
