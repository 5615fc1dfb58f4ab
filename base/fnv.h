/* FNV-1a, 64 bits: for tables and to tell what changed; no secret depends on it. */
#ifndef BASE_FNV_H
#define BASE_FNV_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define FNV_START 0xcbf29ce484222325u

/* `h`: FNV_START, or what came before. */
static inline uint64_t fnv_bytes(uint64_t h, const void *data, size_t size) {
    const uint8_t *p = data;

    for (size_t i = 0; i < size; i++)
        h = (h ^ p[i]) * 0x100000001b3u;
    return h;
}

static inline uint64_t fnv_text(uint64_t h, const char *s) {
    return fnv_bytes(h, s, strlen(s));
}

#endif
