#include "api/exchange.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "api/admit.h"
#include "api/api.h"
#include "api/stream.h"
#include "api/upload.h"
#include "base/cleanup.h"
#include "base/clock.h"

#define FIRST_BODY_CAP   (64 * 1024)
#define COMPRESS_MIN     1024
#define COMPRESS_ON_LOOP (16 * 1024) /* level 1 needs about 10 us per KiB */

static void complete(struct request *r) {
    struct exchange *x = r->transport;

    x->wake(x, true); /* x may be gone */
}

struct exchange *exchange_new(
    const struct exchange_env *env, const char *target, void (*wake)(struct exchange *x, bool is_completed)) {
    struct exchange *x = calloc(1, sizeof(*x));

    if (!x)
        return NULL;
    request_init(&x->req);
    reply_init(&x->reply);
    x->req.api = env->api;
    x->req.reply = &x->reply;
    x->req.complete = complete;
    x->req.transport = x;
    x->env = env;
    x->wake = wake;
    if (!target)
        error_set(&x->target_err, -EINVAL, "the request line is not valid");
    else
        request_parse_target(&x->req, target, &x->target_err);
    return x;
}

struct exchange *exchange_free(struct exchange *x) {
    struct api *api;

    if (!x)
        return NULL;
    api = x->env->api;
    if (x->req.release)
        x->req.release(&x->req);
    atomic_fetch_sub(&api->body_bytes, x->body_cap);
    if (x->is_counted_upload)
        atomic_fetch_sub(&api->n_uploads, 1);
    if (x->is_counted_stream)
        atomic_fetch_sub(&api->n_streams, 1);
    upload_free(x->upload);
    reply_done(&x->reply);
    request_done(&x->req);
    free(x);
    return NULL;
}

/* Every reply comes by here, once. */
static void add_common_headers(struct exchange *x) {
    const struct reply_timing *t = &x->reply.timing;
    unsigned class = x->reply.status / 100;

    atomic_fetch_add(&x->env->api->n_answers[class < 6 ? class : 0], 1);
    reply_header(&x->reply, "Request-Id", "%s", x->req.id);
    if (x->cors_origin) {
        reply_header(&x->reply, "Access-Control-Allow-Origin", "%s", x->cors_origin);
        reply_header(&x->reply, "Access-Control-Expose-Headers",
            "Request-Id, Server-Timing, Bonsai-Variant, Inference-Header-Content-Length, Location, ETag");
        reply_header(&x->reply, "Vary", "Origin");
    }
    if (t->infer_ms >= 0)
        reply_header(&x->reply, "Server-Timing",
            "queue;dur=%.3f, decode;dur=%.3f, infer;dur=%.3f, encode;dur=%.3f",
            t->queue_ms > 0 ? t->queue_ms : 0, t->decode_ms > 0 ? t->decode_ms : 0, t->infer_ms,
            t->encode_ms > 0 ? t->encode_ms : 0);
}

/* The reply is made but its body may still be coming: what to do with that (api.md, Conventions). */
static enum exchange_next refuse(struct exchange *x, bool must_close) {
    const char *expect = request_header(&x->req, "Expect");
    bool has_body = x->declared != 0;

    x->is_refused = true;
    x->stage = STAGE_REPLY;
    add_common_headers(x);
    if (!must_close && !has_body)
        return NEXT_BODY;
    if (!must_close && !(expect && !strcasecmp(expect, "100-continue")) &&
        (x->declared <= EXCHANGE_DROP_MAX || x->declared == UINT64_MAX))
        return NEXT_BODY;
    x->reply.must_close = true;
    return NEXT_REPLY;
}

static enum exchange_next refuse_error(struct exchange *x, const struct error *err, bool must_close) {
    reply_from_error(&x->reply, err, x->req.id);
    return refuse(x, must_close);
}

static void set_request_id(struct request *r) {
    const char *id = request_header(r, "Request-Id");

    r->has_client_id = id && request_is_name(id);
    if (r->has_client_id)
        memcpy(r->id, id, strlen(id) + 1);
    else
        request_new_id(r->id);
}

enum exchange_next exchange_headers(
    struct exchange *x, const struct auth_peer *peer, bool is_http10, bool framing_is_odd) {
    struct error err = {0};
    int rc;

    x->stage = STAGE_BODY;
    x->req.started_ns = clock_now_ns();
    set_request_id(&x->req);
    rc = guard_framing(&x->req, is_http10, &err);
    if (!rc && framing_is_odd)
        rc = error_set(&err, -EINVAL, "the request's headers hold a zero byte, or there are too many");
    if (rc)
        return refuse_error(x, &err, true);
    x->declared = guard_body_size(&x->req);
    rc = x->target_err.err ? error_copy(&err, &x->target_err) : admit_request(x, peer, &err);
    if (!rc && !x->reply.status)
        rc = route_run(&x->req, &x->reply, true);
    if (rc)
        return refuse_error(x, &err, false);
    if (x->reply.status)
        return refuse(x, false);
    return NEXT_BODY;
}

