/* A bounds-checked cursor over foreign bytes. Nothing is read past `end`; a failed read leaves the cursor
 * where it was. Unaligned input is fine. */
#ifndef BASE_READER_H
#define BASE_READER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct reader {
    const uint8_t *start; /* for messages: offset of the cursor = pos - start */
    const uint8_t *pos;
    const uint8_t *end;
};

static inline void reader_init(struct reader *r, const void *data, size_t size) {
    r->start = r->pos = data;
    r->end = r->pos + size;
}

static inline size_t reader_left(const struct reader *r) {
    return (size_t)(r->end - r->pos);
}

static inline size_t reader_offset(const struct reader *r) {
    return (size_t)(r->pos - r->start);
}

/* All return false, and read nothing, when too few bytes are left. */
bool reader_bytes(struct reader *r, size_t size, const uint8_t **ret);
bool reader_u8(struct reader *r, uint8_t *ret);
bool reader_u16le(struct reader *r, uint16_t *ret);
bool reader_u16be(struct reader *r, uint16_t *ret);
bool reader_u32le(struct reader *r, uint32_t *ret);
bool reader_u32be(struct reader *r, uint32_t *ret);
bool reader_u64le(struct reader *r, uint64_t *ret);

/* LEB128 as protobuf has it: at most ten bytes, 64 bits. */
bool reader_varint(struct reader *r, uint64_t *ret);

#endif
