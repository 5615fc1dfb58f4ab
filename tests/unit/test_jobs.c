/* Jobs and worker processes. The worker is this program itself, called with "job": what it does is said by
 * the seed of the job. */
#include "tests/unit/cmocka_all.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <sqlite3.h>
#include <stdio.h>

#include "daemon/job_key.h"
#include "daemon/job_metrics.h"
#include "daemon/jobs.h"
#include "daemon/spawn.h"
#include "tests/unit/model_file.h"
#include "tests/unit/state_dir.h"

enum behaviour { WORKS, CRASHES, TALKS_GARBAGE, HANGS_UNTIL_ASKED, REFUSES, SAYS_ITS_MEMORY };

/* --- the worker --- */

static void say(const char *line) {
    puts(line);
    fflush(stdout);
}

static int copy_file(const char *from, const char *to) {
    size_t size = 0;
    uint8_t *p = data_bytes(from, &size);
    FILE *f = fopen(to, "we");
    int r = p && f && fwrite(p, 1, size, f) == size ? 0 : -1;

    if (f)
        fclose(f);
    free(p);
    return r;
}

static int hang_until_asked(void) {
    static char line[1 << 16];

    say("{\"log\":{\"level\":\"info\",\"text\":\"waiting\"}}");
    if (fgets(line, sizeof(line), stdin))
        say("{\"error\":{\"code\":\"cancelled\",\"message\":\"asked to stop\"}}");
    return 1;
}

static int work(const json_t *job) {
    switch ((enum behaviour)json_integer_value(json_object_get(job, "seed"))) {
    case WORKS:
        say("{\"progress\":{\"step\":0,\"of\":1,\"fraction\":0.5,\"message\":\"half\",\"eta_seconds\":1}}");
        say("{\"metric\":{\"name\":\"loss\",\"value\":0.5,\"epoch\":1}}");
        if (copy_file(json_string_value(json_object_get(job, "input")),
                json_string_value(json_object_get(job, "output"))) < 0)
            return 1;
        say("{\"done\":{\"layers\":[],\"steps\":[],\"evaluation\":null,\"verdicts\":[]}}");
        return 0;
    case CRASHES: raise(SIGKILL); return 1;
    case TALKS_GARBAGE: say("Segmentation fault"); return 0;
    case HANGS_UNTIL_ASKED: return hang_until_asked();
    case REFUSES:
        say("{\"error\":{\"code\":\"method_not_applicable\",\"message\":\"step 0: no layer\"}}");
        return 1;
    case SAYS_ITS_MEMORY:
        printf("{\"error\":{\"code\":\"internal\",\"message\":\"memory %lld\"}}\n",
            json_integer_value(json_object_get(json_object_get(job, "limits"), "memory_bytes")));
        fflush(stdout);
        return 1;
    default: return 1;
    }
}

static int worker(void) {
    static char line[1 << 16];
    json_t *job = fgets(line, sizeof(line), stdin) ? json_loads(line, 0, NULL) : NULL;
    const char *kind = json_string_value(json_object_get(job, "kind"));
    int r = 1;

    if (!kind)
        r = 1;
    else if (!strcmp(kind, "methods"))
        say("{\"done\":{\"methods\":{},\"recipes\":{\"items\":[]}}}");
    else if (!strcmp(kind, "plan"))
        say("{\"done\":{\"layers\":[]}}");
    else if (!strcmp(kind, "check"))
        say("{\"done\":{\"inputs\":[],\"outputs\":[]}}");
    else if (!strcmp(kind, "evaluate"))
        r = hang_until_asked();
    else
        r = work(job);
    json_decref(job);
    return r;
}

/* --- the daemon's side --- */

struct fixture {
    char dir[64], self[4096];
    struct store *store;
    struct residency *residency;
    struct jobs *jobs;
    pthread_mutex_t lock;
    pthread_cond_t changed;
    unsigned n_events;
    unsigned seconds; /* limits of jobs that name none */
    uint64_t memory_bytes;
};

static void on_event(void *ctx, const char *job, int64_t id, const char *type, const json_t *data) {
    struct fixture *f = ctx;

    (void)job;
    (void)id;
    (void)type;
    (void)data;
    pthread_mutex_lock(&f->lock);
    f->n_events++;
    pthread_cond_broadcast(&f->changed);
    pthread_mutex_unlock(&f->lock);
}

