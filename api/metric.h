/* Metrics: one row each, collected when /metrics is read. metrics.c holds the daemon's rows.
 * Labels come from registered names only. */
#ifndef API_METRIC_H
#define API_METRIC_H

#include <stdbool.h>
#include <stdint.h>

#include "api/reply.h"
#include "base/buf.h"

struct api;
struct metric_writer;

enum metric_type {
    METRIC_GAUGE,
    METRIC_COUNTER,
    METRIC_HISTOGRAM,
    METRIC_FOREIGN_COUNTER, /* named by others, without "_total": not in OpenMetrics, which forbids it */
};

struct metric {
    const char *name; /* of counters without "_total" */
    enum metric_type type;
    const char *help;
    /* Writes the samples of this metric, if any. */
    void (*collect)(const struct api *api, struct metric_writer *w);
};

extern const struct metric metric_table[];
extern const size_t metric_table_size;

/* The row that is being collected. */
const struct metric *metric_row(const struct metric_writer *w);

/* One sample. `labels`: "a=\"x\",b=\"y\"" (values by metric_label()), NULL: none. */
void metric_sample(struct metric_writer *w, const char *labels, double value);

/* All samples of one histogram: cumulative counts of `n` buckets with upper bounds (seconds), the total count
 * and the sum. */
void metric_histogram(struct metric_writer *w, const char *labels, const double *bounds,
    const uint64_t *counts, size_t n, uint64_t total, double sum);

/* name="value" with quotes, backslashes and newlines escaped, appended to ret after a comma if not empty. */
void metric_label(char *ret, size_t size, const char *name, const char *value);

int metric_render_row(const struct metric *m, const struct api *api, bool is_openmetrics, struct buf *ret);

/* The whole text; `is_openmetrics`: in that format. */
int metric_render(const struct api *api, bool is_openmetrics, struct buf *ret);

#endif
