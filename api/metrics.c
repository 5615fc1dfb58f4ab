/* The table of metrics and GET /metrics. */
#include <dirent.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#include "api/api.h"
#include "api/metric.h"
#include "api/routes.h"
#include "base/cleanup.h"
#include "config/config.h"
#include "daemon/jobs.h"
#include "daemon/judge.h"
#include "daemon/models.h"
#include "daemon/residency.h"
#include "daemon/scheduler.h"

#define LABELS_MAX 320

/* Calls fn for every variant with its document, labels and statistics. */
typedef void variant_fn(struct metric_writer *w, const struct api *api, const json_t *variant,
    const char *key, const char *labels);

static void each_variant(const struct api *api, struct metric_writer *w, variant_fn *fn) {
    json_t *all = api->store ? store_list(api->store, STORE_VARIANT, NULL) : NULL, *v;
    size_t i;

    json_array_foreach(all, i, v) {
        const char *model = json_string_value(json_object_get(v, "model"));
        const char *name = json_string_value(json_object_get(v, "name"));
        char labels[LABELS_MAX] = "", key[2 * NAME_MAX_SIZE];

        if (!model || !name)
            continue;
        variant_key(model, (int)json_integer_value(json_object_get(v, "number")), key, sizeof(key));
        metric_label(labels, sizeof(labels), "model", model);
        metric_label(labels, sizeof(labels), "variant", name);
        fn(w, api, v, key, labels);
    }
    json_decref(all);
}

static void collect_build_info(const struct api *api, struct metric_writer *w) {
    char labels[128] = "";

    (void)api;
    metric_label(labels, sizeof(labels), "version", BONSAI_VERSION);
    metric_sample(w, labels, 1);
}

static void collect_connections(const struct api *api, struct metric_writer *w) {
    metric_sample(w, NULL, (double)atomic_load(&api->n_connections));
}

static void collect_streams(const struct api *api, struct metric_writer *w) {
    metric_sample(w, NULL, (double)atomic_load(&api->n_streams));
}

static void collect_uploads(const struct api *api, struct metric_writer *w) {
    metric_sample(w, NULL, (double)atomic_load(&api->n_uploads));
}

static void collect_body_bytes(const struct api *api, struct metric_writer *w) {
    metric_sample(w, NULL, (double)atomic_load(&api->body_bytes));
}

static void collect_http(const struct api *api, struct metric_writer *w) {
    for (unsigned i = 1; i <= 5; i++) {
        char labels[32];

        snprintf(labels, sizeof(labels), "code=\"%uxx\"", i);
        metric_sample(w, labels, (double)atomic_load(&api->n_answers[i]));
    }
}

static void requests_of(struct metric_writer *w, const struct api *api, const json_t *variant,
    const char *key, const char *labels) {
    struct judge_stats s;

    (void)variant;
    judge_get(api->judge, key, &s);
    for (size_t k = 0; k < JUDGE_CODES && s.code[k].n; k++) {
        char all[LABELS_MAX], code[16];

        snprintf(all, sizeof(all), "%s", labels);
        snprintf(code, sizeof(code), "%u", s.code[k].status);
        metric_label(all, sizeof(all), "code", code);
        metric_sample(w, all, (double)s.code[k].n);
    }
}

static void collect_requests(const struct api *api, struct metric_writer *w) {
    each_variant(api, w, requests_of);
}

static void durations_of(struct metric_writer *w, const struct api *api, const json_t *variant,
    const char *key, const char *labels) {
    struct judge_stats s;

    (void)variant;
    judge_get(api->judge, key, &s);
    for (size_t k = 0; k < STAGE_COUNT; k++) {
        uint64_t counts[JUDGE_BUCKETS], sum = 0;
        char all[LABELS_MAX];

        for (size_t b = 0; b < JUDGE_BUCKETS; b++)
            counts[b] = sum += s.stage[k].count[b];
        snprintf(all, sizeof(all), "%s", labels);
        metric_label(all, sizeof(all), "stage", judge_stage_names[k]);
        /* the judge's last bucket is the one without an edge */
        metric_histogram(
            w, all, judge_edges, counts, JUDGE_BUCKETS - 1, sum, (double)s.stage[k].sum_ns / 1e9);
    }
}