static void open_jobs(struct fixture *f) {
    struct jobs_options o = {.worker = f->self,
        .max_queued = 4,
        .check_limit_s = 60,
        .max_attempts = 3,
        .seconds = f->seconds,
        .memory_bytes = f->memory_bytes};
    struct residency_options options = {.budget = 1u << 30, .slots = 1, .threads = 1};
    struct error err = {0};

    f->store = state_dir_open(f->dir);
    assert_int_equal(residency_new(f->store, &options, &f->residency, NULL), 0);
    if (jobs_new(f->store, f->residency, &o, &f->jobs, &err) < 0)
        fail_msg("%s", err.text);
    jobs_listen(f->jobs, on_event, f);
}

static void close_jobs(struct fixture *f) {
    jobs_free(f->jobs);
    residency_free(f->residency);
    store_free(f->store);
}

static int setup(void **state) {
    struct fixture *f = calloc(1, sizeof(*f));
    size_t size = 0;
    uint8_t *bytes = data_bytes(TEST_DATA "/models/mnist-8.onnx", &size);
    ssize_t n = readlink("/proc/self/exe", f->self, sizeof(f->self) - 1);
    bool is_new;

    assert_true(n > 0);
    pthread_mutex_init(&f->lock, NULL);
    pthread_cond_init(&f->changed, NULL);
    temp_dir_make(f->dir);
    open_jobs(f);
    assert_int_equal(state_dir_model(f->store, "m", bytes, size, &is_new, NULL), 0);
    free(bytes);
    *state = f;
    return 0;
}

static int teardown(void **state) {
    struct fixture *f = *state;

    close_jobs(f);
    temp_dir_remove(f->dir);
    free(f);
    return 0;
}

/* Creates a job; its id. */
static void create(struct fixture *f, const char *variant, enum behaviour b, char ret_id[static 64]) {
    json_t *body = json_pack("{s:s, s:s, s:s, s:[{s:s}], s:i}", "kind", "compress", "model", "m", "variant",
        variant, "steps", "method", "quantize", "seed", (int)b);
    struct error err = {0};
    json_t *job = NULL;

    if (jobs_create(f->jobs, body, NULL, &job, &err) < 0)
        fail_msg("%s", err.text);
    snprintf(ret_id, 64, "%s", json_string_value(json_object_get(job, "id")));
    assert_string_equal(json_string_value(json_object_get(job, "state")), "queued");
    json_decref(body);
    json_decref(job);
}

static bool has_state(struct fixture *f, const char *id, const char *want) {
    json_t *job = jobs_get(f->jobs, id);
    bool yes = job && !strcmp(json_string_value(json_object_get(job, "state")), want);

    json_decref(job);
    return yes;
}

/* Waits for a state by the events. */
static void wait_state(struct fixture *f, const char *id, const char *want) {
    pthread_mutex_lock(&f->lock);
    for (;;) {
        unsigned seen = f->n_events;
        bool yes;

        pthread_mutex_unlock(&f->lock);
        yes = has_state(f, id, want);
        pthread_mutex_lock(&f->lock);
        if (yes)
            break;
        while (f->n_events == seen)
            pthread_cond_wait(&f->changed, &f->lock);
    }
    pthread_mutex_unlock(&f->lock);
}

static void check_error(struct fixture *f, const char *id, const char *code, const char *part, int attempts) {
    json_t *job = jobs_get(f->jobs, id), *e = json_object_get(job, "error");

    assert_string_equal(json_string_value(json_object_get(e, "code")), code);
    assert_non_null(strstr(json_string_value(json_object_get(e, "message")), part));
    assert_int_equal(json_integer_value(json_object_get(job, "attempts")), attempts);
    json_decref(job);
}

#define EPOCHS 20000

