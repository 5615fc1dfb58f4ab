/* api/: the HTTP surface. Uses daemon/, engine/, image/, config/, base/; nothing uses it but daemon/main.c.
 *
 *   server.c call.c conn.c              libmicrohttpd in the libuv loop: the only files that know of it
 *   exchange.c admit.c                  one request without sockets, step by step
 *   guard.c auth.c                      what is refused before a route is looked at
 *   route.c routes.c                    the table: method, path, scope, body, query, handler, documentation
 *   request.h reply.h                   all that a handler sees; no sockets, so that tests call handlers
 *   v2*.c models.c variants.c …         handlers, each file with its rows at its end
 *   infer_*.c picture.c tensor_*.c      bodies of infer requests in and out
 *   metrics.c openapi.c system.c        the daemon's own state
 *
 * Start here: routes.c, then a row of v2.c, then its handler.
 *
 * Life of a request: headers complete → guard, host, authorisation, route, `check` (all on the loop, before
 * the body) → body (nothing, into memory, or streamed to disk) → `handle` (on the loop or on a pool thread) →
 * reply. A handler that returns REQUEST_PENDING keeps the request and answers later, from any thread, with
 * request_complete(). */
#ifndef API_REQUEST_H
#define API_REQUEST_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

struct api; /* the daemon's parts, api/api.h */
struct reply;
struct route;

enum http_method {
    HTTP_GET,
    HTTP_HEAD,
    HTTP_POST,
    HTTP_PUT,
    HTTP_PATCH,
    HTTP_DELETE,
    HTTP_OPTIONS,
    HTTP_OTHER
};

/* Scopes of section 8; a request holds a set, a route asks for any of a set. */
enum scope {
    SCOPE_OPEN = 0, /* as a route's need: no token wanted, ever */
    SCOPE_READ = 1,
    SCOPE_INFER = 2,
    SCOPE_UPLOAD = 4,
    SCOPE_COMPRESS = 8,
    SCOPE_ROUTE = 16,
    SCOPE_FEEDBACK = 32,
    SCOPE_ADMIN = 64,
    SCOPE_ALL = 127,
};

#define REQUEST_PENDING       1 /* what a handler returns that will call request_complete() */
#define REQUEST_MAX_SEGMENTS  16
#define REQUEST_MAX_HEADERS   100
#define REQUEST_MAX_QUERY     16
#define REQUEST_ID_MAX        65
#define REQUEST_PRINCIPAL_MAX 65

struct http_field {
    const char *name;
    const char *value;
};

/* A body that was streamed to disk: a file of the store's temporary folder, hashed on the way. The handler
 * that keeps it takes `fd` (take_fd) and the name (TAKE); what is left is closed and removed. */
struct body_file {
    int fd;     /* -1: none. Positioned anywhere: use pread, or map it */
    char *name; /* owned; path of the file, NULL when it has none (O_TMPFILE) */
    uint64_t size;
    uint8_t sha256[32];
};

/* One request, alive from its headers until its reply is sent. Strings live as long. */
struct request {
    struct api *api;
    const struct route *route;
    enum http_method method; /* never HTTP_HEAD for a handler: HEAD runs the GET handler */
    bool is_head;
    char *path;                          /* as sent, still percent-encoded, without the query */
    char *segment[REQUEST_MAX_SEGMENTS]; /* decoded */
    size_t n_segments;
    struct http_field query[REQUEST_MAX_QUERY]; /* decoded, in order */
    size_t n_query;
    struct http_field header[REQUEST_MAX_HEADERS];
    size_t n_headers;
    char id[REQUEST_ID_MAX];
    bool has_client_id;                    /* the Request-Id header gave it */
    unsigned scopes;                       /* enum scope bits */
    char principal[REQUEST_PRINCIPAL_MAX]; /* name of the token, "unix:UID", "local" */

    /* Body, decoded if it was compressed. Aligned for any type; may be written to by the handler (the tensors
     * of a binary request are used in place). */
    char *body; /* owned; NULL: none */
    size_t body_size;
    struct body_file file;

    uint64_t started_ns; /* CLOCK_MONOTONIC when the headers were complete */
    uint64_t body_ns;    /* … when the body was complete */

    atomic_bool is_gone; /* the client went away: the answer will be dropped */
    /* Set by a handler that returns REQUEST_PENDING. on_gone: called on the loop, at most once, when the
     * client has gone before the answer; a hint (request_complete() is still owed), which may meet a
     * completion under way in another thread. release: called on the loop when the request is freed; so
     * `state` is valid in on_gone, always. */
    void (*on_gone)(struct request *r);
    void (*release)(struct request *r);
    void *state; /* the pending handler's own */

    struct reply *reply;                /* what request_complete() sends */
    void (*complete)(struct request *); /* the server's, or a test's */
    void *transport;                    /* the server's */
};

void request_init(struct request *r);
void request_done(struct request *r);

/* Answers a pending request: with r->reply as filled in, or with the error when err->err is set. From any
 * thread; exactly once; r is not to be touched afterwards. */
void request_complete(struct request *r, const struct error *err);

/* Value of a path parameter "{name}" of the route; never NULL for a name the route has. */
const char *request_param(const struct request *r, const char *name);

/* NULL: not sent. Names are compared without case. */
const char *request_header(const struct request *r, const char *name);

/* True when the Accept header prefers `type` over the route's usual JSON: it is named, and with at least the
 * quality of application/json. */
bool request_accepts(const struct request *r, const char *type);

/* Query parameters: all checked against the route's table before the handler runs, so these cannot fail.
 * `otherwise` when not sent. */
const char *request_query(const struct request *r, const char *name);
bool request_query_bool(const struct request *r, const char *name, bool otherwise);
uint64_t request_query_uint(const struct request *r, const char *name, uint64_t otherwise);
double request_query_real(const struct request *r, const char *name, double otherwise);

/* Splits "/a/b%20c?x=1" into r->path, segments and query, decoded once. Errors: bad_request for %00, %2f,
 * control characters, "." and "..", bad escapes, invalid UTF-8, too many parts. */
int request_parse_target(struct request *r, const char *target, struct error *err);

/* The body's `id` of a v2 request: becomes the request's when no Request-Id header came and it matches the
 * name pattern. */
void request_use_body_id(struct request *r, const char *id);

/* ^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$ */
bool request_is_name(const char *s);

/* A fresh random id (UUIDv7, lower case). */
void request_new_id(char ret[static REQUEST_ID_MAX]);

#endif
