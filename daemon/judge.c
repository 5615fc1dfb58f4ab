#include "daemon/judge.h"

#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"

const char *const judge_stage_names[STAGE_COUNT] = {"queue", "decode", "infer", "encode", "total"};

const double judge_edges[JUDGE_BUCKETS] = {50e-6, 100e-6, 200e-6, 300e-6, 500e-6, 750e-6, 1e-3, 1.5e-3, 2e-3,
    3e-3, 5e-3, 7.5e-3, 10e-3, 20e-3, 30e-3, 50e-3, 100e-3, 250e-3, 500e-3, 1, 5, 1e300};

struct entry {
    struct entry *next;
    struct judge_stats stats;
    char key[];
};

/* One lock: it is held for the few adds of one request. */
struct judge {
    pthread_mutex_t lock;
    struct entry *first;
};

struct judge *judge_new(void) {
    struct judge *j = calloc(1, sizeof(*j));

    if (j)
        pthread_mutex_init(&j->lock, NULL);
    return j;
}

struct judge *judge_free(struct judge *j) {
    if (!j)
        return NULL;
    for (struct entry *e = j->first, *next; e; e = next) {
        next = e->next;
        free(e);
    }
    pthread_mutex_destroy(&j->lock);
    free(j);
    return NULL;
}

static struct entry *find(struct judge *j, const char *key, bool make) {
    struct entry *e = j->first;

    for (; e; e = e->next)
        if (!strcmp(e->key, key))
            return e;
    e = make ? calloc(1, sizeof(*e) + strlen(key) + 1) : NULL;
    if (!e)
        return NULL;
    strcpy(e->key, key);
    e->next = j->first;
    j->first = e;
    return e;
}

static void add_histogram(struct judge_histogram *h, uint64_t ns) {
    double s = (double)ns / 1e9;
    int i = 0;

    while (i + 1 < JUDGE_BUCKETS && s > judge_edges[i])
        i++;
    h->count[i]++;
    h->min_ns = h->n == 0 || ns < h->min_ns ? ns : h->min_ns;
    h->max_ns = ns > h->max_ns ? ns : h->max_ns;
    h->n++;
    h->sum_ns += ns;
}

static void add_code(struct judge_stats *s, unsigned status) {
    for (int i = 0; i < JUDGE_CODES; i++)
        if (s->code[i].status == status || s->code[i].n == 0) {
            s->code[i].status = status;
            s->code[i].n++;
            return;
        }
    s->code[JUDGE_CODES - 1].n++;
}

static void add_batch(struct judge_stats *s, const struct judge_sample *x) {
    for (int i = 0; i < JUDGE_BATCHES; i++)
        if (s->batch[i].size == x->batch || s->batch[i].n == 0) {
            s->batch[i].size = x->batch;
            s->batch[i].n++;
            s->batch[i].decode_ns += x->ns[STAGE_DECODE];
            s->batch[i].infer_ns += x->ns[STAGE_INFER];
            s->batch[i].encode_ns += x->ns[STAGE_ENCODE];
            return;
        }
}

static void add(struct judge_stats *s, const struct judge_sample *x) {
    bool is_ok = x->status >= 200 && x->status < 300;

    add_code(s, x->status);
    add_histogram(&s->stage[STAGE_TOTAL], x->ns[STAGE_TOTAL]);
    if (!is_ok) {
        s->n_fail++;
        s->fail_ns += x->ns[STAGE_TOTAL];
        return;
    }
    s->n_success++;
    s->success_ns += x->ns[STAGE_TOTAL];
    s->n_items += x->items;
    s->last_ms = clock_unix_ms();
    for (int k = 0; k < STAGE_TOTAL; k++)
        add_histogram(&s->stage[k], x->ns[k]);
    if (x->batch)
        add_batch(s, x);
}

void judge_add(struct judge *j, const char *key, const struct judge_sample *s) {
    struct entry *e;

    pthread_mutex_lock(&j->lock);
    e = find(j, key, true);
    if (e)
        add(&e->stats, s);
    pthread_mutex_unlock(&j->lock);
}

void judge_executed(struct judge *j, const char *key, unsigned batch) {
    struct entry *e;

    (void)batch;
    pthread_mutex_lock(&j->lock);
    e = find(j, key, true);
    if (e)
        e->stats.n_executed++;
    pthread_mutex_unlock(&j->lock);
}

void judge_get(struct judge *j, const char *key, struct judge_stats *ret) {
    struct entry *e;

    pthread_mutex_lock(&j->lock);
    e = find(j, key, false);
    *ret = e ? e->stats : (struct judge_stats){0};
    pthread_mutex_unlock(&j->lock);
}

void judge_forget(struct judge *j, const char *key) {
    pthread_mutex_lock(&j->lock);
    for (struct entry **p = &j->first; *p; p = &(*p)->next)
        if (!strcmp((*p)->key, key)) {
            struct entry *e = *p;

            *p = e->next;
            free(e);
            break;
        }
    pthread_mutex_unlock(&j->lock);
}

double judge_quantile(const struct judge_histogram *h, double q) {
    double want = q * (double)h->n, seen = 0;

    for (int i = 0; i < JUDGE_BUCKETS && h->n; i++) {
        double low = i ? judge_edges[i - 1] : 0, high = judge_edges[i], n = (double)h->count[i];

        if (seen + n < want || n == 0) {
            seen += n;
            continue;
        }
        /* the ends are known exactly */
        high = high < (double)h->max_ns / 1e9 ? high : (double)h->max_ns / 1e9;
        low = low > (double)h->min_ns / 1e9 ? low : (double)h->min_ns / 1e9;
        return low + (high > low ? (high - low) * (want - seen) / n : 0);
    }
    return 0;
}
