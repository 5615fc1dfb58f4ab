#include "api/metric.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct metric_writer {
    struct buf *out;
    const struct metric *metric;
    bool is_openmetrics, has_head;
    int rc;
};

static void put_head(struct metric_writer *w) {
    static const char *const types[] = {"gauge", "counter", "histogram", "counter"};
    const struct metric *m = w->metric;
    /* the text format names a counter with its suffix, OpenMetrics without */
    const char *suffix = m->type == METRIC_COUNTER && !w->is_openmetrics ? "_total" : "";

    if (!w->has_head && !w->rc)
        w->rc = buf_printf(w->out, "# HELP %s%s %s\n# TYPE %s%s %s\n", m->name, suffix, m->help, m->name,
            suffix, types[m->type]);
    w->has_head = true;
}

static void put_sample(
    struct metric_writer *w, const char *suffix, const char *labels, const char *more, double value) {
    bool has_labels = (labels && *labels) || (more && *more);

    put_head(w);
    if (!w->rc)
        w->rc = buf_printf(w->out, "%s%s%s%s%s%s%s ", w->metric->name, suffix, has_labels ? "{" : "",
            labels ? labels : "", labels && *labels && more && *more ? "," : "", more ? more : "",
            has_labels ? "}" : "");
    if (!w->rc)
        w->rc = isfinite(value) ? buf_printf(w->out, "%.15g\n", value)
                                : buf_puts(w->out, isnan(value) ? "NaN\n" : "+Inf\n");
}

const struct metric *metric_row(const struct metric_writer *w) {
    return w->metric;
}

void metric_sample(struct metric_writer *w, const char *labels, double value) {
    put_sample(w, w->metric->type == METRIC_COUNTER ? "_total" : "", labels, NULL, value);
}

void metric_histogram(struct metric_writer *w, const char *labels, const double *bounds,
    const uint64_t *counts, size_t n, uint64_t total, double sum) {
    char le[48];

    for (size_t i = 0; i < n; i++) {
        snprintf(le, sizeof(le), "le=\"%.6g\"", bounds[i]);
        put_sample(w, "_bucket", labels, le, (double)counts[i]);
    }
    put_sample(w, "_bucket", labels, "le=\"+Inf\"", (double)total);
    put_sample(w, "_sum", labels, NULL, sum);
    put_sample(w, "_count", labels, NULL, (double)total);
}

void metric_label(char *ret, size_t size, const char *name, const char *value) {
    size_t n = strlen(ret);

    n += (size_t)snprintf(ret + n, size - n, "%s%s=\"", n ? "," : "", name);
    for (; *value && n + 4 < size; value++) {
        if (*value == '"' || *value == '\\')
            ret[n++] = '\\';
        ret[n++] = *value == '\n' ? ' ' : *value;
    }
    if (n + 2 <= size) {
        ret[n++] = '"';
        ret[n] = 0;
    }
}

int metric_render_row(const struct metric *m, const struct api *api, bool is_openmetrics, struct buf *ret) {
    struct metric_writer w = {.out = ret, .metric = m, .is_openmetrics = is_openmetrics};

    if (m->type != METRIC_FOREIGN_COUNTER || !is_openmetrics)
        m->collect(api, &w);
    return w.rc;
}

int metric_render(const struct api *api, bool is_openmetrics, struct buf *ret) {
    int rc = 0;

    for (size_t i = 0; i < metric_table_size && !rc; i++)
        rc = metric_render_row(&metric_table[i], api, is_openmetrics, ret);
    return !rc && is_openmetrics ? buf_puts(ret, "# EOF\n") : rc;
}
