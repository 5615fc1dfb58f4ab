/* Jobs, methods, recipes: /api/v1/jobs …; the streams of events are events.c's. */
#include <errno.h>
#include <string.h>

#include "api/body.h"
#include "api/idempotency.h"
#include "api/routes.h"
#include "api/sensitivity_text.h"
#include "api/view.h"
#include "base/buf.h"
#include "daemon/jobs.h"

#define LOG_MAX (8u << 20)

static int get_methods(struct request *r, struct reply *p, struct error *err) {
    return view_tagged(r, p, jobs_methods(r->api->jobs), err);
}

static int get_recipes(struct request *r, struct reply *p, struct error *err) {
    return view_tagged(r, p, jobs_recipes(r->api->jobs), err);
}

static int reply_job(struct reply *p, unsigned status, json_t *job, struct error *err) {
    reply_header(p, "Location", "/api/v1/jobs/%s", json_string_value(json_object_get(job, "id")));
    return reply_json(p, status, job, err);
}

static int post_job(struct request *r, struct reply *p, struct error *err) {
    json_auto_t *body = NULL;
    struct job_key key;
    json_t *job = NULL;
    int e = body_json(r, false, &body, err);

    if (e < 0)
        return e;
    if (request_query_bool(r, "dry_run", false)) {
        e = jobs_plan(r->api->jobs, body, &job, err);
        return e < 0 ? e : reply_json(p, 200, job, err);
    }
    e = idempotency_key(r, &key, err);
    if (e >= 0)
        e = jobs_create(r->api->jobs, body, e ? &key : NULL, &job, err);
    return e < 0 ? e : reply_job(p, 202, job, err);
}

static int list_jobs(struct request *r, struct reply *p, struct error *err) {
    json_t *all = jobs_list(r->api->jobs, request_query(r, "state"), request_query(r, "model"));

    return reply_json(
        p, 200, view_page(all, "id", request_query_uint(r, "limit", 100), request_query(r, "cursor")), err);
}

static int no_job(const struct request *r, struct error *err) {
    return error_set(err, -ENOENT, "there is no job '%.40s'", request_param(r, "job"));
}

/* A table where there is one, else how far it is. */
static int reply_as_text(struct reply *p, const json_t *job, struct error *err) {
    const json_t *result = json_object_get(job, "result"), *progress = json_object_get(job, "progress");
    struct buf text;
    int e;

    buf_init(&text, LOG_MAX);
    if (json_is_array(json_object_get(result, "layers")) && json_is_array(json_object_get(result, "advice")))
        e = sensitivity_text(result, &text);
    else
        e = buf_printf(&text, "%s %s: %s, %.0f%%\n", json_string_value(json_object_get(job, "kind")),
            json_string_value(json_object_get(job, "model")),
            json_string_value(json_object_get(job, "state")),
            100 * json_number_value(json_object_get(progress, "fraction")));
    e = e < 0 ? error_set(err, e, "the text is too large")
              : reply_text(p, 200, "text/plain; charset=utf-8", text.data ? text.data : "", err);
    buf_done(&text);
    return e;
}

static int get_job(struct request *r, struct reply *p, struct error *err) {
    json_t *job = jobs_get(r->api->jobs, request_param(r, "job"));
    int e;

    if (!job)
        return no_job(r, err);
    if (!request_accepts(r, "text/plain"))
        return reply_json(p, 200, job, err);
    e = reply_as_text(p, job, err);
    json_decref(job);
    return e;
}

static int cancel_job(struct request *r, struct reply *p, struct error *err) {
    json_t *job = NULL;
    json_auto_t *before = jobs_get(r->api->jobs, request_param(r, "job"));
    const char *state = json_string_value(json_object_get(before, "state"));
    int e = jobs_cancel(r->api->jobs, request_param(r, "job"), &job, err);

    return e < 0 ? e : reply_job(p, state && !strcmp(state, "cancelled") ? 200 : 202, job, err);
}

static int retry_job(struct request *r, struct reply *p, struct error *err) {
    json_t *job = NULL;
    int e = jobs_retry(r->api->jobs, request_param(r, "job"), &job, err);

    return e < 0 ? e : reply_job(p, 202, job, err);
}

static int delete_job(struct request *r, struct reply *p, struct error *err) {
    int e = jobs_delete(r->api->jobs, request_param(r, "job"), err);

    return e < 0 ? e : reply_empty(p, 204);
}