/* The body turned out unacceptable half-way: answered at its end if that comes soon. */
static void refuse_midway(struct exchange *x, const struct error *err) {
    reply_from_error(&x->reply, err, x->req.id);
    add_common_headers(x);
    x->is_refused = true;
    x->stage = STAGE_REPLY;
    x->received = 0; /* from here on it counts what is dropped */
}

/* The body takes `cap` bytes from now on; exchange_free() gives them back. */
static int count_body(struct exchange *x, size_t cap, struct error *err) {
    struct api *api = x->env->api;
    uint64_t total = atomic_fetch_add(&api->body_bytes, cap - x->body_cap) + cap - x->body_cap;
    bool is_growing = cap > x->body_cap;

    x->body_cap = cap;
    if (!is_growing || total <= api->limits.bodies_bytes)
        return 0;
    return error_code(
        err, -EAGAIN, "too_busy", "the bodies of other requests fill the memory set aside for them");
}

static int grow_body(struct exchange *x, size_t need) {
    size_t had = x->body_cap, cap = had ? had : FIRST_BODY_CAP;
    struct error err = {0};
    char *p = NULL;

    while (cap < need)
        cap *= 2;
    if (cap > x->limit + 1)
        cap = (size_t)x->limit + 1;
    if (!had && x->declared < cap)
        cap = (size_t)x->declared + 1;
    if (!count_body(x, cap, &err) && !(p = realloc(x->req.body, cap)))
        error_oom(&err);
    if (!p) {
        (void)count_body(x, had, &err); /* less is never refused */
        refuse_midway(x, &err);
        return err.err;
    }
    x->req.body = p;
    return 0;
}

static void body_to_memory(struct exchange *x, const char *data, size_t size) {
    size_t need = x->req.body_size + size + 1; /* a zero follows the body, for text readers */

    if (need > x->body_cap && grow_body(x, need))
        return;
    memcpy(x->req.body + x->req.body_size, data, size);
    x->req.body_size += size;
    x->req.body[x->req.body_size] = 0;
}

static void on_upload(void *ctx) {
    struct exchange *x = ctx;

    x->wake(x, false);
}

enum exchange_next exchange_body(struct exchange *x, const char *data, size_t size, size_t *consumed) {
    struct error err = {0};

    *consumed = size;
    if (!x->is_refused && x->received + size > x->limit) {
        error_set(&err, -EFBIG, "the body is larger than %llu bytes", (unsigned long long)x->limit);
        refuse_midway(x, &err);
    }
    x->received += size;
    if (x->is_refused)
        return x->received > EXCHANGE_DROP_MAX ? NEXT_CLOSE : NEXT_BODY;
    if (x->req.route->body == BODY_MEMORY)
        body_to_memory(x, data, size);
    if (x->req.route->body != BODY_DISK)
        return NEXT_BODY;
    if (!x->upload && upload_new(x->env->api->loop, x->env->tmp_dir, on_upload, x, &x->upload, &err)) {
        refuse_midway(x, &err);
        return NEXT_BODY;
    }
    *consumed = upload_push(x->upload, data, size);
    x->received -= size - *consumed;
    return *consumed < size ? NEXT_WAIT : NEXT_BODY;
}

static void after_work(uv_work_t *work, int status) {
    struct exchange *x = work->data;

    (void)status;
    x->is_working = false;
    x->wake(x, false);
}

static void run_work(struct exchange *x, uv_work_cb fn, enum exchange_stage stage) {
    x->stage = stage;
    x->is_working = true;
    x->work.data = x;
    uv_queue_work(x->env->api->loop, &x->work, fn, after_work);
}

static void work_expand(uv_work_t *work) {
    struct exchange *x = work->data;
    char *out = NULL;
    size_t size = 0;

    x->work_rc = encoding_expand(
        x->coding, x->req.body, x->req.body_size, (size_t)x->limit, &out, &size, &x->work_err);
    if (x->work_rc)
        return;
    free(x->req.body);
    x->req.body = out;
    x->req.body_size = size;
    x->work_rc = count_body(x, size, &x->work_err);
}

static void work_handle(uv_work_t *work) {
    struct exchange *x = work->data;

    x->work_rc = route_run(&x->req, &x->reply, false);
}

/* Compresses the reply's bytes if that helps. */
static void compress_reply(struct exchange *x) {
    enum encoding e = encoding_negotiate(request_header(&x->req, "Accept-Encoding"));
    const struct reply *p = &x->reply;
    char *out = NULL;
    size_t size = 0;

    if (encoding_compress(e, p->kind == REPLY_STATIC ? p->fixed : p->bytes, p->size, &out, &size))
        return;
    free(x->reply.bytes);
    x->reply.bytes = out;
    x->reply.size = size;
    x->reply.kind = REPLY_BYTES;
    reply_header(&x->reply, "Content-Encoding", "%s", encoding_name(e));
    reply_header(&x->reply, "Vary", "Accept-Encoding");
}

