/* POST /v2/models/{m}[/versions/{n}]/infer.
 *
 *   loop   variant resolved, JSON cut (no number read), work submitted; a large body, or a variant that is
 *          not in memory, takes this step on a pool thread
 *   slot   prepare: tensors scanned → plan runs → finish: reply written
 *   loop   reply sent */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <uv.h>

#include "api/api.h"
#include "api/picture.h"
#include "api/routes.h"
#include "api/target.h"
#include "base/cleanup.h"
#include "base/clock.h"
#include "daemon/judge.h"
#include "daemon/scheduler.h"

/* Cutting is a search for brackets: about 20 us for this much. */
#define OPEN_ON_LOOP_MAX ((size_t)128 << 10)

struct infer_call {
    struct sched_work work; /* first: the scheduler's pointer is the call's */
    struct request *r;
    struct target target;
    struct infer in;
    bool is_picture, is_open;
    uint64_t open_ns;
    struct error err;
};

static void release(struct request *r) {
    struct infer_call *c = r->state;

    if (!c)
        return;
    infer_done(&c->in);
    target_done(&c->target);
    free(c);
    r->state = NULL;
}

/* ---- on the slot ---- */

static int prepare(struct sched_work *w, struct tensor *in, struct error *err) {
    struct infer_call *c = (struct infer_call *)w;
    const struct graph *g = net_graph(w->resident->net);
    int rc = picture_bind(c->r, c->target.model, g, &c->in, err);

    for (size_t i = 0; !rc && i < c->in.n_in; i++) {
        if (target_is_batched(&c->target))
            rc = target_check_batch(
                c->r->api, c->target.model, g->values[g->inputs[i]].name, c->in.in[i].shape.dim[0], err);
        in[i] = c->in.in[i];
    }
    return rc;
}

static unsigned items_of(const struct infer_call *c) {
    return c->in.n_in && c->in.in[0].shape.rank > 0 ? (unsigned)c->in.in[0].shape.dim[0] : 1;
}

static void count(struct infer_call *c, unsigned status, uint64_t encode_ns) {
    const struct sched_timing *t = &c->work.timing;
    struct judge_sample s = {.status = status, .batch = t->is_first ? t->batch : 0, .items = items_of(c)};

    s.ns[STAGE_QUEUE] = t->queue_ns;
    s.ns[STAGE_DECODE] = t->decode_ns + c->open_ns;
    s.ns[STAGE_INFER] = t->infer_ns;
    s.ns[STAGE_ENCODE] = encode_ns;
    s.ns[STAGE_TOTAL] = clock_now_ns() - c->r->body_ns;
    if (t->is_first)
        judge_executed(c->r->api->judge, c->target.key, t->batch);
    judge_add(c->r->api->judge, c->target.key, &s);
}

static void fail(struct infer_call *c, const struct error *err) {
    reply_header(c->r->reply, "Bonsai-Variant", "%s", c->target.variant_name);
    count(c, error_row_of(err)->status, 0);
    request_complete(c->r, err);
}

static int write_reply(struct infer_call *c, const struct tensor *out, struct error *err) {
    _cleanup_(freep) const char **labels = NULL;
    struct infer_answer a = {.model = c->target.model_name,
        .version = c->target.version,
        .graph = net_graph(c->work.resident->net),
        .out = out};

    a.n_labels = infer_labels(c->target.model, &labels);
    a.labels = labels;
    a.top = (unsigned)request_query_uint(c->r, "top", 0);
    a.wants_classes = c->is_picture;
    picture_describe(a.graph, out, &a);
    return infer_reply(&c->in, &a, c->r->reply, err);
}

static void finish(struct sched_work *w, const struct tensor *out, size_t n_out, const struct error *failed) {
    struct infer_call *c = (struct infer_call *)w;
    struct reply *p = c->r->reply;
    struct error err = {0};
    uint64_t begin = clock_now_ns(), encode_ns;

    (void)n_out;
    if (failed) {
        fail(c, failed);
        return;
    }
    if (write_reply(c, out, &err)) {
        fail(c, &err);
        return;
    }
    encode_ns = clock_now_ns() - begin;
    p->timing = (struct reply_timing){(double)w->timing.queue_ns / 1e6,
        (double)(w->timing.decode_ns + c->open_ns) / 1e6, (double)w->timing.infer_ns / 1e6,
        (double)encode_ns / 1e6};
    reply_header(p, "Bonsai-Variant", "%s", c->target.variant_name);
    count(c, 200, encode_ns);
    request_complete(c->r, NULL);
}

/* ---- before ---- */

static void on_gone(struct request *r) {
    struct infer_call *c = r->state;

    scheduler_cancel(r->api->scheduler, &c->work);
}

static void set_limits(struct infer_call *c) {
    const struct api *api = c->r->api;
    const json_t *model = c->target.model;
    uint64_t timeout_us = c->in.timeout_us;

    if (!timeout_us)
        timeout_us = (uint64_t)target_limit(api, model, "timeout_ms") * 1000;
    c->work.deadline_ns = timeout_us ? c->r->body_ns + timeout_us * 1000 : 0;
    c->work.priority = c->in.priority;
    c->work.queue_limit = target_limit(api, model, "queue");
    c->work.max_batch = target_is_batched(&c->target) ? target_limit(api, model, "max_batch") : 0;
    c->work.prepare = prepare;
    c->work.finish = finish;
}

