#include "daemon/jobs.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "daemon/job_key.h"
#include "daemon/job_request.h"
#include "daemon/job_sensitivity.h"
#include "daemon/jobs_priv.h"
#include "daemon/models.h"
#include "daemon/spawn.h"
#include "daemon/uuid.h"

const char *const job_state_names[JOB_STATES] = {
    "queued", "running", "succeeded", "failed", "cancelled", "interrupted"};

/* allowed[from][to] */
static const bool allowed[JOB_STATES][JOB_STATES] = {
    [JOB_QUEUED] = {[JOB_RUNNING] = true, [JOB_CANCELLED] = true, [JOB_FAILED] = true},
    [JOB_RUNNING] =
        {
            [JOB_SUCCEEDED] = true,
            [JOB_FAILED] = true,
            [JOB_CANCELLED] = true,
            [JOB_INTERRUPTED] = true,
            [JOB_QUEUED] = true, /* its worker crashed: another attempt */
        },
    [JOB_FAILED] = {[JOB_QUEUED] = true},
    [JOB_CANCELLED] = {[JOB_QUEUED] = true},
    [JOB_INTERRUPTED] = {[JOB_QUEUED] = true, [JOB_CANCELLED] = true},
};

enum job_state job_state_of(const json_t *doc) {
    const char *s = json_string_value(json_object_get(doc, "state"));

    for (int i = 0; s && i < JOB_STATES; i++)
        if (!strcmp(job_state_names[i], s))
            return (enum job_state)i;
    return JOB_FAILED;
}

bool job_is_final(const json_t *doc) {
    enum job_state s = job_state_of(doc);

    return s == JOB_SUCCEEDED || s == JOB_FAILED || s == JOB_CANCELLED;
}

/* Kept and told under one lock: listeners get the ids in their order, whichever threads they come from. */
void job_event(struct jobs *j, const char *id, const char *type, json_t *data) {
    int64_t n;

    store_lock(j->store);
    n = store_event_add(j->store, id, type, data);
    if (n > 0 && j->listener)
        j->listener(j->listener_ctx, id, n, type, data);
    store_unlock(j->store);
    json_decref(data);
}

static void stamp(json_t *doc, enum job_state to) {
    char now[TIME_TEXT_MAX];

    time_text(now);
    json_object_set_new(doc, "state", json_string(job_state_names[to]));
    if (to == JOB_RUNNING) {
        json_object_set_new(doc, "started", json_string(now));
        json_object_set_new(
            doc, "attempts", json_integer(json_integer_value(json_object_get(doc, "attempts")) + 1));
    }
    if (to == JOB_QUEUED) {
        json_object_set_new(doc, "finished", json_null());
        json_object_set_new(doc, "error", json_null());
    }
    if (job_is_final(doc))
        json_object_set_new(doc, "finished", json_string(now));
    if (to == JOB_SUCCEEDED) {
        json_t *n = json_object_get(json_object_get(doc, "progress"), "of");

        json_object_set_new(doc, "progress",
            json_pack("{s:O, s:O, s:f, s:s, s:f}", "step", n, "of", n, "fraction", 1.0, "message", "done",
                "eta_seconds", 0.0));
    }
}

/* Of the running job: those it has told by now. */
static void add_metrics(struct jobs *j, const char *id, json_t *doc) {
    pthread_mutex_lock(&j->lock);
    if (!strcmp(j->running, id) && j->metrics)
        json_object_set_new(doc, "metrics", job_metrics_list(j->metrics));
    pthread_mutex_unlock(&j->lock);
}

