#include "image/exif.h"

#include <ctype.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/reader.h"

#define TAG_ORIENTATION 0x0112
#define TYPE_SHORT      3
#define PROFILE_MAX     (1u << 20)

struct tiff {
    struct reader r;
    bool is_big; /* "MM": most significant byte first */
};

static bool read_u16(struct tiff *t, uint16_t *ret) {
    return t->is_big ? reader_u16be(&t->r, ret) : reader_u16le(&t->r, ret);
}

static bool read_u32(struct tiff *t, uint32_t *ret) {
    return t->is_big ? reader_u32be(&t->r, ret) : reader_u32le(&t->r, ret);
}

/* A directory entry: tag, type, count, then a value of up to four bytes, left-justified. */
static bool read_entry(struct tiff *t, uint16_t *tag, uint16_t *value) {
    const uint8_t *rest;
    uint16_t type;
    uint32_t count;

    if (!read_u16(t, tag) || !read_u16(t, &type) || !read_u32(t, &count) || !read_u16(t, value) ||
        !reader_bytes(&t->r, 2, &rest))
        return false;
    if (type != TYPE_SHORT || count != 1)
        *value = 0;
    return true;
}

int exif_orientation(const void *data, size_t size) {
    struct tiff t = {0};
    const uint8_t *order, *skipped;
    uint16_t magic, n, tag, value;
    uint32_t at;

    if (size >= 6 && !memcmp(data, "Exif\0\0", 6))
        return exif_orientation((const char *)data + 6, size - 6);
    reader_init(&t.r, data, size);
    if (!reader_bytes(&t.r, 2, &order) || (memcmp(order, "II", 2) && memcmp(order, "MM", 2)))
        return 0;
    t.is_big = order[0] == 'M';
    if (!read_u16(&t, &magic) || magic != 42 || !read_u32(&t, &at) || at > size)
        return 0;
    reader_init(&t.r, data, size);
    if (!reader_bytes(&t.r, at, &skipped) || !read_u16(&t, &n))
        return 0;
    for (; n && read_entry(&t, &tag, &value); n--)
        if (tag == TAG_ORIENTATION)
            return value <= 8 ? value : 0;
    return 0;
}

static int digit(char c) {
    return c >= '0' && c <= '9' ? c - '0' : tolower((unsigned char)c) - 'a' + 10;
}

int exif_orientation_hex(const char *text, size_t size) {
    const char *p = text, *end = text + size;
    _cleanup_(freep) uint8_t *bytes = NULL;
    size_t n = 0;
    int high = -1;

    for (int line = 0; line < 3; line++, p++) {
        p = memchr(p, '\n', (size_t)(end - p));
        if (!p)
            return 0;
    }
    if (size > PROFILE_MAX)
        return 0;
    bytes = malloc(size / 2 + 1);
    for (; bytes && p < end; p++) {
        if (!isxdigit((unsigned char)*p))
            continue;
        if (high < 0) {
            high = digit(*p);
            continue;
        }
        bytes[n++] = (uint8_t)(high << 4 | digit(*p));
        high = -1;
    }
    return bytes ? exif_orientation(bytes, n) : 0;
}