/* The log lines, state changes and metrics among the events, as text. */
static int get_log(struct request *r, struct reply *p, struct error *err) {
    json_auto_t *job = jobs_get(r->api->jobs, request_param(r, "job"));
    json_auto_t *events = store_events(r->api->store, request_param(r, "job"), 0, 100000);
    struct buf text;
    json_t *ev;
    size_t i;
    int e = job ? 0 : no_job(r, err);

    if (e < 0)
        return e;
    buf_init(&text, LOG_MAX);
    json_array_foreach(events, i, ev) {
        const char *type = json_string_value(json_object_get(ev, "type"));
        json_t *data = json_object_get(ev, "data");

        if (!strcmp(type, "log"))
            e = buf_printf(&text, "%s: %s\n", json_string_value(json_object_get(data, "level")),
                json_string_value(json_object_get(data, "text")));
        else if (!strcmp(type, "state"))
            e = buf_printf(&text, "state: %s\n", json_string_value(json_object_get(data, "state")));
        else if (!strcmp(type, "metric"))
            e = buf_printf(&text, "metric: %s = %.9g\n", json_string_value(json_object_get(data, "name")),
                json_number_value(json_object_get(data, "value")));
        if (e < 0)
            break;
    }
    e = reply_text(p, 200, "text/plain; charset=utf-8", text.data ? text.data : "", err);
    buf_done(&text);
    return e;
}

const struct route jobs_routes[] = {
    {.method = HTTP_GET,
        .path = "/api/v1/methods",
        .scope = SCOPE_READ,
        .run = RUN_POOL,
        .handle = get_methods,
        .id = "listMethods",
        .summary = "Every method with its options as JSON Schema, and the networks that can be trained.",
        .statuses = "200 304"},
    {.method = HTTP_GET,
        .path = "/api/v1/recipes",
        .scope = SCOPE_READ,
        .run = RUN_POOL,
        .handle = get_recipes,
        .id = "listRecipes",
        .summary = "The named recipes.",
        .statuses = "200 304"},
    {.method = HTTP_POST,
        .path = "/api/v1/jobs",
        .scope = SCOPE_COMPRESS,
        .body = BODY_MEMORY,
        .limit = LIMIT_SMALL,
        .run = RUN_POOL,
        .handle = post_job,
        .query = {{"dry_run", QUERY_BOOL, 0, 0, NULL, "Checks and predicts; nothing is queued."}},
        .id = "createJob",
        .summary = "Queues a job: compress, train, evaluate or sensitivity.",
        .statuses = "200 202 404 409 422 501 507"},
    {.method = HTTP_GET,
        .path = "/api/v1/jobs",
        .scope = SCOPE_READ,
        .run = RUN_POOL,
        .handle = list_jobs,
        .query = {{"state", QUERY_ENUM, 0, 0, "queued|running|succeeded|failed|cancelled|interrupted",
                      "Only these."},
            {"model", QUERY_NAME, 0, 0, NULL, "Only this model's."},
            {"limit", QUERY_UINT, 1, 1000, NULL, "How many (100)."},
            {"cursor", QUERY_STRING, 0, 0, NULL, "Where to go on."}},
        .id = "listJobs",
        .summary = "Jobs, newest first.",
        .statuses = "200"},
    {.method = HTTP_GET,
        .path = "/api/v1/jobs/{job}",
        .scope = SCOPE_READ,
        .run = RUN_POOL,
        .handle = get_job,
        .id = "getJob",
        .summary = "A job with its progress; the table of a sensitivity job as text by Accept.",
        .statuses = "200 404",
        .produces = "application/json, text/plain"},
    {.method = HTTP_GET,
        .path = "/api/v1/jobs/{job}/log",
        .scope = SCOPE_READ,
        .run = RUN_POOL,
        .handle = get_log,
        .id = "getJobLog",
        .summary = "What the job said.",
        .statuses = "200 404",
        .produces = "text/plain"},
    {.method = HTTP_POST,
        .path = "/api/v1/jobs/{job}/cancel",
        .scope = SCOPE_COMPRESS,
        .run = RUN_POOL,
        .handle = cancel_job,
        .id = "cancelJob",
        .summary = "Ends a job: a queued one at once, a running one within 10 s.",
        .statuses = "200 202 404 409"},
    {.method = HTTP_POST,
        .path = "/api/v1/jobs/{job}/retry",
        .scope = SCOPE_COMPRESS,
        .run = RUN_POOL,
        .handle = retry_job,
        .id = "retryJob",
        .summary = "Queues a failed or cancelled job again.",
        .statuses = "202 404 409"},
    {.method = HTTP_DELETE,
        .path = "/api/v1/jobs/{job}",
        .scope = SCOPE_COMPRESS,
        .run = RUN_POOL,
        .handle = delete_job,
        .id = "deleteJob",
        .summary = "Forgets a finished job.",
        .statuses = "204 404 409"},
    {0},
};
