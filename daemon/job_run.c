/* One job, from queued to a final state (or interrupted): the worker started, its lines followed, its end
 * judged. */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "daemon/activity.h"
#include "daemon/job_request.h"
#include "daemon/job_sensitivity.h"
#include "daemon/job_train.h"
#include "daemon/jobs_priv.h"
#include "daemon/models.h"
#include "daemon/spawn.h"

#define POLL_MS         200
#define CANCEL_GRACE_S  8.0 /* then the worker is killed: within 10 s in all */
#define PROGRESS_KEEP_S 0.5 /* progress events are written no more often */

bool job_must_stop(struct jobs *j) {
    bool stop;

    pthread_mutex_lock(&j->lock);
    stop = j->cancel_running || j->is_ending;
    pthread_mutex_unlock(&j->lock);
    return stop;
}

struct follow {
    struct jobs *j;
    const char *id;
    double kept_s;      /* of the last progress event */
    double asked_s;     /* when the worker was asked to stop; 0: not */
    bool gives_way;     /* to requests */
    json_t *done;       /* the result */
    struct error error; /* the worker's own, or why it was ended */
};

static void take_progress(struct follow *f, json_t *progress) {
    double now = clock_now_s();

    pthread_mutex_lock(&f->j->lock);
    json_decref(f->j->progress);
    f->j->progress = json_incref(progress);
    pthread_mutex_unlock(&f->j->lock);
    if (now - f->kept_s < PROGRESS_KEEP_S)
        return;
    f->kept_s = now;
    job_event(f->j, f->id, "progress", json_incref(progress));
}

static void keep_metric(struct follow *f, json_t *metric) {
    char at[TIME_TEXT_MAX];

    time_text(at);
    json_object_set_new(metric, "at", json_string(at));
    job_event(f->j, f->id, "metric", json_incref(metric));
    pthread_mutex_lock(&f->j->lock);
    if (f->j->metrics)
        job_metrics_add(f->j->metrics, metric);
    pthread_mutex_unlock(&f->j->lock);
}

static void take_error(struct follow *f, const json_t *e) {
    const char *code = json_string_value(json_object_get(e, "code")),
               *text = json_string_value(json_object_get(e, "message"));

    error_code(&f->error, -EBADMSG, spawn_known_code(code), "%s", text ? text : "the worker failed");
}

static void take_line(struct follow *f, json_t *line) {
    json_t *v;

    if ((v = json_object_get(line, "progress")))
        take_progress(f, v);
    else if ((v = json_object_get(line, "metric")))
        keep_metric(f, v);
    else if ((v = json_object_get(line, "log")))
        job_event(f->j, f->id, "log", json_incref(v));
    else if ((v = json_object_get(line, "done")))
        f->done = json_incref(v);
    else if ((v = json_object_get(line, "error")))
        take_error(f, v);
}

/* Requests come first, but not where time is measured: an evaluation's latencies would be those of pauses. */
static void give_way(struct follow *f, struct spawn *s, const json_t *request) {
    const char *kind = json_string_value(json_object_get(request, "kind"));

    if (!f->j->options.activity || (kind && !strcmp(kind, "evaluate")))
        return;
    activity_attach(f->j->options.activity, spawn_pid(s));
    f->gives_way = true;
}

static void stop_giving_way(struct follow *f) {
    if (f->gives_way)
        activity_detach(f->j->options.activity);
    f->gives_way = false;
}

/* Asks, then kills, a worker that should end. */
static void press(struct follow *f, struct spawn *s) {
    double now = clock_now_s();

    if (f->j->end_s > 0 && now > f->j->end_s && !f->error.err) {
        error_code(&f->error, -ETIME, "time_limit", "the job's time limit is over");
        spawn_kill(s, SIGKILL);
    }
    if (!job_must_stop(f->j))
        return;
    if (f->asked_s <= 0) {
        json_t *cancel = json_pack("{s:b}", "cancel", 1);

        f->asked_s = now;
        stop_giving_way(f); /* it has little time */
        spawn_send(s, cancel);
        json_decref(cancel);
    } else if (now - f->asked_s > CANCEL_GRACE_S) {
        spawn_kill(s, SIGKILL);
    }
}

