/* ETags of documents: a digest of the members that clients can set. */
#ifndef API_ETAG_H
#define API_ETAG_H

#include <jansson.h>

#define ETAG_MAX 20

/* `keys`: NULL-terminated member names. */
void etag_of(const json_t *doc, const char *const *keys, char ret[static ETAG_MAX]);

#endif