int job_set_state(struct jobs *j, const char *id, enum job_state to, const json_t *more,
    struct store_change *changes, size_t n_changes, struct error *err) {
    struct store_change all[8];
    json_t *old, *doc;
    int r;

    assert(n_changes < 8);
    store_lock(j->store);
    old = store_get(j->store, STORE_JOB, id);
    if (!old) {
        store_unlock(j->store);
        return error_set(err, -ENOENT, "there is no job '%.40s'", id);
    }
    if (!allowed[job_state_of(old)][to]) { /* another was faster: a cancelled job must not start */
        r = error_code(err, -EEXIST, "job_finished", "the job is %s and cannot become %s",
            job_state_names[job_state_of(old)], job_state_names[to]);
        store_unlock(j->store);
        json_decref(old);
        return r;
    }
    doc = json_copy(old);
    add_metrics(j, id, doc);
    if (more)
        json_object_update(doc, (json_t *)(uintptr_t)more);
    stamp(doc, to);
    for (size_t i = 0; i < n_changes; i++)
        all[i] = changes[i];
    all[n_changes] = (struct store_change){STORE_JOB, id, doc};
    r = store_apply(j->store, all, n_changes + 1, err);
    if (r == 0) {
        job_event(j, id, "state", json_pack("{s:s, s:s}", "job", id, "state", job_state_names[to]));
        if (job_is_final(doc))
            job_event(j, id, "done", jobs_get(j, id));
    }
    store_unlock(j->store);
    pthread_mutex_lock(&j->lock);
    pthread_cond_broadcast(&j->changed);
    pthread_mutex_unlock(&j->lock);
    json_decref(old);
    json_decref(doc);
    return r;
}

/* What the API shows: without the daemon's own members, with the present progress. */
static json_t *shown(struct jobs *j, const json_t *doc) {
    json_t *copy = json_copy((json_t *)(uintptr_t)doc);
    const char *id = json_string_value(json_object_get(doc, "id"));

    json_object_del(copy, "request");
    json_object_del(copy, "crashes");
    json_object_del(copy, "question");
    pthread_mutex_lock(&j->lock);
    if (!strcmp(j->running, id) && j->progress)
        json_object_set(copy, "progress", j->progress);
    pthread_mutex_unlock(&j->lock);
    add_metrics(j, id, copy);
    return copy;
}

json_t *jobs_get(struct jobs *j, const char *id) {
    json_t *doc = store_get(j->store, STORE_JOB, id), *copy = doc ? shown(j, doc) : NULL;

    json_decref(doc);
    return copy;
}

static bool is_like(const json_t *doc, const char *key, const char *value) {
    const char *s = json_string_value(json_object_get(doc, key));

    return !value || (s && !strcmp(s, value));
}

/* As `shown`, without what is long. */
static json_t *row_of(struct jobs *j, const json_t *doc) {
    json_t *row = shown(j, doc), *result = json_object_get(row, "result");

    if (json_is_object(result) && job_is_sensitivity(doc))
        json_object_set_new(row, "result", job_sensitivity_row(result));
    return row;
}

json_t *jobs_list(struct jobs *j, const char *state, const char *model) {
    json_t *all = store_list(j->store, STORE_JOB, NULL), *list = json_array();

    /* ids begin with the time: the last key is the newest */
    for (size_t i = json_array_size(all); i-- > 0;) {
        json_t *doc = json_array_get(all, i);

        if (is_like(doc, "state", state) && is_like(doc, "model", model))
            json_array_append_new(list, row_of(j, doc));
    }
    json_decref(all);
    return list;
}

void jobs_count(struct jobs *j, unsigned ret[static JOB_STATES]) {
    json_t *all = store_list(j->store, STORE_JOB, NULL), *doc;
    size_t i;

    memset(ret, 0, JOB_STATES * sizeof(*ret));
    json_array_foreach(all, i, doc) ret[job_state_of(doc)]++;
    json_decref(all);
}

/* A recipe's name becomes its steps. */
static int resolve_recipe(const struct jobs *j, json_t *doc, struct error *err) {
    const char *name = json_string_value(json_object_get(json_object_get(doc, "request"), "recipe"));
    json_t *items = json_object_get(j->recipes, "items"), *r;
    size_t i;

    if (!name)
        return 0;
    json_array_foreach(items, i,
        r) if (!strcmp(json_string_value(json_object_get(r, "name")), name)) return json_object_set(doc,
        "steps", json_object_get(r, "steps"));
    return error_set(
        err, -EINVAL, "recipe: there is no recipe '%.64s' (GET /api/v1/recipes lists them)", name);
}

