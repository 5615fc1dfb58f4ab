/* POST /api/v1/models/{m}/variants/{v}/bench: latency inside the server, through the queue and slots that
 * requests go through, without HTTP. Closed: so many requests are always under way. Poisson: they come at
 * random at a given rate (exponential gaps), however slow the answers are. One at a time. */
#include <errno.h>
#include <math.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "api/api.h"
#include "api/body.h"
#include "api/routes.h"
#include "base/cleanup.h"
#include "base/clock.h"
#include "daemon/models.h"
#include "daemon/residency.h"
#include "daemon/scheduler.h"

#define MAX_SAMPLES     1000000
#define MAX_CONCURRENCY 256

struct plan_of_bench {
    bool is_poisson;
    double rate, seconds;
    unsigned concurrency, batch;
};

struct bench {
    struct plan_of_bench plan;
    struct residency *residency;
    struct scheduler *scheduler;
    const char *key;
    struct shape shape;
    float *input;
    pthread_mutex_t lock; /* protects what follows */
    pthread_cond_t changed;
    unsigned under_way;
    double *us;
    size_t n, n_errors;
};

struct call {
    struct sched_work work; /* first */
    struct bench *b;
    uint64_t start_ns;
};

static int prepare(struct sched_work *w, struct tensor *in, struct error *err) {
    struct bench *b = ((struct call *)w)->b;

    (void)err;
    in[0] = (struct tensor){.dtype = DT_F32, .shape = b->shape, .data = b->input};
    return 0;
}

static void finish(struct sched_work *w, const struct tensor *out, size_t n_out, const struct error *failed) {
    struct call *c = (struct call *)w;
    struct bench *b = c->b;
    double us = (double)(clock_now_ns() - c->start_ns) / 1e3;

    (void)out;
    (void)n_out;
    pthread_mutex_lock(&b->lock);
    if (failed)
        b->n_errors++;
    else if (b->n < MAX_SAMPLES)
        b->us[b->n++] = us;
    b->under_way--;
    pthread_cond_signal(&b->changed);
    pthread_mutex_unlock(&b->lock);
    free(c);
}

/* A refusal (queue full) counts as an error. */
static void submit(struct bench *b) {
    struct call *c = calloc(1, sizeof(*c));
    struct resident *r = c ? residency_get(b->residency, b->key) : NULL;

    if (c && r) {
        c->b = b;
        c->start_ns = clock_now_ns();
        c->work.resident = r;
        c->work.max_batch = b->plan.batch > 1 ? b->plan.batch : 0;
        c->work.prepare = prepare;
        c->work.finish = finish;
        if (scheduler_submit(b->scheduler, &c->work, NULL) == 0)
            return;
        resident_unref(r);
    }
    free(c);
    pthread_mutex_lock(&b->lock);
    b->n_errors++;
    b->under_way--;
    pthread_mutex_unlock(&b->lock);
}

static void start_one(struct bench *b) {
    pthread_mutex_lock(&b->lock);
    b->under_way++;
    pthread_mutex_unlock(&b->lock);
    submit(b);
}

static void run_closed(struct bench *b, uint64_t end) {
    while (clock_now_ns() < end) {
        bool has_room;

        pthread_mutex_lock(&b->lock);
        while (b->under_way >= b->plan.concurrency)
            pthread_cond_wait(&b->changed, &b->lock);
        has_room = b->n < MAX_SAMPLES;
        pthread_mutex_unlock(&b->lock);
        if (!has_room)
            return;
        start_one(b);
    }
}

static void run_poisson(struct bench *b, uint64_t end) {
    uint64_t next = clock_now_ns(), random = next | 1;

    while (next < end) {
        uint64_t now = clock_now_ns();
        struct timespec pause;

        if (now < next) {
            pause =
                (struct timespec){(time_t)((next - now) / 1000000000u), (long)((next - now) % 1000000000u)};
            nanosleep(&pause, NULL);
        }
        start_one(b);
        random = random * 6364136223846793005u + 1442695040888963407u;
        next += (uint64_t)(-log(((double)(random >> 11) + 0.5) / 9007199254740992.0) / b->plan.rate * 1e9);
    }
}

static void wait_all(struct bench *b) {
    pthread_mutex_lock(&b->lock);
    while (b->under_way)
        pthread_cond_wait(&b->changed, &b->lock);
    pthread_mutex_unlock(&b->lock);
}

static int read_plan(const json_t *body, struct plan_of_bench *p, struct error *err) {
    const json_t *mode = json_object_get(body, "mode"), *rate = json_object_get(body, "rate");
    static const struct {
        const char *key;
        double min, max, dflt;
    } numbers[] = {{"concurrency", 1, MAX_CONCURRENCY, 1}, {"batch", 1, 64, 1}, {"seconds", 0.1, 30, 2}};
    double v[3];
    int e = body_check_keys(body, "mode rate concurrency batch seconds", "", err);

    for (int i = 0; e == 0 && i < 3; i++) {
        const json_t *j = json_object_get(body, numbers[i].key);

        v[i] = j ? json_number_value(j) : numbers[i].dflt;
        if ((j && !json_is_number(j)) || v[i] < numbers[i].min || v[i] > numbers[i].max)
            e = error_set(err, -EINVAL, "%s is not a number from %g to %g", numbers[i].key, numbers[i].min,
                numbers[i].max);
    }
    if (e == 0 && mode &&
        (!json_is_string(mode) ||
            (strcmp(json_string_value(mode), "closed") && strcmp(json_string_value(mode), "poisson"))))
        e = error_set(err, -EINVAL, "mode is neither closed nor poisson");
    if (e < 0)
        return e;
    p->is_poisson = mode && !strcmp(json_string_value(mode), "poisson");
    p->rate = json_number_value(rate);
    p->concurrency = (unsigned)v[0];
    p->batch = (unsigned)v[1];
    p->seconds = v[2];
    if (p->is_poisson && (p->rate < 0.1 || p->rate > 100000))
        return error_set(err, -EINVAL, "rate is not a number from 0.1 to 100000 requests a second");
    return 0;
}

