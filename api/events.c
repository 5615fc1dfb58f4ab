/* GET /api/v1/jobs/{job}/events and /api/v1/events: SSE, or JSON lines by Accept.
 *
 * A stream first gets what the store has after Last-Event-ID, then what happens. Both under the hub's lock,
 * so that nothing is missed or doubled. */
#include "api/events.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "api/api.h"
#include "api/routes.h"
#include "api/stream.h"
#include "base/cleanup.h"

#define STREAM_MAX  (1u << 20)
#define BACKLOG_MAX 20000

struct watcher {
    struct watcher *next;
    struct events *hub;
    struct stream *stream;
    bool is_lines; /* NDJSON */
    int64_t last;  /* id sent last, of this job */
    char job[48];  /* "": all */
};

struct events {
    pthread_mutex_t lock;
    struct watcher *first;
    struct store *store;
};

static int write_event(struct watcher *w, const char *job, int64_t id, const char *type, const json_t *data) {
    _cleanup_(freep) char *text = json_dumps(data, JSON_COMPACT | JSON_ENCODE_ANY | JSON_REAL_PRECISION(9));

    if (!text)
        return -ENOMEM;
    if (w->is_lines)
        return stream_printf(w->stream, "{\"id\":%lld,\"job\":\"%s\",\"event\":\"%s\",\"data\":%s}\n",
            (long long)id, job, type, text);
    return stream_printf(w->stream, "id: %lld\nevent: %s\ndata: %s\n\n", (long long)id, type, text);
}

/* Ends a stream after the job's last event, so that EventSource's reconnection gets 204. */
static void deliver(struct watcher *w, const char *job, int64_t id, const char *type, const json_t *data) {
    if (*w->job && id != w->last + 1)
        return;
    w->last = id;
    if (write_event(w, job, id, type, data) < 0 || (*w->job && !strcmp(type, "done")))
        stream_end(w->stream);
}

static void on_event(void *ctx, const char *job, int64_t id, const char *type, const json_t *data) {
    struct events *hub = ctx;

    pthread_mutex_lock(&hub->lock);
    for (struct watcher *w = hub->first; w; w = w->next)
        if (!*w->job || !strcmp(w->job, job))
            deliver(w, job, id, type, data);
    pthread_mutex_unlock(&hub->lock);
}

struct events *events_new(struct jobs *j, struct store *s) {
    struct events *hub = calloc(1, sizeof(*hub));

    if (!hub)
        return NULL;
    pthread_mutex_init(&hub->lock, NULL);
    hub->store = s;
    jobs_listen(j, on_event, hub);
    return hub;
}

struct events *events_free(struct events *hub) {
    if (!hub)
        return NULL;
    pthread_mutex_destroy(&hub->lock);
    free(hub);
    return NULL;
}

static void on_close(void *ctx) {
    struct watcher *w = ctx;
    struct events *hub = w->hub;

    pthread_mutex_lock(&hub->lock);
    for (struct watcher **p = &hub->first; *p; p = &(*p)->next)
        if (*p == w) {
            *p = w->next;
            break;
        }
    pthread_mutex_unlock(&hub->lock);
    stream_unref(w->stream);
    free(w);
}

/* Sends what the store has after w->last. The store is read without the hub's lock: whoever holds the store's
 * may be waiting for the hub. Returns how many there were. */
static size_t replay(struct watcher *w, bool joins) {
    struct events *hub = w->hub;
    json_t *events = *w->job ? store_events(hub->store, w->job, w->last, BACKLOG_MAX) : json_array(), *e;
    size_t i, n = json_array_size(events);

    pthread_mutex_lock(&hub->lock);
    json_array_foreach(events, i, e) deliver(w, w->job, json_integer_value(json_object_get(e, "id")),
        json_string_value(json_object_get(e, "type")), json_object_get(e, "data"));
    if (joins) {
        w->next = hub->first;
        hub->first = w;
    }
    pthread_mutex_unlock(&hub->lock);
    json_decref(events);
    return n;
}

/* Ids of a job have no gaps: an event that comes while one before it is still to be replayed is left to the
 * replay. */
static void replay_and_join(struct watcher *w, int64_t since) {
    w->last = since;
    replay(w, true);
    while (replay(w, false) > 0)
        ;
}

static int watch(struct request *r, struct reply *p, const char *job, int64_t since, struct error *err) {
    bool is_lines = request_accepts(r, "application/x-ndjson");
    struct watcher *w = calloc(1, sizeof(*w));

    if (!w || !(w->stream = stream_new(STREAM_MAX, is_lines ? "\n" : ": still here\n\n"))) {
        free(w);
        return error_oom(err);
    }
    w->hub = r->api->events;
    w->is_lines = is_lines;
    snprintf(w->job, sizeof(w->job), "%s", job);
    stream_on_close(w->stream, on_close, w);
    stream_ref(w->stream); /* one for the reply, one for the watcher */
    replay_and_join(w, since);
    return reply_stream(p, is_lines ? "application/x-ndjson" : "text/event-stream", w->stream);
}

/* Did the client see the last event of a finished job? */
static bool has_all(struct api *api, const char *job, int64_t since) {
    json_t *after = store_events(api->store, job, since, 1), *doc = store_get(api->store, STORE_JOB, job);
    const char *state = json_string_value(json_object_get(doc, "state"));
    bool is_final =
        state && (!strcmp(state, "succeeded") || !strcmp(state, "failed") || !strcmp(state, "cancelled"));
    bool yes = since > 0 && is_final && json_array_size(after) == 0;

    json_decref(after);
    json_decref(doc);
    return yes;
}

static int get_job_events(struct request *r, struct reply *p, struct error *err) {
    const char *job = request_param(r, "job"), *last = request_header(r, "Last-Event-ID");
    int64_t since = last ? strtoll(last, NULL, 10) : 0;
    json_t *doc = store_get(r->api->store, STORE_JOB, job);

    json_decref(doc);
    if (!doc)
        return error_set(err, -ENOENT, "there is no job '%.40s'", job);
    if (has_all(r->api, job, since))
        return reply_empty(p, 204);
    return watch(r, p, job, since < 0 ? 0 : since, err);
}

static int get_events(struct request *r, struct reply *p, struct error *err) {
    return watch(r, p, "", 0, err);
}

const struct route events_routes[] = {
    {.method = HTTP_GET,
        .path = "/api/v1/jobs/{job}/events",
        .scope = SCOPE_READ,
        .run = RUN_POOL,
        .is_stream = true,
        .handle = get_job_events,
        .id = "watchJob",
        .summary = "A job's events as they happen; Last-Event-ID resumes; 204 when all was seen.",
        .statuses = "200 204 404",
        .produces = "text/event-stream, application/x-ndjson"},
    {.method = HTTP_GET,
        .path = "/api/v1/events",
        .scope = SCOPE_READ,
        .run = RUN_POOL,
        .is_stream = true,
        .handle = get_events,
        .query = {{"topics", QUERY_STRING, 0, 0, NULL, "Reserved: jobs."}},
        .id = "watchAll",
        .summary = "The events of all jobs.",
        .statuses = "200",
        .produces = "text/event-stream, application/x-ndjson"},
    {0},
};