static void add_memory_limit(json_t *request, uint64_t bytes) {
    json_t *limits = json_object_get(request, "limits");

    if (!bytes || json_is_number(json_object_get(limits, "memory_bytes")))
        return;
    limits = json_is_object(limits) ? json_copy(limits) : json_object();
    json_object_set_new(limits, "memory_bytes", json_integer((json_int_t)bytes));
    json_object_set_new(request, "limits", limits);
}

json_t *job_limited(const struct jobs *j, const json_t *request) {
    json_t *copy = json_copy((json_t *)(uintptr_t)request);

    if (copy) {
        if (j->options.threads)
            json_object_set_new(copy, "threads", json_integer((json_int_t)j->options.threads));
        add_memory_limit(copy, j->options.memory_bytes);
        store_pictures_offer(j->store, j->options.cache_bytes, copy);
    }
    return copy;
}

static int call_worker(
    struct jobs *j, const json_t *request, unsigned limit_s, json_t **ret, struct error *err) {
    json_auto_t *limited = job_limited(j, request);

    return limited ? spawn_call(j->worker, limited, limit_s, ret, err) : error_oom(err);
}

/* The worker's dry run. The model may be replaced while the worker looks: the file it was to read is gone
 * then, and it looks again at the new one, or the model itself is what is missing. */
static int plan_with_worker(struct jobs *j, const json_t *doc, json_t **ret, struct error *err) {
    int r = 0;

    for (int tries = 0; tries < 3; tries++) {
        json_t *request = NULL;
        struct error why = {0};
        const char *input;
        bool is_sure;

        r = job_request_for_worker(j->store, doc, "plan", NULL, &request, err);
        if (r < 0)
            return r;
        r = call_worker(j, request, j->options.check_limit_s, ret, &why);
        /* the same content may have come back meanwhile: its failure to open the file says nothing either */
        input = json_string_value(json_object_get(request, "input")); /* a training from nothing has none */
        is_sure = (!input || access(input, F_OK) == 0) && !(why.code && !strcmp(why.code, "internal"));
        json_decref(request);
        if (r < 0 && (is_sure || tries == 2))
            return error_copy(err, &why);
        if (r == 0)
            break;
    }
    return r;
}

/* The request as a document, checked here and, where something is made, by the worker's dry run (*ret_plan,
 * may be NULL). */
static int check(struct jobs *j, const json_t *body, json_t **ret, json_t **ret_plan, struct error *err) {
    json_t *doc = NULL, *plan = NULL;
    int r = job_request_check(j->store, body, &doc, err);

    if (r == 0)
        r = resolve_recipe(j, doc, err);
    if (r == 0 && (json_array_size(json_object_get(doc, "steps")) > 0 || job_is_training(doc) ||
                      job_is_sensitivity(doc)))
        r = plan_with_worker(j, doc, &plan, err);
    else if (r == 0 && !strcmp(json_string_value(json_object_get(doc, "kind")), "compress"))
        r = error_set(err, -EINVAL, "steps is empty");
    if (r < 0 || !ret_plan)
        json_decref(plan);
    else
        *ret_plan = plan ? plan : json_object();
    if (r < 0 || !ret)
        json_decref(doc);
    else
        *ret = doc;
    return r;
}

int jobs_plan(struct jobs *j, const json_t *body, json_t **ret, struct error *err) {
    return check(j, body, NULL, ret, err);
}

static int check_room(struct jobs *j, struct error *err) {
    unsigned n[JOB_STATES];

    jobs_count(j, n);
    if (n[JOB_QUEUED] + n[JOB_RUNNING] + n[JOB_INTERRUPTED] < j->options.max_queued)
        return 0;
    return error_code(err, -EAGAIN, "queue_full", "%u jobs wait already", j->options.max_queued);
}

/* Job and key in one transaction: a kill between the two would make the client's retry a second job. Store
 * locked. 1: another request with the key was faster, and id is its job. */