static int open_body(struct infer_call *c, struct error *err) {
    uint64_t begin = clock_now_ns();
    int rc = c->is_picture ? 0 : infer_open(c->r, &c->in, err);

    c->is_open = true;
    c->open_ns = clock_now_ns() - begin;
    return rc;
}

/* Takes the resident. Afterwards the call belongs to finish(), unless an error comes back. */
static int submit(struct infer_call *c, struct resident *resident, struct error *err) {
    int rc;

    c->work.resident = resident;
    set_limits(c);
    rc = scheduler_submit(c->r->api->scheduler, &c->work, err);
    if (rc)
        resident_unref(resident);
    return rc;
}

static void pool_work(uv_work_t *work) {
    struct infer_call *c = work->data;
    struct resident *resident = NULL;
    int rc = c->is_open ? 0 : open_body(c, &c->err);

    if (!rc)
        rc = residency_acquire(c->r->api->residency, c->target.key, true, &resident, &c->err);
    if (!rc && atomic_load(&c->r->is_gone)) {
        resident_unref(resident);
        rc = error_set(&c->err, -ECANCELED, "the client has gone");
    } else if (!rc) {
        rc = submit(c, resident, &c->err);
    }
    if (rc)
        fail(c, &c->err);
}

static void pool_done(uv_work_t *work, int status) {
    (void)status;
    free(work);
}

/* The call may be answered and gone before libuv is through with its work: the two live apart. */
static int start_pool(struct infer_call *c, struct error *err) {
    uv_work_t *work = calloc(1, sizeof(*work));

    if (!work)
        return error_oom(err);
    work->data = c;
    if (uv_queue_work(c->r->api->loop, work, pool_work, pool_done)) {
        free(work);
        return error_set(err, -EAGAIN, "too many requests wait");
    }
    return REQUEST_PENDING;
}

/* An error that the handler itself answers is counted as the others are. */
static int refuse(struct infer_call *c, int rc, const struct error *err) {
    count(c, error_row_of(err)->status, 0);
    return rc;
}

static int post_infer(struct request *r, struct reply *p, struct error *err) {
    struct infer_call *c = calloc(1, sizeof(*c));
    struct resident *resident;
    int rc;

    (void)p;
    if (!c)
        return error_oom(err);
    infer_init(&c->in);
    c->r = r;
    c->is_picture = infer_is_picture(r);
    r->state = c;
    r->release = release;
    rc = target_find(r, &c->target, err);
    if (rc)
        return rc;
    if (c->is_picture || r->body_size <= OPEN_ON_LOOP_MAX)
        rc = open_body(c, err);
    if (rc)
        return refuse(c, rc, err);
    r->on_gone = on_gone;
    resident = residency_get(r->api->residency, c->target.key);
    if (resident && c->is_open) {
        rc = submit(c, resident, err);
        return rc ? refuse(c, rc, err) : REQUEST_PENDING;
    }
    resident_unref(resident);
    return start_pool(c, err);
}

static int check_target(struct request *r, struct reply *p, struct error *err) {
    _cleanup_(target_done) struct target t = {0};

    (void)p;
    return target_find(r, &t, err);
}

const struct route v2_infer_routes[] = {
    {.method = HTTP_POST,
        .path = "/v2/models/{model}/infer",
        .scope = SCOPE_INFER,
        .body = BODY_MEMORY,
        .limit = LIMIT_JSON,
        .in_drain = true,
        .check = check_target,
        .handle = post_infer,
        .query = {{"top", QUERY_UINT, 1, 1000, NULL, "How many classes a picture's reply has (5)."},
            {"outputs", QUERY_BOOL, 0, 0, NULL, "false leaves the tensors out of a picture's reply."}},
        .id = "infer",
        .summary =
            "Runs a model (its route decides the variant), or model~variant: tensors as JSON, binary or raw, or a picture.",
        .statuses = "200 404 422 501 504 507",
        .consumes = "application/json, application/octet-stream, image/jpeg, image/png",
        .produces = "application/json, application/octet-stream"},
    {.method = HTTP_POST,
        .path = "/v2/models/{model}/versions/{version}/infer",
        .scope = SCOPE_INFER,
        .body = BODY_MEMORY,
        .limit = LIMIT_JSON,
        .in_drain = true,
        .check = check_target,
        .handle = post_infer,
        .query = {{"top", QUERY_UINT, 1, 1000, NULL, "How many classes a picture's reply has (5)."},
            {"outputs", QUERY_BOOL, 0, 0, NULL, "false leaves the tensors out of a picture's reply."}},
        .id = "inferVersion",
        .summary = "Runs one variant, by its number.",
        .statuses = "200 404 422 501 504 507",
        .consumes = "application/json, application/octet-stream, image/jpeg, image/png",
        .produces = "application/json, application/octet-stream"},
    {0},
};