/* What is kept of a name: from the first to the last, no two far apart. */
static void check_spread(const json_t *list, const char *name) {
    json_int_t before = 0, widest = 0, narrowest = EPOCHS;
    const json_t *e;
    size_t i;

    json_array_foreach(list, i, e) {
        json_int_t epoch = json_integer_value(json_object_get(e, "epoch"));

        if (strcmp(json_string_value(json_object_get(e, "name")), name) != 0)
            continue;
        if (before) {
            widest = epoch - before > widest ? epoch - before : widest;
            narrowest = epoch - before < narrowest && epoch != EPOCHS ? epoch - before : narrowest;
        } else {
            assert_int_equal(epoch, 1);
        }
        assert_true(epoch > before);
        before = epoch;
    }
    assert_int_equal(before, EPOCHS);
    assert_true(widest <= 128);
    assert_true(widest == narrowest);
}

static void test_metrics_stay_few_however_many_come(void **state) {
    static const char *const names[] = {"loss", "accuracy", "val_accuracy"};
    struct fixture *f = *state;
    struct job_metrics *m = job_metrics_new(f->store, "nobody");
    json_t *list;

    assert_non_null(m);
    for (int epoch = 1; epoch <= EPOCHS; epoch++)
        for (size_t k = 0; k < 3; k++) {
            json_t *e = json_pack("{s:s, s:f, s:i}", "name", names[k], "value", 0.5, "epoch", epoch);

            job_metrics_add(m, e);
            json_decref(e);
        }
    list = job_metrics_list(m);
    assert_true(json_array_size(list) <= JOB_METRICS_MAX);
    assert_true(json_array_size(list) >= JOB_METRICS_MAX / 2);
    for (size_t k = 0; k < 3; k++)
        check_spread(list, names[k]);
    json_decref(list);
    for (int i = 0; i < 2 * JOB_METRICS_MAX; i++) { /* whose names never come again */
        char name[32];
        json_t *e;

        snprintf(name, sizeof(name), "m%d", i);
        e = json_pack("{s:s}", "name", name);
        job_metrics_add(m, e);
        json_decref(e);
    }
    list = job_metrics_list(m);
    assert_true(json_array_size(list) <= JOB_METRICS_MAX);
    json_decref(list);
    job_metrics_free(m);
}

static void test_metrics_are_made_again_from_the_events(void **state) {
    struct fixture *f = *state;
    struct job_metrics *m;
    json_t *list;

    for (int epoch = 1; epoch <= 3; epoch++) {
        json_t *e = json_pack("{s:s, s:f, s:i}", "name", "loss", "value", 0.5, "epoch", epoch);

        assert_true(store_event_add(f->store, "somebody", "metric", e) > 0);
        assert_true(store_event_add(f->store, "somebody", "log", e) > 0);
        json_decref(e);
    }
    m = job_metrics_new(f->store, "somebody");
    assert_non_null(m);
    list = job_metrics_list(m);
    assert_int_equal(json_array_size(list), 3);
    assert_int_equal(json_integer_value(json_object_get(json_array_get(list, 2), "epoch")), 3);
    json_decref(list);
    job_metrics_free(m);
}

static void test_a_result_becomes_the_next_variant(void **state) {
    struct fixture *f = *state;
    json_t *v = NULL, *job, *events;
    int64_t before = 0;
    char id[64];
    size_t i;
    int fd;

    create(f, "small", WORKS, id);
    assert_int_equal(jobs_start(f->jobs, NULL), 0);
    wait_state(f, id, "succeeded");
    assert_int_equal(models_variant(f->store, "m", "2", &v, NULL), 0);
    assert_string_equal(json_string_value(json_object_get(v, "name")), "small");
    assert_string_equal(json_string_value(json_object_get(v, "parent")), "original");
    fd = store_blob_open(f->store, json_string_value(json_object_get(v, "digest")), NULL);
    assert_true(fd >= 0);
    close(fd);
    job = jobs_get(f->jobs, id);
    assert_int_equal(json_integer_value(json_object_get(json_object_get(job, "result"), "number")), 2);
    assert_int_equal(json_array_size(json_object_get(job, "metrics")), 1);
    events = store_events(f->store, id, 0, 100);
    assert_true(json_array_size(events) >= 4);
    json_t *e;
    json_array_foreach(events, i, e) {
        assert_true(json_integer_value(json_object_get(e, "id")) > before);
        before = json_integer_value(json_object_get(e, "id"));
    }
    e = json_object_get(json_array_get(events, 0), "data");
    assert_string_equal(json_string_value(json_object_get(e, "state")), "queued");
    e = json_array_get(events, json_array_size(events) - 1);
    assert_string_equal(json_string_value(json_object_get(e, "type")), "done");
    json_decref(events);
    json_decref(job);
    json_decref(v);
}

