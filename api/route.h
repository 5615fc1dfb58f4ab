/* Routes: one row per verb and path, beside its handler; routes.c lists the files' arrays. The router, the
 * checks before the handler, and /openapi.json all read the same rows.
 *
 * Adding a route: a row in the array at the end of its file. Adding a file: one line in routes.c. */
#ifndef API_ROUTE_H
#define API_ROUTE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "api/reply.h"
#include "api/request.h"
#include "base/error.h"

enum body_kind {
    BODY_NONE,   /* up to 1 MiB is read and dropped */
    BODY_MEMORY, /* request.body */
    BODY_DISK,   /* request.file, hashed */
};

/* Which limit a body obeys (struct api_limits). */
enum body_limit {
    LIMIT_NONE,
    LIMIT_SMALL /* 1 MiB: our own JSON */,
    LIMIT_JSON /* infer */,
    LIMIT_MODEL,
    LIMIT_DATASET
};

enum run_on {
    RUN_LOOP, /* must take microseconds and never touch a disk */
    RUN_POOL, /* may block */
};

enum query_type { QUERY_STRING, QUERY_NAME, QUERY_BOOL, QUERY_UINT, QUERY_REAL, QUERY_ENUM };

#define ROUTE_MAX_QUERY 8

struct query_param {
    const char *name; /* NULL ends the list */
    enum query_type type;
    double min, max;    /* of UINT and REAL */
    const char *values; /* of ENUM: "a|b|c" */
    const char *doc;
};

struct route {
    enum http_method method;
    const char
        *path; /* "/api/v1/models/{model}"; "{name}" is one segment; "{name*}" as the last: all the rest */
    unsigned scope; /* any of these; SCOPE_OPEN: no authorisation */
    enum body_kind body;
    enum body_limit limit;
    enum run_on run;
    bool is_stream;  /* an event stream: counted against its own limit */
    bool in_drain;   /* still served while draining (reads always are) */
    bool is_metrics; /* open to everybody with the option metrics_open */
    bool is_upload;  /* counted against limits.uploads */
    struct query_param query[ROUTE_MAX_QUERY];

    /* What the headers decide (404, 409, 413 of a resource, 429, 507), on the loop, before the body: only
     * look-ups in memory. NULL: nothing. An error refuses; a filled-in reply answers at once; 0 with
     * reply->status 0 goes on. */
    int (*check)(struct request *r, struct reply *p, struct error *err);

    /* 0: p is filled in; negative: err is; REQUEST_PENDING: request_complete() will be called. */
    int (*handle)(struct request *r, struct reply *p, struct error *err);

    /* Documentation, printed into /openapi.json. */
    const char *id;       /* operationId: "getModel" */
    const char *summary;  /* one sentence */
    const char *statuses; /* "200 304 404": beside those that every route has */
    const char *consumes; /* media type of the body; NULL: application/json if there is a body */
    const char *produces; /* NULL: application/json; "a, b": alternatives */
};

/* Ended by a row without a path. */
extern const struct route *const route_files[];
extern const size_t route_files_size;

enum route_result { ROUTE_FOUND, ROUTE_NO_PATH, ROUTE_NO_METHOD };

/* Finds the row of r->method and r->segment, sets r->route (HEAD finds GET). ROUTE_NO_METHOD fills `allow`
 * ("GET, HEAD, PUT") with `size` bytes. Literal segments win over parameters. */
enum route_result route_find(struct request *r, char *allow, size_t size);

/* 404 and 405 (with Allow set on p) as errors. */
int route_resolve(struct request *r, struct reply *p, struct error *err);

/* Checks r->query against the row: types, ranges, no name twice; under /api/v1 unknown names are refused
 * (unknown_field), elsewhere passed over. */
int route_check_query(const struct request *r, struct error *err);

/* Runs `check` (is_early) or `handle` and turns every outcome but PENDING into a finished reply. */
int route_run(struct request *r, struct reply *p, bool is_early);

/* Calls fn for each row, in the order of the table. */
void route_each(void (*fn)(const struct route *row, void *ctx), void *ctx);

#endif
