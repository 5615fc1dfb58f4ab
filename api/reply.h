/* What a handler answers. A reply is filled in once; `struct error` instead becomes the JSON error of api.md.
 *
 * Usual: return reply_json(p, 200, doc, err);   or   return error_code(err, -ENOENT, "not_found", "…");
 * Everything a reply holds is owned by it and freed with it. */
#ifndef API_REPLY_H
#define API_REPLY_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

struct request;
struct stream;

#define REPLY_MAX_HEADERS 20

enum reply_kind { REPLY_EMPTY, REPLY_BYTES, REPLY_STATIC, REPLY_FILE, REPLY_STREAM };

struct reply_field {
    const char *name; /* static */
    char *value;      /* owned */
};

/* Milliseconds for Server-Timing; below zero: not shown. */
struct reply_timing {
    double queue_ms, decode_ms, infer_ms, encode_ms;
};

struct reply {
    unsigned status; /* 0: nothing was said */
    enum reply_kind kind;
    const char *type;  /* static: Content-Type, NULL: none */
    char *bytes;       /* REPLY_BYTES: owned */
    const char *fixed; /* REPLY_STATIC */
    size_t size;
    int fd; /* REPLY_FILE: owned */
    uint64_t file_offset, file_size;
    struct stream *stream; /* REPLY_STREAM: a reference */
    struct reply_field header[REPLY_MAX_HEADERS];
    size_t n_headers;
    struct reply_timing timing;
    json_t *details;        /* of an error reply: owned */
    unsigned retry_after_s; /* 0: the table's default for the code */
    bool no_encoding;       /* the bytes are not worth compressing (or already are) */
    bool must_close;        /* Connection: close */
};

void reply_init(struct reply *p);
void reply_done(struct reply *p);

/* All return 0, or a negative errno with err set. */
int reply_empty(struct reply *p, unsigned status);
int reply_json(
    struct reply *p, unsigned status, json_t *doc, struct error *err); /* takes doc, also on failure */
int reply_bytes(
    struct reply *p, unsigned status, const char *type, char *bytes, size_t size); /* takes bytes */
int reply_text(struct reply *p, unsigned status, const char *type, const char *text, struct error *err);
int reply_static(struct reply *p, unsigned status, const char *type, const void *bytes, size_t size);
int reply_stream(struct reply *p, const char *type, struct stream *s); /* takes the reference */

/* A file, with ETag, If-None-Match (304), If-Range and one Range (206, 416). Takes fd, also on failure.
 * `etag` without quotes. */
int reply_file(struct request *r, struct reply *p, int fd, uint64_t size, const char *type, const char *etag,
    struct error *err);

/* Adds the ETag; true when the client has this version: the reply is 304 then. `etag` without quotes. */
bool reply_unchanged(struct request *r, struct reply *p, const char *etag);

/* Bytes with an ETag: 304 when the client has them. Takes bytes. */
int reply_tagged(
    struct request *r, struct reply *p, const char *type, char *bytes, size_t size, const char *etag);

/* `name` static. Past REPLY_MAX_HEADERS, or with control characters in the value: -EINVAL. */
int reply_header(struct reply *p, const char *name, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

/* precondition_failed unless If-Match is absent, "*" or names `etag` (without quotes). */
int reply_check_if_match(const struct request *r, const char *etag, struct error *err);

/* `details` of the error that the handler is about to return. Takes doc. Returns `ret` for one-line use:
 * return reply_details(p, json_pack(…), error_code(…)); */
int reply_details(struct reply *p, json_t *doc, int ret);

/* Turns the reply into the JSON error of `err` (keeping details and retry_after_s). Cannot fail. */
void reply_from_error(struct reply *p, const struct error *err, const char *request_id);

/* The closed table of codes: status of a code; code of an errno. */
struct error_row {
    const char *code;
    unsigned status;
    unsigned retry_after_s; /* 0: no Retry-After */
};
extern const struct error_row error_table[];
extern const size_t error_table_size;
const struct error_row *error_row_find(const char *code); /* NULL: not in the list */
const struct error_row *error_row_of(const struct error *err);

#endif
