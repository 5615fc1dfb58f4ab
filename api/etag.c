#include "api/etag.h"

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

/* FNV-1a, 64 bit: equality only, no secret depends on it. */
static uint64_t hash_text(uint64_t h, const char *s) {
    for (; *s; s++)
        h = (h ^ (unsigned char)*s) * 0x100000001b3u;
    return h;
}

void etag_of(const json_t *doc, const char *const *keys, char ret[static ETAG_MAX]) {
    uint64_t h = 0xcbf29ce484222325u;

    for (; *keys; keys++) {
        const json_t *v = json_object_get(doc, *keys);
        char *text = v ? json_dumps(v, JSON_COMPACT | JSON_SORT_KEYS | JSON_ENCODE_ANY) : NULL;

        h = hash_text(h, *keys);
        h = hash_text(h, text ? text : "null");
        free(text);
    }
    snprintf(ret, ETAG_MAX, "%016llx", (unsigned long long)h);
}