static void test_the_third_crash_is_the_last(void **state) {
    struct fixture *f = *state;
    json_t *v = NULL;
    char id[64];

    create(f, "small", CRASHES, id);
    assert_int_equal(jobs_start(f->jobs, NULL), 0);
    wait_state(f, id, "failed");
    check_error(f, id, "worker_crashed", "signal 9", 3);
    assert_int_equal(models_variant(f->store, "m", "small", &v, NULL), -ENOENT);
}

static void test_garbage_counts_as_a_crash(void **state) {
    struct fixture *f = *state;
    char id[64];

    create(f, "small", TALKS_GARBAGE, id);
    assert_int_equal(jobs_start(f->jobs, NULL), 0);
    wait_state(f, id, "failed");
    check_error(f, id, "worker_crashed", "without a result", 3);
}

static void test_the_workers_own_error_fails_at_once(void **state) {
    struct fixture *f = *state;
    char id[64], again[64];
    json_t *job = NULL;

    create(f, "small", REFUSES, id);
    assert_int_equal(jobs_start(f->jobs, NULL), 0);
    wait_state(f, id, "failed");
    check_error(f, id, "method_not_applicable", "step 0", 1);
    create(f, "small", HANGS_UNTIL_ASKED, again); /* the name is free again */
    assert_int_equal(jobs_retry(f->jobs, id, &job, NULL), -EEXIST);
    assert_int_equal(jobs_cancel(f->jobs, again, &job, NULL), 0);
    json_decref(job);
    wait_state(f, again, "cancelled");
    assert_int_equal(jobs_delete(f->jobs, again, NULL), 0);
    assert_null(jobs_get(f->jobs, again));
}

static void test_a_cancelled_job_frees_its_name(void **state) {
    struct fixture *f = *state;
    json_t *job = NULL, *body = json_pack("{s:s, s:s, s:s, s:[{s:s}]}", "kind", "compress", "model", "m",
                            "variant", "small", "steps", "method", "quantize");
    struct error err = {0};
    char id[64], waits[64];

    create(f, "small", HANGS_UNTIL_ASKED, id);
    create(f, "other", WORKS, waits);
    assert_int_equal(jobs_create(f->jobs, body, NULL, &job, &err), -EEXIST);
    assert_string_equal(err.code, "name_taken");
    assert_int_equal(jobs_start(f->jobs, NULL), 0);
    wait_state(f, id, "running");
    assert_int_equal(jobs_delete(f->jobs, id, NULL), -EBUSY);
    assert_int_equal(jobs_cancel(f->jobs, waits, &job, NULL), 0); /* a queued one ends at once */
    assert_string_equal(json_string_value(json_object_get(job, "state")), "cancelled");
    json_decref(job);
    assert_int_equal(jobs_cancel(f->jobs, id, &job, NULL), 0);
    json_decref(job);
    wait_state(f, id, "cancelled");
    assert_int_equal(jobs_cancel(f->jobs, id, &job, NULL), 0); /* once more is fine */
    json_decref(job);
    assert_int_equal(jobs_create(f->jobs, body, NULL, &job, NULL), 0);
    json_decref(job);
    json_decref(body);
}

static void test_a_stop_interrupts_and_the_next_start_goes_on(void **state) {
    struct fixture *f = *state;
    json_t *doc;
    char id[64];

    create(f, "small", HANGS_UNTIL_ASKED, id);
    assert_int_equal(jobs_start(f->jobs, NULL), 0);
    wait_state(f, id, "running");
    jobs_free(f->jobs);
    doc = store_get(f->store, STORE_JOB, id);
    assert_string_equal(json_string_value(json_object_get(doc, "state")), "interrupted");
    json_decref(doc);
    f->jobs = NULL;
    close_jobs(f);
    open_jobs(f);
    assert_true(has_state(f, id, "queued"));
    assert_int_equal(jobs_start(f->jobs, NULL), 0);
    wait_state(f, id, "running");
    doc = jobs_get(f->jobs, id);
    assert_int_equal(json_integer_value(json_object_get(doc, "attempts")), 2);
    json_decref(doc);
}

