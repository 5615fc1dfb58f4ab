#include "api/etag.h"

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define FNV_START 0xcbf29ce484222325u

/* FNV-1a, 64 bit: equality only, no secret depends on it. */
static uint64_t hash(uint64_t h, const char *data, size_t size) {
    for (size_t i = 0; i < size; i++)
        h = (h ^ (unsigned char)data[i]) * 0x100000001b3u;
    return h;
}

static uint64_t hash_text(uint64_t h, const char *s) {
    return hash(h, s, strlen(s));
}

void etag_of_bytes(const char *data, size_t size, char ret[static ETAG_MAX]) {
    snprintf(ret, ETAG_MAX, "%016llx", (unsigned long long)hash(FNV_START, data, size));
}

void etag_of(const json_t *doc, const char *const *keys, char ret[static ETAG_MAX]) {
    uint64_t h = FNV_START;

    for (; *keys; keys++) {
        const json_t *v = json_object_get(doc, *keys);
        char *text = v ? json_dumps(v, JSON_COMPACT | JSON_SORT_KEYS | JSON_ENCODE_ANY) : NULL;

        h = hash_text(h, *keys);
        h = hash_text(h, text ? text : "null");
        free(text);
    }
    snprintf(ret, ETAG_MAX, "%016llx", (unsigned long long)h);
}
