/* ETags: a digest of bytes, or of those members of a document that clients can set. */
#ifndef API_ETAG_H
#define API_ETAG_H

#include <jansson.h>

#define ETAG_MAX 20

void etag_of_bytes(const char *data, size_t size, char ret[static ETAG_MAX]);

/* `keys`: NULL-terminated member names. */
void etag_of(const json_t *doc, const char *const *keys, char ret[static ETAG_MAX]);

#endif