static void test_a_stop_is_no_crash(void **state) {
    struct fixture *f = *state;
    json_t *doc;
    char id[64];

    create(f, "small", HANGS_UNTIL_ASKED, id);
    for (int i = 0; i < 4; i++) { /* more stops than crashes are forgiven */
        assert_int_equal(jobs_start(f->jobs, NULL), 0);
        wait_state(f, id, "running");
        close_jobs(f);
        open_jobs(f);
        assert_true(has_state(f, id, "queued"));
    }
    doc = jobs_get(f->jobs, id);
    assert_int_equal(json_integer_value(json_object_get(doc, "attempts")), 4);
    assert_null(json_object_get(doc, "crashes"));
    json_decref(doc);
}

static void test_the_queue_is_bounded(void **state) {
    struct fixture *f = *state;
    json_t *job = NULL, *body = json_pack("{s:s, s:s, s:s, s:[{s:s}]}", "kind", "compress", "model", "m",
                            "variant", "v9", "steps", "method", "quantize");
    struct error err = {0};
    char id[64], name[8];

    for (int i = 0; i < 4; i++) {
        snprintf(name, sizeof(name), "v%d", i);
        create(f, name, WORKS, id);
    }
    assert_int_equal(jobs_create(f->jobs, body, NULL, &job, &err), -EAGAIN);
    assert_string_equal(err.code, "queue_full");
    json_decref(body);
}

static json_t *small_body(void) {
    return json_pack("{s:s, s:s, s:s, s:[{s:s}]}", "kind", "compress", "model", "m", "variant", "small",
        "steps", "method", "quantize");
}

static void test_a_key_seen_before_gives_the_job_made_then(void **state) {
    struct fixture *f = *state;
    struct job_key key = {.name = "me/1", .body = "sha256:a"}, other = {.name = "me/1", .body = "sha256:b"};
    json_t *body = small_body(), *job = NULL, *again = NULL;
    struct error err = {0};

    assert_int_equal(jobs_create(f->jobs, body, &key, &job, NULL), 0);
    close_jobs(f);
    open_jobs(f);
    assert_int_equal(jobs_create(f->jobs, body, &key, &again, NULL), 0);
    assert_true(json_equal(job, again));
    assert_int_equal(jobs_create(f->jobs, body, &other, &again, &err), -EEXIST);
    assert_string_equal(err.code, "idempotency_key_reused");
    json_decref(body);
    json_decref(job);
    json_decref(again);
}

static void test_a_key_that_cannot_be_kept_leaves_no_job(void **state) {
    struct fixture *f = *state;
    struct job_key key = {.name = "me/1", .body = "sha256:a"};
    json_t *body = small_body(), *job = NULL, *all;
    char path[128];
    sqlite3 *db;

    snprintf(path, sizeof(path), "%s/bonsaid.db", f->dir);
    assert_int_equal(sqlite3_open(path, &db), SQLITE_OK);
    assert_int_equal(sqlite3_exec(db, "DROP TABLE idempotency", NULL, NULL, NULL), SQLITE_OK);
    sqlite3_close(db);
    assert_true(jobs_create(f->jobs, body, &key, &job, NULL) < 0);
    all = store_list(f->store, STORE_JOB, NULL);
    assert_int_equal(json_array_size(all), 0);
    json_decref(all);
    json_decref(body);
}

/* What the jobs of a daemon with other options do. */
static void open_again(struct fixture *f, unsigned seconds, uint64_t memory_bytes) {
    close_jobs(f);
    f->seconds = seconds;
    f->memory_bytes = memory_bytes;
    open_jobs(f);
}