static void collect_durations(const struct api *api, struct metric_writer *w) {
    each_variant(api, w, durations_of);
}

static void batches_of(struct metric_writer *w, const struct api *api, const json_t *variant, const char *key,
    const char *labels) {
    struct judge_stats s;

    (void)variant;
    judge_get(api->judge, key, &s);
    metric_sample(w, labels, (double)s.n_executed);
}

static void collect_executions(const struct api *api, struct metric_writer *w) {
    each_variant(api, w, batches_of);
}

static void items_of(struct metric_writer *w, const struct api *api, const json_t *variant, const char *key,
    const char *labels) {
    struct judge_stats s;

    (void)variant;
    judge_get(api->judge, key, &s);
    metric_sample(w, labels, (double)s.n_items);
}

static void collect_items(const struct api *api, struct metric_writer *w) {
    each_variant(api, w, items_of);
}

static void waiting_of(struct metric_writer *w, const struct api *api, const json_t *variant, const char *key,
    const char *labels) {
    (void)variant;
    metric_sample(w, labels, (double)scheduler_waiting_for(api->scheduler, key));
}

static void collect_waiting(const struct api *api, struct metric_writer *w) {
    each_variant(api, w, waiting_of);
}

static void resident_of(struct metric_writer *w, const struct api *api, const json_t *variant,
    const char *key, const char *labels) {
    char reason[RESIDENCY_REASON_MAX];
    uint64_t bytes = 0;

    (void)variant;
    residency_state(api->residency, key, &bytes, reason);
    metric_sample(w, labels, (double)bytes);
}

static void collect_resident_bytes(const struct api *api, struct metric_writer *w) {
    each_variant(api, w, resident_of);
}

static void accuracy_of(struct metric_writer *w, const struct api *api, const json_t *variant,
    const char *key, const char *labels) {
    const json_t *accuracy = json_object_get(json_object_get(variant, "evaluation"), "accuracy");

    (void)api;
    (void)key;
    if (json_is_number(accuracy))
        metric_sample(w, labels, json_number_value(accuracy));
}

static void collect_accuracy(const struct api *api, struct metric_writer *w) {
    each_variant(api, w, accuracy_of);
}

static void collect_memory_used(const struct api *api, struct metric_writer *w) {
    uint64_t used = 0, budget = 0;

    if (api->residency)
        residency_count(api->residency, &used, &budget);
    metric_sample(w, NULL, (double)used);
}

static void collect_memory_budget(const struct api *api, struct metric_writer *w) {
    uint64_t used = 0, budget = 0;

    if (api->residency)
        residency_count(api->residency, &used, &budget);
    metric_sample(w, NULL, (double)budget);
}

static void collect_jobs(const struct api *api, struct metric_writer *w) {
    unsigned n[JOB_STATES] = {0};

    if (api->jobs)
        jobs_count(api->jobs, n);
    for (int i = 0; i < JOB_STATES; i++) {
        char labels[64] = "";

        metric_label(labels, sizeof(labels), "state", job_state_names[i]);
        metric_sample(w, labels, n[i]);
    }
}

/* ---- the names that dashboards made for Triton know, with the option triton_metrics ---- */

static const struct {
    const char *name;
    size_t at; /* of a uint64_t in struct judge_stats */
    double divisor;
} triton_fields[] = {
    {"nv_inference_compute_infer_duration_us", offsetof(struct judge_stats, stage[STAGE_INFER].sum_ns), 1e3},
    {"nv_inference_compute_input_duration_us", offsetof(struct judge_stats, stage[STAGE_DECODE].sum_ns), 1e3},
    {"nv_inference_compute_output_duration_us", offsetof(struct judge_stats, stage[STAGE_ENCODE].sum_ns),
        1e3},
    {"nv_inference_count", offsetof(struct judge_stats, n_items), 1},
    {"nv_inference_exec_count", offsetof(struct judge_stats, n_executed), 1},
    {"nv_inference_queue_duration_us", offsetof(struct judge_stats, stage[STAGE_QUEUE].sum_ns), 1e3},
    {"nv_inference_request_duration_us", offsetof(struct judge_stats, success_ns), 1e3},
    {"nv_inference_request_failure", offsetof(struct judge_stats, n_fail), 1},
    {"nv_inference_request_success", offsetof(struct judge_stats, n_success), 1},
};