static void work_compress(uv_work_t *work) {
    compress_reply(work->data);
}

static bool is_worth_compressing(const struct exchange *x) {
    const struct reply *p = &x->reply;

    if ((p->kind != REPLY_BYTES && p->kind != REPLY_STATIC) || p->no_encoding || p->size < COMPRESS_MIN ||
        !p->type)
        return false;
    if (strncmp(p->type, "text/", 5) != 0 && !strstr(p->type, "json") && !strstr(p->type, "javascript") &&
        !strstr(p->type, "svg"))
        return false;
    return encoding_negotiate(request_header(&x->req, "Accept-Encoding")) != ENCODING_NONE;
}

static enum exchange_next fail(struct exchange *x, const struct error *err) {
    reply_from_error(&x->reply, err, x->req.id);
    x->stage = STAGE_FINISH;
    return exchange_advance(x);
}

static enum exchange_next after_flush(struct exchange *x) {
    struct error err = {0};

    if (upload_take(x->upload, &x->req.file, &err))
        return fail(x, &err);
    x->upload = upload_free(x->upload);
    x->stage = STAGE_HANDLE;
    return exchange_advance(x);
}

static enum exchange_next handle(struct exchange *x) {
    if (x->req.route->run == RUN_POOL) {
        run_work(x, work_handle, STAGE_POOL);
        return NEXT_WAIT;
    }
    x->stage = route_run(&x->req, &x->reply, false) == REQUEST_PENDING ? STAGE_PENDING : STAGE_FINISH;
    return exchange_advance(x);
}

static enum exchange_next finish(struct exchange *x) {
    add_common_headers(x);
    if (!is_worth_compressing(x)) {
        x->stage = STAGE_REPLY;
        return NEXT_REPLY;
    }
    if (x->reply.size > COMPRESS_ON_LOOP) {
        run_work(x, work_compress, STAGE_COMPRESS);
        return NEXT_WAIT;
    }
    compress_reply(x);
    x->stage = STAGE_REPLY;
    return NEXT_REPLY;
}

enum exchange_next exchange_end(struct exchange *x) {
    struct error err = {0};

    x->req.body_ns = clock_now_ns();
    if (x->is_refused)
        return NEXT_REPLY;
    if (x->req.route->body == BODY_DISK && !x->upload)
        if (upload_new(x->env->api->loop, x->env->tmp_dir, on_upload, x, &x->upload, &err))
            return fail(x, &err);
    if (x->upload) {
        x->stage = STAGE_FLUSH;
        upload_finish(x->upload);
    } else if (x->coding != ENCODING_NONE && x->req.body_size) {
        run_work(x, work_expand, STAGE_EXPAND);
    } else {
        x->stage = STAGE_HANDLE;
    }
    return exchange_advance(x);
}

enum exchange_next exchange_advance(struct exchange *x) {
    if (x->is_working)
        return NEXT_WAIT;
    switch (x->stage) {
    case STAGE_HEADERS:
    case STAGE_BODY: return NEXT_BODY;
    case STAGE_FLUSH: return upload_is_idle(x->upload) ? after_flush(x) : NEXT_WAIT;
    case STAGE_EXPAND:
        if (x->work_rc)
            return fail(x, &x->work_err);
        x->stage = STAGE_HANDLE;
        return handle(x);
    case STAGE_HANDLE: return handle(x);
    case STAGE_POOL:
        x->stage = x->work_rc == REQUEST_PENDING ? STAGE_PENDING : STAGE_FINISH;
        return exchange_advance(x);
    case STAGE_PENDING:
        if (!atomic_load(&x->is_completed))
            return NEXT_WAIT;
        return finish(x);
    case STAGE_FINISH: return finish(x);
    case STAGE_COMPRESS: x->stage = STAGE_REPLY; return NEXT_REPLY;
    case STAGE_REPLY: return NEXT_REPLY;
    }
    return NEXT_CLOSE;
}

bool exchange_can_go_on(const struct exchange *x) {
    if (x->is_working)
        return false;
    if (x->stage == STAGE_PENDING)
        return atomic_load(&x->is_completed);
    return x->stage != STAGE_FLUSH || upload_is_idle(x->upload);
}

void exchange_gone(struct exchange *x) {
    atomic_store(&x->req.is_gone, true);
    if (x->has_told_gone || x->stage != STAGE_PENDING || x->is_working || !x->req.on_gone)
        return;
    x->has_told_gone = true;
    x->req.on_gone(&x->req);
}
