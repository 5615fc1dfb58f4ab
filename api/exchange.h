/* One request from its headers to its reply, without sockets: what call.c drives from libmicrohttpd's
 * callbacks and a test can drive by hand. All functions on the loop thread.
 *
 *   exchange_new → exchange_headers → exchange_body… → exchange_end → (WAIT … exchange_advance)… → REPLY
 */
#ifndef API_EXCHANGE_H
#define API_EXCHANGE_H

#include <uv.h>

#include "api/auth.h"
#include "api/encoding.h"
#include "api/guard.h"
#include "api/route.h"

struct upload;

#define EXCHANGE_DROP_MAX (1u << 20) /* how much of an unwanted body is read for politeness */

/* What all exchanges of a listener share. */
struct exchange_env {
    struct api *api;
    const struct auth *auth;
    struct guard_options guard;
    const char *scheme;  /* "http", "https" */
    const char *tmp_dir; /* for bodies on disk */
};

enum exchange_next {
    NEXT_BODY,  /* go on with the body, if any */
    NEXT_WAIT,  /* suspend until `wake`, then exchange_advance() */
    NEXT_REPLY, /* x->reply is complete; `must_close` in it counts */
    NEXT_CLOSE, /* cut the connection */
};

enum exchange_stage {
    STAGE_HEADERS,
    STAGE_BODY,
    STAGE_FLUSH,  /* the last blocks of a body on disk */
    STAGE_EXPAND, /* Content-Encoding undone on a pool thread */
    STAGE_HANDLE,
    STAGE_POOL,    /* the handler runs on a pool thread */
    STAGE_PENDING, /* request_complete() is awaited */
    STAGE_FINISH,
    STAGE_COMPRESS,
    STAGE_REPLY,
};

struct exchange {
    struct request req;
    struct reply reply;
    const struct exchange_env *env;
    enum exchange_stage stage;
    /* From any thread. `is_completed`: the waker sets that member, in one piece with the waking, for the
     * exchange may be freed as soon as it is set. */
    void (*wake)(struct exchange *x, bool is_completed);
    void *owner; /* the transport's */

    struct error target_err;     /* of the request line */
    bool is_refused;             /* the reply is ready, the body is dropped */
    uint64_t declared, received; /* of the body as sent; declared UINT64_MAX: chunked */
    uint64_t limit;
    size_t body_cap;
    enum encoding coding;
    struct upload *upload;
    const char *cors_origin;
    bool is_counted_upload, is_counted_stream;
    bool has_told_gone;

    uv_work_t work;
    bool is_working;
    int work_rc;
    struct error work_err;
    atomic_bool is_completed;
};

/* `target` is the raw request target; NULL: bad request line. */
struct exchange *exchange_new(
    const struct exchange_env *env, const char *target, void (*wake)(struct exchange *x, bool is_completed));
struct exchange *exchange_free(struct exchange *x);

/* Call when x->req.method and headers are set. `framing_is_odd`: the transport saw something itself. */
enum exchange_next exchange_headers(
    struct exchange *x, const struct auth_peer *peer, bool is_http10, bool framing_is_odd);

/* NEXT_WAIT: push the rest, from *consumed, after the wake. */
enum exchange_next exchange_body(struct exchange *x, const char *data, size_t size, size_t *consumed);
enum exchange_next exchange_end(struct exchange *x);
enum exchange_next exchange_advance(struct exchange *x);

/* True when the transport may go on (resume) after a wake. */
bool exchange_can_go_on(const struct exchange *x);

/* The client has gone while the exchange waits. */
void exchange_gone(struct exchange *x);

#endif
