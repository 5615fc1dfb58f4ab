#include "base/reader.h"

#include <endian.h>
#include <string.h>

bool reader_bytes(struct reader *r, size_t size, const uint8_t **ret) {
    if (size > reader_left(r))
        return false;
    *ret = r->pos;
    r->pos += size;
    return true;
}

static bool read_fixed(struct reader *r, void *ret, size_t size) {
    const uint8_t *p;

    if (!reader_bytes(r, size, &p))
        return false;
    memcpy(ret, p, size);
    return true;
}

bool reader_u8(struct reader *r, uint8_t *ret) {
    return read_fixed(r, ret, sizeof(*ret));
}

bool reader_u16le(struct reader *r, uint16_t *ret) {
    if (!read_fixed(r, ret, sizeof(*ret)))
        return false;
    *ret = le16toh(*ret);
    return true;
}

bool reader_u16be(struct reader *r, uint16_t *ret) {
    if (!read_fixed(r, ret, sizeof(*ret)))
        return false;
    *ret = be16toh(*ret);
    return true;
}

bool reader_u32le(struct reader *r, uint32_t *ret) {
    if (!read_fixed(r, ret, sizeof(*ret)))
        return false;
    *ret = le32toh(*ret);
    return true;
}

bool reader_u32be(struct reader *r, uint32_t *ret) {
    if (!read_fixed(r, ret, sizeof(*ret)))
        return false;
    *ret = be32toh(*ret);
    return true;
}

bool reader_u64le(struct reader *r, uint64_t *ret) {
    if (!read_fixed(r, ret, sizeof(*ret)))
        return false;
    *ret = le64toh(*ret);
    return true;
}

bool reader_varint(struct reader *r, uint64_t *ret) {
    const uint8_t *p = r->pos;
    uint64_t v = 0;

    for (unsigned shift = 0; shift < 64 && p < r->end; shift += 7, p++) {
        v |= (uint64_t)(*p & 0x7f) << shift;
        if (*p & 0x80)
            continue;
        /* the tenth byte holds one bit */
        if (shift == 63 && *p > 1)
            return false;
        r->pos = p + 1;
        *ret = v;
        return true;
    }
    return false;
}