static void triton_of(struct metric_writer *w, const struct api *api, const json_t *variant, const char *key,
    const char *labels) {
    char own[LABELS_MAX] = "", version[16];
    struct judge_stats s;

    (void)labels;
    judge_get(api->judge, key, &s);
    snprintf(version, sizeof(version), "%d", (int)json_integer_value(json_object_get(variant, "number")));
    metric_label(own, sizeof(own), "model", json_string_value(json_object_get(variant, "model")));
    metric_label(own, sizeof(own), "version", version);
    for (size_t i = 0; i < sizeof(triton_fields) / sizeof(triton_fields[0]); i++) {
        uint64_t v;

        if (strcmp(metric_row(w)->name, triton_fields[i].name) != 0)
            continue;
        memcpy(&v, (const char *)&s + triton_fields[i].at, sizeof(v));
        metric_sample(w, own, (double)v / triton_fields[i].divisor);
    }
}

static void collect_triton(const struct api *api, struct metric_writer *w) {
    if (api->config && api->config->triton_metrics)
        each_variant(api, w, triton_of);
}

/* ---- the process (proc(5)) ---- */

static void collect_cpu(const struct api *api, struct metric_writer *w) {
    struct rusage u;

    (void)api;
    if (!getrusage(RUSAGE_SELF, &u))
        metric_sample(w, NULL,
            (double)u.ru_utime.tv_sec + (double)u.ru_stime.tv_sec +
                (double)(u.ru_utime.tv_usec + u.ru_stime.tv_usec) / 1e6);
}

/* Pages of /proc/self/statm: field 0 the address space, 1 what is resident. */
static double read_statm(int field) {
    _cleanup_(fclosep) FILE *f = fopen("/proc/self/statm", "re");
    unsigned long v[2] = {0, 0};

    if (!f || fscanf(f, "%lu %lu", &v[0], &v[1]) != 2)
        return 0;
    return (double)v[field] * (double)sysconf(_SC_PAGESIZE);
}

static void collect_resident(const struct api *api, struct metric_writer *w) {
    (void)api;
    metric_sample(w, NULL, read_statm(1));
}

static void collect_virtual(const struct api *api, struct metric_writer *w) {
    (void)api;
    metric_sample(w, NULL, read_statm(0));
}

static void collect_open_fds(const struct api *api, struct metric_writer *w) {
    DIR *d = opendir("/proc/self/fd");
    double n = -3; /* ".", ".." and the descriptor of the reading itself */

    (void)api;
    if (!d)
        return;
    while (readdir(d))
        n++;
    closedir(d);
    metric_sample(w, NULL, n);
}

static void collect_max_fds(const struct api *api, struct metric_writer *w) {
    struct rlimit l;

    (void)api;
    if (!getrlimit(RLIMIT_NOFILE, &l))
        metric_sample(w, NULL, (double)l.rlim_cur);
}

static void collect_start_time(const struct api *api, struct metric_writer *w) {
    struct timespec mono, real;

    clock_gettime(CLOCK_MONOTONIC, &mono);
    clock_gettime(CLOCK_REALTIME, &real);
    metric_sample(w, NULL,
        (double)(real.tv_sec - mono.tv_sec) + (double)(real.tv_nsec - mono.tv_nsec) / 1e9 +
            (double)api->started_ns / 1e9);
}

