/* gzip and deflate (zlib) of bodies, both ways. */
#ifndef API_ENCODING_H
#define API_ENCODING_H

#include <stddef.h>

#include "base/error.h"

enum encoding { ENCODING_NONE, ENCODING_GZIP, ENCODING_DEFLATE };

/* Of a Content-Encoding header (NULL: none). unsupported_media_type for others. */
int encoding_parse(const char *header, enum encoding *ret, struct error *err);

/* The best the client takes by its Accept-Encoding header. */
enum encoding encoding_negotiate(const char *header);
const char *encoding_name(enum encoding e);

/* Expands to at most `max` bytes: too_large past it, bad_request for broken or cut-off data. *ret is
 * malloc'd. */
int encoding_expand(enum encoding e, const void *data, size_t size, size_t max, char **ret, size_t *ret_size,
    struct error *err);

/* 0; -E2BIG: it does not get smaller. *ret is malloc'd. */
int encoding_compress(enum encoding e, const void *data, size_t size, char **ret, size_t *ret_size);

#endif
