/* A pack: the pictures of a data set in one file, as they came, with labels, splits and digests. Written once
 * by the worker, read by worker and daemon through a bounds-checked view of the mapped file.
 *
 *   "BONSPACK" u32 version  u32 n_splits  u32 n_classes  u32 reserved  u64 n_items  u64 index_at
 *   items' bytes, one after the other
 *   at index_at:  n_splits names, n_classes names (u8 length, bytes), then n_items records of 64 bytes:
 *     u64 offset  u64 size  u32 label (0xffffffff: none)  u16 split  u8 kind  u8 channels  u32 height  u32
 * width u8 sha256[32] All little-endian. Items of kind RAW are uint8 pixels, height x width x channels.
 * Records are grouped by split, in the order in which items came. */
#ifndef IMAGE_PACK_H
#define IMAGE_PACK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/cleanup.h"
#include "base/error.h"

#define PACK_MAX_SPLITS  64
#define PACK_MAX_CLASSES 65536
#define PACK_NO_LABEL    0xffffffffu

enum pack_kind { PACK_RAW, PACK_JPEG, PACK_PNG };

struct pack_item {
    const uint8_t *data; /* in the mapped file, or the caller's when adding */
    uint64_t size;
    uint32_t label; /* index into classes, or PACK_NO_LABEL */
    uint16_t split;
    enum pack_kind kind;
    uint8_t channels;
    uint32_t height, width; /* as stored, before any turning */
    uint8_t sha256[32];
};

struct pack;

/* Maps the file behind fd (which the caller keeps) and checks every offset. */
int pack_open(int fd, struct pack **ret, struct error *err);
struct pack *pack_free(struct pack *p);
DEFINE_CLEANUP(struct pack *, pack_free)

uint32_t pack_n_classes(const struct pack *p);
const char *pack_class(const struct pack *p, uint32_t i);
uint32_t pack_n_splits(const struct pack *p);
const char *pack_split(const struct pack *p, uint32_t i);
int pack_find_split(const struct pack *p, const char *name); /* -1: none */
uint64_t pack_count(const struct pack *p, uint32_t split);
/* Item i of a split, i < pack_count. */
void pack_item(const struct pack *p, uint32_t split, uint64_t i, struct pack_item *ret);

struct pack_writer;

/* Writes to fd (empty, kept by the caller). */
int pack_writer_new(int fd, struct pack_writer **ret, struct error *err);
/* Ids of names, added when new; negative errno. */
int pack_writer_split(struct pack_writer *w, const char *name, struct error *err);
int pack_writer_class(struct pack_writer *w, const char *name, struct error *err);
int pack_writer_add(struct pack_writer *w, const struct pack_item *item, struct error *err);
uint64_t pack_writer_count(const struct pack_writer *w);
const struct pack_item *pack_writer_item(const struct pack_writer *w, uint64_t i);
/* Split and label of item i may be known only when all items are in. */
void pack_writer_set(struct pack_writer *w, uint64_t i, uint16_t split, uint32_t label);
/* Leaves item i out of the index. */
void pack_writer_drop(struct pack_writer *w, uint64_t i);
/* Sorts classes by name when `sorts_classes`, writes the index, fsyncs. */
int pack_writer_finish(struct pack_writer *w, bool sorts_classes, struct error *err);
struct pack_writer *pack_writer_free(struct pack_writer *w);
DEFINE_CLEANUP(struct pack_writer *, pack_writer_free)

#endif
