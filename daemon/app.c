#include "daemon/app.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysinfo.h>
#include <unistd.h>

#include "api/events.h"
#include "api/listener.h"
#include "api/metric.h"
#include "base/clock.h"
#include "daemon/cgroup.h"
#include "daemon/log.h"

/* bonsai-worker stands beside the daemon unless the configuration says where. */
static int worker_path(const struct config *c, char *ret, size_t size, struct error *err) {
    ssize_t n;
    char *slash;

    if (c->worker) {
        snprintf(ret, size, "%s", c->worker);
        return 0;
    }
    n = readlink("/proc/self/exe", ret, size - 32);
    if (n < 0)
        return error_errno(err, "the program's own path");
    ret[n] = 0;
    slash = strrchr(ret, '/');
    strcpy(slash + 1, "bonsai-worker");
    return access(ret, X_OK) < 0 ? error_errno(err, "'%s'", ret) : 0;
}

static int read_pem(const char *path, char **ret, struct error *err) {
    _cleanup_(closep) int fd = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    char *text;
    ssize_t n;

    if (!path)
        return 0;
    text = calloc(1, 1 << 20);
    if (!text)
        return error_oom(err);
    n = fd < 0 ? -1 : read(fd, text, (1 << 20) - 1);
    if (n <= 0) {
        free(text);
        return error_errno(err, "'%s'", path);
    }
    *ret = text;
    return 0;
}

/* As configured, else half of the machine's memory or of the control group's limit. */
static uint64_t memory_budget(const struct config *c) {
    uint64_t limit = cgroup_memory_limit("/proc/self/cgroup", "/sys/fs/cgroup"), ram = 0;
    struct sysinfo info;

    if (c->memory)
        return (uint64_t)c->memory;
    if (sysinfo(&info) == 0)
        ram = (uint64_t)info.totalram * info.mem_unit;
    return (limit && limit < ram ? limit : ram) / 2;
}

static unsigned slot_count(const struct config *c) {
    return c->mode == CONFIG_LATENCY ? 1 : (unsigned)c->threads;
}

static void trim_slots(void *scheduler) {
    scheduler_trim(scheduler);
}

/* What is loaded while nothing is served may have all the cores. */
static unsigned spare_threads(void *app) {
    const struct app *a = app;

    return scheduler_is_busy(a->scheduler) ? 1 : (unsigned)a->config.threads;
}

/* A file of times that cannot be used is measured anew. */
static int open_tuner(struct app *a, struct error *err) {
    struct error why = {0};
    char path[4096];

    if (a->config.deterministic)
        return 0;
    snprintf(path, sizeof(path), "%s/kernels.timings", a->config.state);
    if (tuner_new(path, &a->tuner, &why) < 0)
        return error_oom(err);
    if (why.err)
        log_printf(LOG_LEVEL_WARNING, "%s", why.text);
    return 0;
}

static int open_parts(struct app *a, struct error *err) {
    const struct config *c = &a->config;
    struct scheduler_options s = {
        .slots = slot_count(c),
        .threads_per_slot = c->mode == CONFIG_LATENCY ? (unsigned)c->threads : 1,
        .queue_limit = (unsigned)c->queue,
        .batch_delay_us = (unsigned)c->batch_delay_us,
    };
    char worker[4096];
    unsigned threads =
        (unsigned)(c->job_threads && c->job_threads < c->threads ? c->job_threads : c->threads);
    struct jobs_options j = {.worker = worker,
        .threads = threads,
        .max_queued = (unsigned)c->jobs_queue,
        .check_limit_s = 120,
        .max_attempts = 3,
        .seconds = (unsigned)c->job_seconds,
        .memory_bytes = (uint64_t)c->job_memory,
        .cache_bytes = (uint64_t)c->picture_cache};
    int r = worker_path(c, worker, sizeof(worker), err);

    if (r == 0)
        r = store_open(c->state, c->max_disk_share, &a->store, err);
    if (r == 0)
        r = open_tuner(a, err);
    if (r == 0)
        r = residency_new(a->store,
            &(struct residency_options){.budget = memory_budget(c),
                .slots = s.slots,
                .threads = s.threads_per_slot,
                .tuner = a->tuner},
            &a->residency, err);
    if (r == 0)
        r = activity_new((unsigned)c->threads, s.threads_per_slot, &a->activity, err);
    s.activity = j.activity = a->activity;
    if (r == 0)
        r = scheduler_new(&s, &a->scheduler, err);
    if (r == 0) {
        residency_on_unload(a->residency, trim_slots, a->scheduler);
        residency_on_load(a->residency, spare_threads, a);
    }
    if (r == 0 && !(a->judge = judge_new()))
        r = error_oom(err);
    if (r == 0)
        r = jobs_new(a->store, a->residency, &j, &a->jobs, err);
    if (r == 0 && !(a->events = events_new(a->jobs, a->store)))
        r = error_oom(err);
    return r;
}

