/* The table of metrics and GET /metrics. */
#include <dirent.h>
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

static const char *const stage_names[] = {"queue", "decode", "infer", "encode", "total"};

static void series_labels(const struct metric_series *s, char *labels, size_t size) {
    labels[0] = 0;
    metric_label(labels, size, "model", s->model);
    metric_label(labels, size, "variant", s->variant);
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
        uint64_t n;

        snprintf(labels, sizeof(labels), "code=\"%uxx\"", i);
        metrics_get_http(api->metrics, i, &n);
        metric_sample(w, labels, (double)n);
    }
}

static void collect_requests(const struct api *api, struct metric_writer *w) {
    struct metric_series s;

    for (size_t i = 0; metrics_get(api->metrics, i, &s); i++)
        for (size_t k = 0; k < sizeof(s.codes) / sizeof(s.codes[0]) && s.codes[k].n; k++) {
            char labels[256], code[16];

            series_labels(&s, labels, sizeof(labels));
            snprintf(code, sizeof(code), "%u", s.codes[k].status);
            metric_label(labels, sizeof(labels), "code", code);
            metric_sample(w, labels, (double)s.codes[k].n);
        }
}

static void collect_durations(const struct api *api, struct metric_writer *w) {
    struct metric_series s;

    for (size_t i = 0; metrics_get(api->metrics, i, &s); i++)
        for (size_t k = 0; k < STAGE_COUNT_S; k++) {
            uint64_t counts[METRIC_BUCKETS], sum = 0;
            char labels[256];

            for (size_t b = 0; b < METRIC_BUCKETS; b++)
                counts[b] = sum += s.stage[k].bucket[b];
            series_labels(&s, labels, sizeof(labels));
            metric_label(labels, sizeof(labels), "stage", stage_names[k]);
            metric_histogram(w, labels, metric_bounds, counts, METRIC_BUCKETS, s.stage[k].n, s.stage[k].sum);
        }
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
    {"bonsai_http_requests", METRIC_COUNTER, "HTTP requests answered, by class of status.", collect_http},
    {"bonsai_request_duration_seconds", METRIC_HISTOGRAM, "Time of inference requests by stage.",
        collect_durations},
    {"bonsai_requests", METRIC_COUNTER, "Inference requests answered, by status.", collect_requests},
    {"bonsai_uploads", METRIC_GAUGE, "Uploads under way.", collect_uploads},
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
        .scope = SCOPE_READ,
        .run = RUN_POOL,
        .handle = get_metrics,
        .id = "getMetrics",
        .summary = "Metrics in the Prometheus text format; OpenMetrics by Accept.",
        .statuses = "200",
        .produces = "text/plain, application/openmetrics-text"},
    {0},
};
