#include "daemon/job_metrics.h"

#include <string.h>

#define EVENTS_AT_ONCE 2000

struct entry {
    json_t *metric;
    unsigned name;
    uint64_t index; /* among those of its name */
};

struct job_metrics {
    struct entry entry[JOB_METRICS_MAX];
    size_t n;
    uint64_t stride;
    struct {
        char *text;
        uint64_t count;
    } name[JOB_METRIC_NAMES];
    unsigned n_names;
};

static bool is_last(const struct job_metrics *m, const struct entry *e) {
    return e->index + 1 == m->name[e->name].count;
}

/* Leaves out what is neither on the stride nor the last of its name. */
static void thin(struct job_metrics *m) {
    size_t n = 0;

    for (size_t i = 0; i < m->n; i++) {
        if (m->entry[i].index % m->stride == 0 || is_last(m, &m->entry[i]))
            m->entry[n++] = m->entry[i];
        else
            json_decref(m->entry[i].metric);
    }
    m->n = n;
}

/* -1: one too many. */
static int find_name(struct job_metrics *m, const char *text) {
    for (unsigned i = 0; i < m->n_names; i++)
        if (!strcmp(m->name[i].text, text))
            return (int)i;
    if (m->n_names == JOB_METRIC_NAMES || !(m->name[m->n_names].text = strdup(text)))
        return -1;
    return (int)m->n_names++;
}

/* The last of a name that was kept only for being it. */
static void drop_last(struct job_metrics *m, unsigned name) {
    for (size_t i = m->n; i-- > 0;) {
        if (m->entry[i].name != name)
            continue;
        if (m->entry[i].index % m->stride == 0)
            return;
        json_decref(m->entry[i].metric);
        memmove(&m->entry[i], &m->entry[i + 1], (m->n - i - 1) * sizeof(m->entry[0]));
        m->n--;
        return;
    }
}

void job_metrics_add(struct job_metrics *m, json_t *metric) {
    const char *text = json_string_value(json_object_get(metric, "name"));
    int name = text ? find_name(m, text) : -1;

    if (name < 0)
        return;
    while (m->n == JOB_METRICS_MAX) {
        m->stride *= 2;
        thin(m);
    }
    drop_last(m, (unsigned)name);
    m->entry[m->n++] = (struct entry){json_incref(metric), (unsigned)name, m->name[name].count++};
}

json_t *job_metrics_list(const struct job_metrics *m) {
    json_t *list = json_array();

    for (size_t i = 0; i < m->n; i++)
        json_array_append(list, m->entry[i].metric);
    return list;
}

struct job_metrics *job_metrics_free(struct job_metrics *m) {
    if (!m)
        return NULL;
    for (size_t i = 0; i < m->n; i++)
        json_decref(m->entry[i].metric);
    for (unsigned i = 0; i < m->n_names; i++)
        free(m->name[i].text);
    free(m);
    return NULL;
}

struct job_metrics *job_metrics_new(struct store *s, const char *job) {
    struct job_metrics *m = calloc(1, sizeof(*m));
    int64_t since = 0;
    size_t n = m ? 1 : 0;

    if (m)
        m->stride = 1;
    while (n > 0) {
        json_t *events = store_events(s, job, since, EVENTS_AT_ONCE), *e;
        size_t i;

        n = json_array_size(events);
        json_array_foreach(events, i, e) {
            since = json_integer_value(json_object_get(e, "id"));
            if (!strcmp(json_string_value(json_object_get(e, "type")), "metric"))
                job_metrics_add(m, json_object_get(e, "data"));
        }
        json_decref(events);
    }
    return m;
}