static int create_locked(struct jobs *j, const json_t *body, const struct job_key *key, json_t *doc,
    char id[static UUID_MAX], struct error *err) {
    json_auto_t *again = NULL, *key_doc = NULL;
    struct store_change changes[2];
    size_t n = 1;
    int r = key ? job_key_find(j->store, key, id, err) : 0;

    if (r == 0)
        r = check_room(j, err); /* others may have come while the worker looked, and the name have gone */
    if (r == 0)
        r = job_request_check(j->store, body, &again, err);
    if (r != 0)
        return r;
    uuid_v7(id);
    json_object_set_new(doc, "id", json_string(id));
    changes[0] = (struct store_change){STORE_JOB, id, doc};
    if (key) {
        key_doc = job_key_doc(key, id);
        if (!key_doc)
            return error_oom(err);
        changes[n++] = (struct store_change){STORE_IDEMPOTENCY, key->name, key_doc};
        r = store_forget_keys(j->store, err);
    }
    if (r == 0)
        r = store_apply(j->store, changes, n, err);
    if (r == 0) /* before the runner can see the job and say that it runs */
        job_event(j, id, "state", json_pack("{s:s, s:s}", "job", id, "state", "queued"));
    return r;
}

static int create(struct jobs *j, const json_t *body, const struct job_key *key, char id[static UUID_MAX],
    struct error *err) {
    json_t *doc = NULL;
    int r = check_room(j, err);

    if (r == 0)
        r = check(j, body, &doc, NULL, err);
    if (r < 0)
        return r;
    store_lock(j->store);
    r = create_locked(j, body, key, doc, id, err);
    store_unlock(j->store);
    json_decref(doc);
    if (r < 0)
        return r;
    job_sensitivity_try(j, id);
    pthread_mutex_lock(&j->lock);
    pthread_cond_broadcast(&j->changed);
    pthread_mutex_unlock(&j->lock);
    return 0;
}

int jobs_create(
    struct jobs *j, const json_t *body, const struct job_key *key, json_t **ret, struct error *err) {
    char id[UUID_MAX];
    int r = key ? job_key_find(j->store, key, id, err) : 0;

    if (r == 0)
        r = create(j, body, key, id, err);
    if (r < 0)
        return r;
    *ret = jobs_get(j, id);
    return *ret ? 0 : error_oom(err);
}

static bool is_running(struct jobs *j, const char *id) {
    bool yes;

    pthread_mutex_lock(&j->lock);
    yes = !strcmp(j->running, id);
    pthread_mutex_unlock(&j->lock);
    return yes;
}

int jobs_cancel(struct jobs *j, const char *id, json_t **ret, struct error *err) {
    json_t *doc;
    int r = 0;

    store_lock(j->store);
    doc = store_get(j->store, STORE_JOB, id);
    if (!doc)
        r = error_set(err, -ENOENT, "there is no job '%.40s'", id);
    else if (job_state_of(doc) == JOB_QUEUED || job_state_of(doc) == JOB_INTERRUPTED)
        r = job_set_state(j, id, JOB_CANCELLED, NULL, NULL, 0, err);
    else if (job_state_of(doc) == JOB_RUNNING && !is_running(j, id)) /* its end could not be written */
        r = job_set_state(j, id, JOB_CANCELLED, NULL, NULL, 0, err);
    else if (job_state_of(doc) == JOB_RUNNING) {
        pthread_mutex_lock(&j->lock);
        j->cancel_running = !strcmp(j->running, id) || j->cancel_running;
        pthread_mutex_unlock(&j->lock);
    } else if (job_state_of(doc) != JOB_CANCELLED)
        r = error_code(err, -EEXIST, "job_finished", "the job has %s", job_state_names[job_state_of(doc)]);
    store_unlock(j->store);
    json_decref(doc);
    if (r == 0)
        *ret = jobs_get(j, id);
    return r;
}

