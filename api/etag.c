#include "api/etag.h"

#include <stdio.h>
#include <stdlib.h>

#include "base/fnv.h"

void etag_of_bytes(const char *data, size_t size, char ret[static ETAG_MAX]) {
    snprintf(ret, ETAG_MAX, "%016llx", (unsigned long long)fnv_bytes(FNV_START, data, size));
}

void etag_of(const json_t *doc, const char *const *keys, char ret[static ETAG_MAX]) {
    uint64_t h = FNV_START;

    for (; *keys; keys++) {
        const json_t *v = json_object_get(doc, *keys);
        char *text = v ? json_dumps(v, JSON_COMPACT | JSON_SORT_KEYS | JSON_ENCODE_ANY) : NULL;

        h = fnv_text(h, *keys);
        h = fnv_text(h, text ? text : "null");
        free(text);
    }
    snprintf(ret, ETAG_MAX, "%016llx", (unsigned long long)h);
}