static void test_a_job_that_names_no_limits_has_the_options(void **state) {
    struct fixture *f = *state;
    char hangs[64], says[64];

    open_again(f, 1, 123456789);
    create(f, "small", HANGS_UNTIL_ASKED, hangs);
    create(f, "other", SAYS_ITS_MEMORY, says);
    assert_int_equal(jobs_start(f->jobs, NULL), 0);
    wait_state(f, hangs, "failed");
    check_error(f, hangs, "time_limit", "time limit", 1);
    wait_state(f, says, "failed");
    check_error(f, says, "internal", "memory 123456789", 1);
}

static void test_the_time_limit_covers_the_evaluation(void **state) {
    struct fixture *f = *state;
    json_t *body = small_body(), *job = NULL, *data;
    char id[64];

    data = json_pack("{s:s, s:[s, s], s:{s:{s:i}}}", "pack", "sha256:none", "classes", "a", "b", "splits",
        "test", "count", 2);
    assert_int_equal(store_apply(f->store, &(struct store_change){STORE_DATASET, "d", data}, 1, NULL), 0);
    json_object_set_new(body, "dataset", json_string("d"));
    json_object_set_new(body, "limits", json_pack("{s:i}", "seconds", 1));
    assert_int_equal(jobs_create(f->jobs, body, NULL, &job, NULL), 0);
    snprintf(id, sizeof(id), "%s", json_string_value(json_object_get(job, "id")));
    assert_int_equal(jobs_start(f->jobs, NULL), 0);
    wait_state(f, id, "failed");
    check_error(f, id, "time_limit", "time limit", 1);
    json_decref(body);
    json_decref(data);
    json_decref(job);
}

static void test_a_worker_that_hangs_is_ended_by_its_limit(void **state) {
    struct fixture *f = *state;
    json_t *job = json_pack("{s:s, s:i}", "kind", "compress", "seed", (int)HANGS_UNTIL_ASKED), *ret = NULL;
    struct error err = {0};

    assert_int_equal(spawn_call(f->self, job, 1, &ret, &err), -ETIME);
    assert_string_equal(err.code, "time_limit");
    json_decref(job);
}

static void test_a_worker_that_is_not_there_is_an_error(void **state) {
    struct spawn *s = NULL;
    struct error err = {0};

    (void)state;
    assert_int_equal(spawn_start("/nonexistent/worker", -1, &s, &err), -ENOENT);
}

int main(int argc, char **argv) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_a_result_becomes_the_next_variant, setup, teardown),
        cmocka_unit_test_setup_teardown(test_metrics_stay_few_however_many_come, setup, teardown),
        cmocka_unit_test_setup_teardown(test_metrics_are_made_again_from_the_events, setup, teardown),
        cmocka_unit_test_setup_teardown(test_the_third_crash_is_the_last, setup, teardown),
        cmocka_unit_test_setup_teardown(test_garbage_counts_as_a_crash, setup, teardown),
        cmocka_unit_test_setup_teardown(test_the_workers_own_error_fails_at_once, setup, teardown),
        cmocka_unit_test_setup_teardown(test_a_cancelled_job_frees_its_name, setup, teardown),
        cmocka_unit_test_setup_teardown(test_a_stop_interrupts_and_the_next_start_goes_on, setup, teardown),
        cmocka_unit_test_setup_teardown(test_a_stop_is_no_crash, setup, teardown),
        cmocka_unit_test_setup_teardown(test_the_queue_is_bounded, setup, teardown),
        cmocka_unit_test_setup_teardown(test_a_key_seen_before_gives_the_job_made_then, setup, teardown),
        cmocka_unit_test_setup_teardown(test_a_key_that_cannot_be_kept_leaves_no_job, setup, teardown),
        cmocka_unit_test_setup_teardown(test_a_job_that_names_no_limits_has_the_options, setup, teardown),
        cmocka_unit_test_setup_teardown(test_the_time_limit_covers_the_evaluation, setup, teardown),
        cmocka_unit_test_setup_teardown(test_a_worker_that_hangs_is_ended_by_its_limit, setup, teardown),
        cmocka_unit_test(test_a_worker_that_is_not_there_is_an_error),
    };

    if (argc == 2 && !strcmp(argv[1], "job"))
        return worker();
    signal(SIGPIPE, SIG_IGN); /* as daemon/main.c: a worker may go while it is written to */
    return cmocka_run_group_tests(tests, NULL, NULL);
}