int jobs_retry(struct jobs *j, const char *id, json_t **ret, struct error *err) {
    json_t *doc, *more = json_pack("{s:i, s:i, s:n}", "attempts", 0, "crashes", 0, "result");
    int r = 0;

    store_lock(j->store);
    doc = store_get(j->store, STORE_JOB, id);
    if (!doc)
        r = error_set(err, -ENOENT, "there is no job '%.40s'", id);
    else if (job_state_of(doc) != JOB_FAILED && job_state_of(doc) != JOB_CANCELLED)
        r = error_code(err, -EEXIST, "job_finished",
            "the job is %s; only failed and cancelled ones are tried again",
            job_state_names[job_state_of(doc)]);
    if (r == 0)
        r = job_request_check_again(j->store, doc, err);
    if (r == 0)
        r = job_set_state(j, id, JOB_QUEUED, more, NULL, 0, err);
    store_unlock(j->store);
    json_decref(doc);
    json_decref(more);
    if (r == 0)
        *ret = jobs_get(j, id);
    return r;
}

int jobs_delete(struct jobs *j, const char *id, struct error *err) {
    json_t *doc;
    int r;

    store_lock(j->store);
    doc = store_get(j->store, STORE_JOB, id);
    if (!doc)
        r = error_set(err, -ENOENT, "there is no job '%.40s'", id);
    else if (!job_is_final(doc))
        r = error_set(err, -EBUSY, "the job is %s: POST /api/v1/jobs/%s/cancel ends it",
            job_state_names[job_state_of(doc)], id);
    else
        r = store_apply(j->store, &(struct store_change){STORE_JOB, id, NULL}, 1, err);
    if (r == 0) {
        store_events_drop(j->store, id);
        store_checkpoint_drop(j->store, id);
    }
    store_unlock(j->store);
    json_decref(doc);
    return r;
}

void jobs_cancel_model(struct jobs *j, const char *model) {
    json_t *list = store_list(j->store, STORE_JOB, NULL), *doc, *ignored = NULL;
    size_t i;

    json_array_foreach(list, i, doc) {
        const char *id = json_string_value(json_object_get(doc, "id"));
        struct timespec pause = {0, 20000000};

        if (job_is_final(doc) || !models_job_uses(doc, model) || jobs_cancel(j, id, &ignored, NULL) < 0)
            continue;
        json_decref(ignored);
        for (int k = 0; k < 600 && is_running(j, id); k++)
            nanosleep(&pause, NULL);
    }
    json_decref(list);
}

void jobs_listen(struct jobs *j, jobs_listener_fn *fn, void *ctx) {
    j->listener_ctx = ctx;
    j->listener = fn;
}

int jobs_check_model(struct jobs *j, const char *path, json_t **ret_summary, struct error *err) {
    json_t *request = json_pack("{s:s, s:s}", "kind", "check", "input", path);
    int r = request ? call_worker(j, request, j->options.check_limit_s, ret_summary, err) : error_oom(err);

    json_decref(request);
    return r;
}

int jobs_import_dataset(struct jobs *j, const json_t *request, json_t **ret, struct error *err) {
    return call_worker(j, request, 3600, ret, err);
}

const json_t *jobs_methods(const struct jobs *j) {
    return j->methods;
}

const json_t *jobs_recipes(const struct jobs *j) {
    return j->recipes;
}

/* Its metrics are known from its events only. */
static int recover_running(struct jobs *j, const char *id, struct error *err) {
    _cleanup_(job_metrics_freep) struct job_metrics *m = job_metrics_new(j->store, id);
    json_auto_t *more = m ? json_pack("{s:o}", "metrics", job_metrics_list(m)) : NULL;

    return more ? job_set_state(j, id, JOB_INTERRUPTED, more, NULL, 0, err) : error_oom(err);
}

/* After a kill: nothing runs, so what was running waits again. */
static int recover(struct jobs *j, struct error *err) {
    json_t *all = store_list(j->store, STORE_JOB, NULL), *doc;
    size_t i;
    int r = 0;

    json_array_foreach(all, i, doc) {
        const char *id = json_string_value(json_object_get(doc, "id"));

        if (r == 0 && job_state_of(doc) == JOB_RUNNING)
            r = recover_running(j, id, err);
        if (r == 0 && (job_state_of(doc) == JOB_RUNNING || job_state_of(doc) == JOB_INTERRUPTED))
            r = job_set_state(j, id, JOB_QUEUED, NULL, NULL, 0, err);
    }
    json_decref(all);
    return r;
}