static void fill_api(struct app *a) {
    const struct config *c = &a->config;

    a->api.limits = (struct api_limits){
        .model_bytes = (uint64_t)c->max_model_bytes,
        .dataset_bytes = (uint64_t)c->max_dataset_bytes,
        .dataset_members = (uint64_t)c->max_dataset_members,
        .body_bytes = (uint64_t)c->max_body_bytes,
        .bodies_bytes = (uint64_t)c->queue_bytes,
        .json_depth = (unsigned)c->max_json_depth,
        .uploads = (unsigned)c->max_uploads,
        .streams = (unsigned)c->max_event_streams,
        .connections = (unsigned)c->max_connections,
        .picture_pixels = (uint64_t)c->max_picture_megapixels * 1000000u,
    };
    a->api.loop = &a->loop;
    a->api.started_ns = clock_now_ns();
    a->api.store = a->store;
    a->api.residency = a->residency;
    a->api.scheduler = a->scheduler;
    a->api.jobs = a->jobs;
    a->api.judge = a->judge;
    a->api.config = c;
    a->api.events = a->events;
}

int app_open(struct app *a, struct error *err) {
    int r = open_parts(a, err);

    if (r == 0)
        r = auth_new(a->config.token_file, &a->auth, err);
    if (r == 0)
        r = read_pem(a->config.tls_cert, &a->cert, err);
    if (r == 0)
        r = read_pem(a->config.tls_key, &a->key, err);
    if (r == 0)
        r = read_pem(a->config.client_ca, &a->client_ca, err);
    if (r == 0)
        fill_api(a);
    return r;
}

static void *restore_thread(void *arg) {
    struct app *a = arg;

    residency_restore(a->residency);
    atomic_store(&a->api.is_ready, true);
    return NULL;
}

static int open_server(struct app *a, struct error *err) {
    const struct config *c = &a->config;
    struct server_options o;

    server_default_options(&o);
    o.listen = (const char *const *)c->listen;
    o.n_inherited = listener_inherited();
    o.tls_cert = a->cert;
    o.tls_key = a->key;
    o.client_ca = a->client_ca;
    o.is_insecure = c->insecure;
    o.server_names = (const char *const *)c->server_names;
    o.origins = (const char *const *)c->cors_origins;
    o.tmp_dir = store_tmp(a->store);
    o.connections = (unsigned)c->max_connections;
    o.idle_ms = (unsigned)c->idle_ms;
    o.headers_ms = (unsigned)c->headers_ms;
    o.body_grace_ms = (unsigned)c->body_grace_ms;
    o.body_rate = (unsigned)c->body_rate;
    return server_new(&a->api, a->auth, &o, &a->server, err);
}

int app_listen(struct app *a, struct error *err) {
    int r = open_server(a, err);

    if (r < 0)
        return r;
    if (pthread_create(&a->restorer, NULL, restore_thread, a) != 0)
        return error_set(err, -EAGAIN, "no thread for loading");
    a->has_restorer = true;
    if (a->tuner && a->config.tune) {
        r = tuning_new(a->residency, a->scheduler, a->tuner, &a->tuning, err);
        if (r < 0)
            return r;
    }
    return a->config.serve_only ? 0 : jobs_start(a->jobs, err);
}

void app_close(struct app *a) {
    if (a->has_restorer)
        pthread_join(a->restorer, NULL);
    tuning_free(a->tuning);
    if (a->residency) {
        residency_on_unload(a->residency, NULL, NULL);
        residency_on_load(a->residency, NULL, NULL);
    }
    scheduler_free(a->scheduler);
    jobs_free(a->jobs);
    activity_free(a->activity);
    events_free(a->events);
    residency_free(a->residency);
    tuner_free(a->tuner);
    judge_free(a->judge);
    store_free(a->store);
    auth_free(a->auth);
    free(a->cert);
    free(a->key);
    free(a->client_ca);
    config_done(&a->config);
}
