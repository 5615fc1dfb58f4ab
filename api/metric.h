/* Metrics: one row each, collected when /metrics is read. metrics.c holds the daemon's rows.
 *
 * Counting on the hot path: metrics_count() into one series per (model, variant); labels come from registered
 * names only. Safe from any thread. */
#ifndef API_METRIC_H
#define API_METRIC_H

#include <stdbool.h>
#include <stdint.h>

#include "api/reply.h"
#include "base/buf.h"

struct api;
struct metric_writer;

enum metric_type { METRIC_GAUGE, METRIC_COUNTER, METRIC_HISTOGRAM };

struct metric {
    const char *name; /* of counters without "_total" */
    enum metric_type type;
    const char *help;
    /* Writes the samples of this metric, if any. */
    void (*collect)(const struct api *api, struct metric_writer *w);
};

extern const struct metric metric_table[];
extern const size_t metric_table_size;

/* One sample. `labels`: "a=\"x\",b=\"y\"" (values by metric_label()), NULL: none. */
void metric_sample(struct metric_writer *w, const char *labels, double value);

/* All samples of one histogram: cumulative counts of `n` buckets with upper bounds (seconds), the total count
 * and the sum. */
void metric_histogram(struct metric_writer *w, const char *labels, const double *bounds,
    const uint64_t *counts, size_t n, uint64_t total, double sum);

/* name="value" with quotes, backslashes and newlines escaped, appended to ret after a comma if not empty. */
void metric_label(char *ret, size_t size, const char *name, const char *value);

/* The whole text; `is_openmetrics`: in that format. */
int metric_render(const struct api *api, bool is_openmetrics, struct buf *ret);

/* ---- what is counted here ---- */

enum metric_stage {
    STAGE_QUEUE_S,
    STAGE_DECODE_S,
    STAGE_INFER_S,
    STAGE_ENCODE_S,
    STAGE_TOTAL_S,
    STAGE_COUNT_S
};

#define METRIC_BUCKETS 18
extern const double metric_bounds[METRIC_BUCKETS]; /* seconds */

/* One (model, variant) as it stands. */
struct metric_series {
    char model[65], variant[65];
    struct {
        unsigned status;
        uint64_t n;
    } codes[16];
    struct {
        uint64_t bucket[METRIC_BUCKETS + 1];
        uint64_t n;
        double sum;
    } stage[STAGE_COUNT_S];
    uint64_t fail_n;
    double fail_sum;  /* seconds */
    uint64_t last_ms; /* Unix time of the last success */
};

struct metrics;
struct metrics *metrics_new(void);
void metrics_free(struct metrics *m);

/* An answered inference request. Stages below zero were not reached. */
void metrics_count(struct metrics *m, const char *model, const char *variant, unsigned status,
    const struct reply_timing *t, double total_ms);

/* Any answered HTTP request. */
void metrics_count_http(struct metrics *m, unsigned status);

/* Copies series i; false: past the last. */
bool metrics_get(struct metrics *m, size_t i, struct metric_series *ret);
bool metrics_find(struct metrics *m, const char *model, const char *variant, struct metric_series *ret);
void metrics_get_http(struct metrics *m, unsigned class_1_to_5, uint64_t *ret);

/* The model (variant NULL) or variant is gone, and with it its series. */
void metrics_forget(struct metrics *m, const char *model, const char *variant);

#endif