static int load_methods(struct jobs *j, struct error *err) {
    json_t *request = json_pack("{s:s}", "kind", "methods"), *result = NULL;
    int r = spawn_call(j->worker, request, j->options.check_limit_s, &result, err);

    json_decref(request);
    if (r < 0)
        return error_prefix(err, r, "the worker's methods");
    j->methods = json_incref(json_object_get(result, "methods"));
    j->recipes = json_incref(json_object_get(result, "recipes"));
    json_decref(result);
    return 0;
}

int jobs_new(struct store *s, struct residency *r, const struct jobs_options *o, struct jobs **ret,
    struct error *err) {
    struct jobs *j = calloc(1, sizeof(*j));
    int e;

    if (!j || !(j->worker = strdup(o->worker))) {
        free(j);
        return error_oom(err);
    }
    j->store = s;
    j->residency = r;
    j->options = *o;
    pthread_mutex_init(&j->lock, NULL);
    pthread_cond_init(&j->changed, NULL);
    e = recover(j, err);
    if (e == 0)
        e = load_methods(j, err);
    if (e < 0) {
        jobs_free(j);
        return e;
    }
    *ret = j;
    return 0;
}

/* The oldest queued job of the highest priority ("priority" in the request, 0 the default, higher goes
 * first). */
static bool next_job(struct jobs *j, char ret[static UUID_MAX]) {
    json_t *all = store_list(j->store, STORE_JOB, NULL), *doc;
    json_int_t best = 0;
    bool found = false;
    size_t i;

    json_array_foreach(all, i, doc) {
        json_int_t p = json_integer_value(json_object_get(json_object_get(doc, "request"), "priority"));

        if (job_state_of(doc) != JOB_QUEUED || (found && p <= best))
            continue;
        found = true;
        best = p;
        snprintf(ret, UUID_MAX, "%s", json_string_value(json_object_get(doc, "id")));
    }
    json_decref(all);
    return found;
}

static void *runner_thread(void *arg) {
    struct jobs *j = arg;
    char id[UUID_MAX];

    pthread_mutex_lock(&j->lock);
    while (!j->is_ending) {
        struct job_metrics *metrics;
        bool found;

        pthread_mutex_unlock(&j->lock);
        found = next_job(j, id);
        pthread_mutex_lock(&j->lock);
        if (!found) {
            struct timespec until;

            /* woken by changes; the time-out covers one that came between */
            clock_gettime(CLOCK_REALTIME, &until);
            until.tv_sec += 1;
            if (!j->is_ending)
                pthread_cond_timedwait(&j->changed, &j->lock, &until);
            continue;
        }
        pthread_mutex_unlock(&j->lock);
        metrics = job_metrics_new(j->store, id);
        pthread_mutex_lock(&j->lock);
        j->metrics = metrics;
        snprintf(j->running, sizeof(j->running), "%s", id);
        j->cancel_running = false;
        pthread_mutex_unlock(&j->lock);
        job_run(j, id);
        pthread_mutex_lock(&j->lock);
        j->running[0] = 0;
        j->metrics = job_metrics_free(j->metrics);
        json_decref(j->progress);
        j->progress = NULL;
    }
    pthread_mutex_unlock(&j->lock);
    return NULL;
}

int jobs_start(struct jobs *j, struct error *err) {
    if (pthread_create(&j->runner, NULL, runner_thread, j) != 0)
        return error_set(err, -EAGAIN, "no thread for jobs");
    j->has_runner = true;
    return 0;
}

struct jobs *jobs_free(struct jobs *j) {
    if (!j)
        return NULL;
    pthread_mutex_lock(&j->lock);
    j->is_ending = true;
    pthread_cond_broadcast(&j->changed);
    pthread_mutex_unlock(&j->lock);
    if (j->has_runner)
        pthread_join(j->runner, NULL);
    json_decref(j->methods);
    json_decref(j->recipes);
    json_decref(j->progress);
    pthread_cond_destroy(&j->changed);
    pthread_mutex_destroy(&j->lock);
    free(j->worker);
    free(j);
    return NULL;
}