/* Sorted by name. */
const struct metric metric_table[] = {
    {"bonsai_body_bytes", METRIC_GAUGE, "Bytes of request bodies in memory.", collect_body_bytes},
    {"bonsai_build_info", METRIC_GAUGE, "Version of the daemon.", collect_build_info},
    {"bonsai_connections", METRIC_GAUGE, "Open connections.", collect_connections},
    {"bonsai_event_streams", METRIC_GAUGE, "Open event streams.", collect_streams},
    {"bonsai_executions", METRIC_COUNTER, "Runs of a variant; one serves a whole batch.", collect_executions},
    {"bonsai_http_requests", METRIC_COUNTER, "HTTP requests answered, by class of status.", collect_http},
    {"bonsai_inferences", METRIC_COUNTER, "Items inferred; over executions it is the mean batch size.",
        collect_items},
    {"bonsai_jobs", METRIC_GAUGE, "Jobs known, by state.", collect_jobs},
    {"bonsai_memory_budget_bytes", METRIC_GAUGE, "Memory that variants may take.", collect_memory_budget},
    {"bonsai_memory_used_bytes", METRIC_GAUGE, "Memory that variants take.", collect_memory_used},
    {"bonsai_queue_length", METRIC_GAUGE, "Inference requests that wait for a slot.", collect_waiting},
    {"bonsai_request_duration_seconds", METRIC_HISTOGRAM, "Time of inference requests by stage.",
        collect_durations},
    {"bonsai_requests", METRIC_COUNTER, "Inference requests answered, by status.", collect_requests},
    {"bonsai_uploads", METRIC_GAUGE, "Uploads under way.", collect_uploads},
    {"bonsai_variant_accuracy_ratio", METRIC_GAUGE, "Accuracy of the variant's last evaluation.",
        collect_accuracy},
    {"bonsai_variant_resident_bytes", METRIC_GAUGE, "Memory that the variant takes.", collect_resident_bytes},
    {"nv_inference_compute_infer_duration_us", METRIC_FOREIGN_COUNTER, "Time of computing.", collect_triton},
    {"nv_inference_compute_input_duration_us", METRIC_FOREIGN_COUNTER, "Time of decoding.", collect_triton},
    {"nv_inference_compute_output_duration_us", METRIC_FOREIGN_COUNTER, "Time of encoding.", collect_triton},
    {"nv_inference_count", METRIC_FOREIGN_COUNTER, "Items inferred.", collect_triton},
    {"nv_inference_exec_count", METRIC_FOREIGN_COUNTER, "Runs of a variant.", collect_triton},
    {"nv_inference_queue_duration_us", METRIC_FOREIGN_COUNTER, "Time of waiting.", collect_triton},
    {"nv_inference_request_duration_us", METRIC_FOREIGN_COUNTER, "Time of whole requests.", collect_triton},
    {"nv_inference_request_failure", METRIC_FOREIGN_COUNTER, "Requests that failed.", collect_triton},
    {"nv_inference_request_success", METRIC_FOREIGN_COUNTER, "Requests that succeeded.", collect_triton},
    {"process_cpu_seconds", METRIC_COUNTER, "User and system CPU time.", collect_cpu},
    {"process_max_fds", METRIC_GAUGE, "Limit of open file descriptors.", collect_max_fds},
    {"process_open_fds", METRIC_GAUGE, "Open file descriptors.", collect_open_fds},
    {"process_resident_memory_bytes", METRIC_GAUGE, "Resident memory.", collect_resident},
    {"process_start_time_seconds", METRIC_GAUGE, "Start of the process, Unix time.", collect_start_time},
    {"process_virtual_memory_bytes", METRIC_GAUGE, "Virtual memory.", collect_virtual},
};
const size_t metric_table_size = sizeof(metric_table) / sizeof(metric_table[0]);

static int get_metrics(struct request *r, struct reply *p, struct error *err) {
    bool is_openmetrics = request_accepts(r, "application/openmetrics-text");
    _cleanup_(buf_done) struct buf b;
    size_t size;
    char *text;

    buf_init(&b, (size_t)16 << 20);
    if (metric_render(r->api, is_openmetrics, &b))
        return error_oom(err);
    size = b.size;
    text = buf_take(&b);
    if (!text)
        return error_oom(err);
    return reply_bytes(p, 200,
        is_openmetrics ? "application/openmetrics-text; version=1.0.0; charset=utf-8"
                       : "text/plain; version=0.0.4; charset=utf-8",
        text, size);
}

const struct route metrics_routes[] = {
    {.method = HTTP_GET,
        .path = "/metrics",
        .is_metrics = true,
        .scope = SCOPE_READ,
        .run = RUN_POOL,
        .handle = get_metrics,
        .id = "getMetrics",
        .summary = "Metrics in the Prometheus text format; OpenMetrics by Accept.",
        .statuses = "200",
        .produces = "text/plain, application/openmetrics-text"},
    {0},
};
