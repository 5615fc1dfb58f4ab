#define ZLIB_CONST
#include "api/encoding.h"

#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <zlib.h>

#include "base/cleanup.h"

#define FIRST_SIZE (64 * 1024)

static const char *const names[] = {
    [ENCODING_NONE] = "identity", [ENCODING_GZIP] = "gzip", [ENCODING_DEFLATE] = "deflate"};

/* zlib's windowBits: + 16 asks for the gzip wrapping */
static const int window_bits[] = {[ENCODING_GZIP] = MAX_WBITS + 16, [ENCODING_DEFLATE] = MAX_WBITS};

const char *encoding_name(enum encoding e) {
    return names[e];
}

int encoding_parse(const char *header, enum encoding *ret, struct error *err) {
    *ret = ENCODING_NONE;
    if (!header || !strcasecmp(header, "identity"))
        return 0;
    if (!strcasecmp(header, "gzip") || !strcasecmp(header, "x-gzip"))
        *ret = ENCODING_GZIP;
    else if (!strcasecmp(header, "deflate"))
        *ret = ENCODING_DEFLATE;
    else
        return error_code(
            err, -EINVAL, "unsupported_media_type", "Content-Encoding must be gzip, deflate or identity");
    return 0;
}

/* Quality of `name` in the list; -1: not named. */
static double quality(const char *header, const char *name) {
    size_t len = strlen(name);

    while (*header) {
        size_t n = strcspn(header, ",");

        while (n && (*header == ' ' || *header == '\t')) {
            header++;
            n--;
        }
        if (n >= len && !strncasecmp(header, name, len) && (n == len || strchr(" \t;", header[len]))) {
            const char *q = memmem(header, n, "q=", 2);

            return q ? strtod(q + 2, NULL) : 1;
        }
        header += n;
        header += *header == ',';
    }
    return -1;
}

enum encoding encoding_negotiate(const char *header) {
    double gzip = header ? quality(header, "gzip") : -1;
    double deflate = header ? quality(header, "deflate") : -1;

    if (gzip > 0 && gzip >= deflate)
        return ENCODING_GZIP;
    return deflate > 0 ? ENCODING_DEFLATE : ENCODING_NONE;
}

static void inflate_endp(z_stream *z) {
    inflateEnd(z);
}

static void deflate_endp(z_stream *z) {
    deflateEnd(z);
}

static int too_large(size_t max, struct error *err) {
    return error_set(err, -EFBIG, "the expanded body is larger than %zu bytes", max);
}

/* Grows *data to hold more, up to max + 1 (one byte past the limit shows that it was passed). */
static int grow(char **data, size_t *cap, size_t max, struct error *err) {
    size_t want = *cap ? *cap * 2 : FIRST_SIZE;
    char *p;

    if (want > max + 1)
        want = max + 1;
    if (want == *cap)
        return too_large(max, err);
    p = realloc(*data, want + 1);
    if (!p)
        return error_oom(err);
    *data = p;
    *cap = want;
    return 0;
}

int encoding_expand(enum encoding e, const void *data, size_t size, size_t max, char **ret, size_t *ret_size,
    struct error *err) {
    _cleanup_(inflate_endp) z_stream z = {0};
    _cleanup_(freep) char *out = NULL;
    size_t cap = 0, done = 0;
    int rc, zrc;

    if (size > UINT_MAX || inflateInit2(&z, window_bits[e]) != Z_OK)
        return error_set(err, -EFBIG, "the body cannot be expanded");
    z.next_in = data;
    z.avail_in = (uInt)size;
    do {
        if (done == cap) {
            rc = grow(&out, &cap, max, err);
            if (rc)
                return rc;
        }
        z.next_out = (Bytef *)out + done;
        z.avail_out = cap - done > UINT_MAX ? UINT_MAX : (uInt)(cap - done);
        zrc = inflate(&z, Z_NO_FLUSH);
        done = (size_t)((char *)z.next_out - out);
        if (zrc != Z_OK && zrc != Z_STREAM_END && !(zrc == Z_BUF_ERROR && done == cap))
            return error_set(err, -EINVAL, "the body is not whole and valid %s", names[e]);
    } while (zrc != Z_STREAM_END);
    if (z.avail_in)
        return error_set(err, -EINVAL, "there are bytes after the end of the %s body", names[e]);
    if (done > max)
        return too_large(max, err);
    out[done] = 0;
    *ret = TAKE(out);
    *ret_size = done;
    return 0;
}

int encoding_compress(enum encoding e, const void *data, size_t size, char **ret, size_t *ret_size) {
    _cleanup_(deflate_endp) z_stream z = {0};
    _cleanup_(freep) char *out = NULL;

    if (size < 64 || size > UINT_MAX)
        return -E2BIG;
    /* level 1: replies are made once and sent once */
    if (deflateInit2(&z, 1, Z_DEFLATED, window_bits[e], 8, Z_DEFAULT_STRATEGY) != Z_OK)
        return -ENOMEM;
    out = malloc(size);
    if (!out)
        return -ENOMEM;
    z.next_in = data;
    z.avail_in = (uInt)size;
    z.next_out = (Bytef *)out;
    z.avail_out = (uInt)size;
    if (deflate(&z, Z_FINISH) != Z_STREAM_END)
        return -E2BIG;
    *ret_size = (size_t)z.total_out;
    *ret = TAKE(out);
    return 0;
}