/* 0: f->done is the result; else f->error. -EPIPE in the error: it crashed. */
static void follow(struct follow *f, const json_t *request) {
    _cleanup_(spawn_freep) struct spawn *s = NULL;
    json_auto_t *limited = job_limited(f->j, request);
    int page = f->j->options.activity ? activity_fd(f->j->options.activity) : -1;
    char how[96];

    if (!limited) {
        error_oom(&f->error);
        return;
    }
    json_object_set_new(limited, "has_page", json_boolean(page >= 0));
    if (spawn_start(f->j->worker, page, &s, &f->error) < 0)
        return;
    if (spawn_send(s, limited) < 0)
        spawn_kill(s, SIGKILL);
    give_way(f, s, request);
    while (!f->done && !f->error.err) {
        json_t *line = NULL;
        int r = spawn_read(s, POLL_MS, &line);

        if (r == 1)
            take_line(f, line);
        json_decref(line);
        if (r == 0 || r == -EBADMSG)
            break;
        press(f, s);
    }
    stop_giving_way(f);
    if (f->done || f->error.err)
        return;
    spawn_reap(s, how, sizeof(how));
    error_code(&f->error, -EPIPE, "worker_crashed", "the worker ended without a result: %s", how);
}

/* Errors of the daemon's own parts name a code only where the number does not say it. */
static const char *code_of(const struct error *why) {
    static const struct {
        int err;
        const char *code;
    } codes[] = {{-ENOENT, "not_found"}, {-ENOMEM, "memory_budget"}, {-ENOSPC, "disk_budget"}};

    for (size_t i = 0; !why->code && i < sizeof(codes) / sizeof(codes[0]); i++)
        if (codes[i].err == why->err)
            return codes[i].code;
    return why->code ? why->code : "internal";
}

static void end(
    struct jobs *j, const char *id, enum job_state state, const struct error *why, unsigned crashes) {
    json_t *more = crashes ? json_pack("{s:i}", "crashes", crashes) : json_object();

    if (why)
        json_object_set_new(
            more, "error", json_pack("{s:s, s:s}", "code", code_of(why), "message", why->text));
    job_set_state(j, id, state, more, NULL, 0, NULL);
    json_decref(more);
}

/* Which state a job without a result goes to. Crashes of the worker are counted apart from attempts: a stop
 * of the daemon is none. */
static void end_without_result(struct jobs *j, json_t *doc, const struct error *why) {
    const char *id = json_string_value(json_object_get(doc, "id"));
    unsigned crashes = (unsigned)json_integer_value(json_object_get(doc, "crashes")) + (why->err == -EPIPE);
    bool cancelled, ending;

    pthread_mutex_lock(&j->lock);
    cancelled = j->cancel_running;
    ending = j->is_ending;
    pthread_mutex_unlock(&j->lock);
    if (cancelled)
        end(j, id, JOB_CANCELLED, NULL, 0);
    else if (ending)
        end(j, id, JOB_INTERRUPTED, NULL, 0);
    else if (why->err == -EPIPE && crashes < j->options.max_attempts)
        end(j, id, JOB_QUEUED, NULL, crashes);
    else
        end(j, id, JOB_FAILED, why, crashes);
}

/* When the job must have ended, all its workers together; 0: whenever. */
static double time_limit(const struct jobs *j, const json_t *doc) {
    const json_t *v = json_object_get(json_object_get(json_object_get(doc, "request"), "limits"), "seconds");
    double seconds = json_is_number(v) ? json_number_value(v) : j->options.seconds;

    return seconds > 0 ? clock_now_s() + seconds : 0;
}

