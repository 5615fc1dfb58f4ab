/* HTTP by libcurl, one connection kept open. */
#ifndef CLIENTS_CLI_HTTP_H
#define CLIENTS_CLI_HTTP_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "base/buf.h"
#include "base/cleanup.h"
#include "base/error.h"

struct http;

/* `url`: "http://HOST:PORT", "https://…" or "unix:PATH". `token`: NULL for none; `ca_file`: NULL for the
 * system's. */
int http_new(const char *url, const char *token, const char *ca_file, struct http **ret, struct error *err);
struct http *http_free(struct http *h);
DEFINE_CLEANUP(struct http *, http_free)

#define HTTP_MAX_HEADERS 4

struct http_request {
    const char *method;
    const char *path; /* escaped, see http_path */
    const void *body; /* borrowed; NULL: none */
    size_t body_size;
    FILE *upload;                         /* in place of body: streamed */
    int64_t upload_size;                  /* -1: not known (chunked) */
    const char *header[HTTP_MAX_HEADERS]; /* "Accept: text/plain" */
    /* In place of collecting a successful body; a negative value ends the request. NULL: collect. */
    int (*sink)(void *ctx, const char *data, size_t size);
    void *ctx;
};

struct http_reply {
    long status;
    struct buf body;
    size_t json_size; /* Inference-Header-Content-Length; 0: none */
};

/* 0 for every 2xx. -EPROTO: the server's sentence; -ECONNREFUSED: no (whole) answer. `ret` is to be released
 * by http_reply_done in any case. */
int http_send(struct http *h, const struct http_request *r, struct http_reply *ret, struct error *err);
void http_reply_done(struct http_reply *r);

/* "/api/v1/models/%/variants" with each % replaced by the next name, escaped. free() it; NULL: out of memory.
 */
char *http_path(struct http *h, const char *pattern, ...);

#endif