/* `max_bytes`: of a body, as no request could have a larger input. */
static int make_input(struct bench *b, const struct graph *g, uint64_t max_bytes, struct error *err) {
    const struct value *v = &g->values[g->inputs[0]];
    uint32_t x = 12345;
    size_t bytes;

    if (g->n_inputs != 1 || v->dtype != DT_F32)
        return error_code(
            err, -EBADMSG, "shape_mismatch", "only models with one float input are benchmarked here");
    b->shape = v->shape;
    if (b->shape.rank > 0 && b->shape.dim[0] < 0)
        b->shape.dim[0] = b->plan.batch;
    for (int i = 0; i < b->shape.rank; i++)
        if (b->shape.dim[i] < 0)
            return error_code(err, -EBADMSG, "preprocess_required", "the input's dimension %d is free", i);
    if (!shape_bytes(&b->shape, DT_F32, &bytes) || bytes > max_bytes)
        return error_set(
            err, -EFBIG, "a batch of %u is larger than the body of a request may be", b->plan.batch);
    b->input = malloc(bytes + 1);
    b->us = malloc(MAX_SAMPLES * sizeof(*b->us));
    if (!b->input || !b->us)
        return error_oom(err);
    for (size_t i = 0; i < bytes / sizeof(float); i++) {
        x = x * 1664525u + 1013904223u;
        b->input[i] = (float)(x >> 8) / (float)(1 << 24);
    }
    return 0;
}

static int ascending(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;

    return (x > y) - (x < y);
}

static double percentile(const double *sorted, size_t n, double p) {
    size_t rank = (size_t)ceil(p * (double)n);

    return n ? sorted[rank ? rank - 1 : 0] : 0;
}

static json_t *result(struct bench *b, double seconds) {
    qsort(b->us, b->n, sizeof(*b->us), ascending);
    return json_pack("{s:s, s:i, s:I, s:I, s:f, s:f, s:f, s:f, s:f}", "mode",
        b->plan.is_poisson ? "poisson" : "closed", "batch", (int)b->plan.batch, "runs", (json_int_t)b->n,
        "errors", (json_int_t)b->n_errors, "p50_us", percentile(b->us, b->n, 0.5), "p95_us",
        percentile(b->us, b->n, 0.95), "p99_us", percentile(b->us, b->n, 0.99), "max_us",
        percentile(b->us, b->n, 1), "throughput", (double)b->n * b->plan.batch / seconds);
}

static int run_bench(struct bench *b, struct reply *p, struct error *err) {
    uint64_t start = clock_now_ns(), end = start + (uint64_t)(b->plan.seconds * 1e9);

    if (b->plan.is_poisson)
        run_poisson(b, end);
    else
        run_closed(b, end);
    wait_all(b);
    return reply_json(p, 200, result(b, (double)(clock_now_ns() - start) / 1e9), err);
}

static int post_bench(struct request *r, struct reply *p, struct error *err) {
    _cleanup_(resident_unrefp) struct resident *resident = NULL;
    json_auto_t *body = NULL, *doc = NULL;
    struct bench b = {.residency = r->api->residency, .scheduler = r->api->scheduler};
    char key[NAME_MAX_SIZE + 16];
    int e = body_json(r, true, &body, err);

    if (e == 0)
        e = read_plan(body, &b.plan, err);
    if (e == 0)
        e = models_variant(r->api->store, request_param(r, "model"), request_param(r, "variant"), &doc, err);
    if (e < 0)
        return e;
    variant_key(
        request_param(r, "model"), (int)json_integer_value(json_object_get(doc, "number")), key, sizeof(key));
    b.key = key;
    e = residency_acquire(r->api->residency, key, true, &resident, err);
    if (e < 0)
        return e;
    if (atomic_exchange(&r->api->is_benching, true))
        return error_code(err, -EAGAIN, "too_busy", "another benchmark runs");
    pthread_mutex_init(&b.lock, NULL);
    pthread_cond_init(&b.changed, NULL);
    e = make_input(&b, net_graph(resident->net), r->api->limits.body_bytes, err);
    if (e == 0)
        e = run_bench(&b, p, err);
    pthread_cond_destroy(&b.changed);
    pthread_mutex_destroy(&b.lock);
    free(b.input);
    free(b.us);
    atomic_store(&r->api->is_benching, false);
    return e;
}

const struct route bench_routes[] = {
    {.method = HTTP_POST,
        .path = "/api/v1/models/{model}/variants/{variant}/bench",
        .scope = SCOPE_COMPRESS,
        .body = BODY_MEMORY,
        .limit = LIMIT_SMALL,
        .run = RUN_POOL,
        .handle = post_bench,
        .id = "benchVariant",
        .summary = "Latency inside the server: closed loop or Poisson arrivals, up to 30 s.",
        .statuses = "200 404 422 429"},
    {0},
};