/* Kinds whose worker writes a file that becomes something. */
static int run_maker(struct jobs *j, json_t *doc, struct follow *f, struct error *err) {
    const char *kind = json_string_value(json_object_get(doc, "kind"));
    json_t *request = NULL;
    char path[4096], checkpoint[4096];
    int r;

    snprintf(path, sizeof(path), "%s/job-%s.onnx", store_tmp(j->store), f->id);
    r = store_checkpoint_open(j->store, f->id, checkpoint, sizeof(checkpoint), err);
    if (r == 0)
        r = job_request_for_worker(j->store, doc, kind, path, &request, err);
    if (r == 0) {
        json_object_set_new(request, "checkpoint", json_string(checkpoint));
        follow(f, request);
    }
    json_decref(request);
    if (r == 0 && f->done)
        r = job_is_training(doc) ? job_finish_train(j, doc, path, f->done, err)
                                 : job_finish_compress(j, doc, path, f->done, err);
    if (r == 0 && f->done)
        store_checkpoint_drop(j->store, f->id);
    unlink(path);
    return r;
}

static int run_sensitivity(
    struct jobs *j, json_t *doc, struct follow *f, bool *ret_is_over, struct error *err) {
    json_t *request = NULL;
    char checkpoint[4096];
    int r = job_sensitivity_answer(j, doc, err);

    *ret_is_over = r == 1;
    if (r == 0)
        r = store_checkpoint_open(j->store, f->id, checkpoint, sizeof(checkpoint), err);
    else if (r == 1)
        return 0;
    if (r == 0)
        r = job_sensitivity_request(j->store, doc, "sensitivity", &request, err);
    if (r == 0) {
        json_object_set_new(request, "checkpoint", json_string(checkpoint));
        follow(f, request);
    }
    json_decref(request);
    if (r == 0 && f->done)
        r = job_finish_sensitivity(j, doc, f->done, err);
    if (r == 0 && f->done)
        store_checkpoint_drop(j->store, f->id);
    return r;
}

/* The documents of the request's variants, or all of the model. */
static json_t *evaluated_variants(struct jobs *j, const json_t *doc) {
    const char *model = json_string_value(json_object_get(doc, "model"));
    const json_t *names = json_object_get(json_object_get(doc, "request"), "variants");
    json_t *list;

    if (!json_array_size(names))
        return models_variants(j->store, model);
    list = json_array();
    for (size_t i = 0; i < json_array_size(names); i++) {
        json_t *v = NULL;

        if (models_variant(j->store, model, json_string_value(json_array_get(names, i)), &v, NULL) == 0)
            json_array_append_new(list, v);
    }
    return list;
}

static int run_evaluate(struct jobs *j, json_t *doc, struct follow *f, struct error *err) {
    const json_t *body = json_object_get(doc, "request");
    const char *split = json_string_value(json_object_get(body, "split"));
    json_t *variants = evaluated_variants(j, doc), *request = NULL;
    int r = job_request_evaluate(j->store, json_string_value(json_object_get(doc, "model")), variants,
        json_string_value(json_object_get(body, "dataset")), split ? split : "test", &request, err);

    json_decref(variants);
    if (r == 0)
        follow(f, request);
    json_decref(request);
    if (r == 0 && f->done)
        r = job_finish_evaluate(j, doc, f->done, err);
    return r;
}

int job_call(struct jobs *j, const char *id, const json_t *request, json_t **ret, struct error *err) {
    struct follow f = {.j = j, .id = id};

    follow(&f, request);
    if (!f.done)
        return error_copy(err, &f.error);
    *ret = f.done;
    return 0;
}

void job_run(struct jobs *j, const char *id) {
    struct follow f = {.j = j, .id = id};
    struct error err = {0};
    const char *kind;
    bool is_over = false;
    json_t *doc;
    int r;

    if (job_set_state(j, id, JOB_RUNNING, NULL, NULL, 0, NULL) < 0)
        return;
    doc = store_get(j->store, STORE_JOB, id);
    j->end_s = time_limit(j, doc);
    kind = json_string_value(json_object_get(doc, "kind"));
    if (!strcmp(kind, "evaluate"))
        r = run_evaluate(j, doc, &f, &err);
    else if (!strcmp(kind, "sensitivity"))
        r = run_sensitivity(j, doc, &f, &is_over, &err);
    else
        r = run_maker(j, doc, &f, &err);
    /* a finished result has set its final state in its own transaction */
    if (r < 0)
        end_without_result(j, doc, &err);
    else if (!f.done && !is_over)
        end_without_result(j, doc, &f.error);
    json_decref(f.done);
    json_decref(doc);
}
