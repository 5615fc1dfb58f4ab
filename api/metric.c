#include "api/metric.h"

#include <math.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define MAX_SERIES 4096
#define TEXT_MAX   ((size_t)16 << 20)

const double metric_bounds[METRIC_BUCKETS] = {
    50e-6, 100e-6, 200e-6, 500e-6, 1e-3, 2e-3, 5e-3, 10e-3, 20e-3, 50e-3, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30};

/* ---- writing ---- */

struct metric_writer {
    struct buf *out;
    const struct metric *metric;
    bool is_openmetrics, has_head;
    int rc;
};

static void put_head(struct metric_writer *w) {
    static const char *const types[] = {"gauge", "counter", "histogram"};
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

int metric_render(const struct api *api, bool is_openmetrics, struct buf *ret) {
    struct metric_writer w = {.out = ret, .is_openmetrics = is_openmetrics};

    for (size_t i = 0; i < metric_table_size && !w.rc; i++) {
        w.metric = &metric_table[i];
        w.has_head = false;
        w.metric->collect(api, &w);
    }
    if (is_openmetrics && !w.rc)
        w.rc = buf_puts(ret, "# EOF\n");
    return w.rc;
}

/* ---- counting ---- */

struct metrics {
    pthread_mutex_t lock; /* protects all below */
    struct metric_series **series;
    size_t n;
    uint64_t http[6];
};

struct metrics *metrics_new(void) {
    struct metrics *m = calloc(1, sizeof(*m));

    if (m)
        m->series = calloc(MAX_SERIES, sizeof(struct metric_series *));
    if (!m || !m->series) {
        free(m);
        return NULL;
    }
    pthread_mutex_init(&m->lock, NULL);
    return m;
}

void metrics_free(struct metrics *m) {
    if (!m)
        return;
    for (size_t i = 0; i < m->n; i++)
        free(m->series[i]);
    free(m->series);
    pthread_mutex_destroy(&m->lock);
    free(m);
}

static struct metric_series *find(struct metrics *m, const char *model, const char *variant) {
    for (size_t i = 0; i < m->n; i++)
        if (!strcmp(m->series[i]->model, model) && !strcmp(m->series[i]->variant, variant))
            return m->series[i];
    return NULL;
}

static struct metric_series *find_or_add(struct metrics *m, const char *model, const char *variant) {
    struct metric_series *s = find(m, model, variant);

    if (s || m->n == MAX_SERIES || strlen(model) >= sizeof(s->model) || strlen(variant) >= sizeof(s->variant))
        return s;
    s = calloc(1, sizeof(*s));
    if (!s)
        return NULL;
    memcpy(s->model, model, strlen(model) + 1);
    memcpy(s->variant, variant, strlen(variant) + 1);
    m->series[m->n++] = s;
    return s;
}

static void count_code(struct metric_series *s, unsigned status) {
    for (size_t i = 0; i < sizeof(s->codes) / sizeof(s->codes[0]); i++) {
        if (s->codes[i].n && s->codes[i].status != status)
            continue;
        s->codes[i].status = status;
        s->codes[i].n++;
        return;
    }
}

static void observe(struct metric_series *s, enum metric_stage stage, double ms) {
    double seconds = ms / 1e3;
    size_t i = 0;

    if (ms < 0)
        return;
    while (i < METRIC_BUCKETS && seconds > metric_bounds[i])
        i++;
    s->stage[stage].bucket[i]++;
    s->stage[stage].n++;
    s->stage[stage].sum += seconds;
}

void metrics_count(struct metrics *m, const char *model, const char *variant, unsigned status,
    const struct reply_timing *t, double total_ms) {
    struct metric_series *s;
    struct timespec now;

    clock_gettime(CLOCK_REALTIME, &now);
    pthread_mutex_lock(&m->lock);
    s = find_or_add(m, model, variant);
    if (s)
        count_code(s, status);
    if (s && status >= 400) {
        s->fail_n++;
        s->fail_sum += total_ms / 1e3;
    } else if (s) {
        observe(s, STAGE_QUEUE_S, t->queue_ms);
        observe(s, STAGE_DECODE_S, t->decode_ms);
        observe(s, STAGE_INFER_S, t->infer_ms);
        observe(s, STAGE_ENCODE_S, t->encode_ms);
        observe(s, STAGE_TOTAL_S, total_ms);
        s->last_ms = (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
    }
    pthread_mutex_unlock(&m->lock);
}

void metrics_count_http(struct metrics *m, unsigned status) {
    pthread_mutex_lock(&m->lock);
    m->http[status >= 100 && status < 600 ? status / 100 : 0]++;
    pthread_mutex_unlock(&m->lock);
}

bool metrics_get(struct metrics *m, size_t i, struct metric_series *ret) {
    bool is_there;

    pthread_mutex_lock(&m->lock);
    is_there = i < m->n;
    if (is_there)
        *ret = *m->series[i];
    pthread_mutex_unlock(&m->lock);
    return is_there;
}

bool metrics_find(struct metrics *m, const char *model, const char *variant, struct metric_series *ret) {
    struct metric_series *s;

    pthread_mutex_lock(&m->lock);
    s = find(m, model, variant);
    if (s)
        *ret = *s;
    pthread_mutex_unlock(&m->lock);
    return s != NULL;
}

void metrics_get_http(struct metrics *m, unsigned class_1_to_5, uint64_t *ret) {
    pthread_mutex_lock(&m->lock);
    *ret = m->http[class_1_to_5];
    pthread_mutex_unlock(&m->lock);
}

void metrics_forget(struct metrics *m, const char *model, const char *variant) {
    pthread_mutex_lock(&m->lock);
    for (size_t i = m->n; i-- > 0;) {
        struct metric_series *s = m->series[i];

        if (strcmp(s->model, model) != 0 || (variant && strcmp(s->variant, variant) != 0))
            continue;
        m->series[i] = m->series[--m->n];
        free(s);
    }
    pthread_mutex_unlock(&m->lock);
}
