/* One side of the latency benchmark: runs a network on demand and says how long it took.
 *
 *   float_latency FILE BATCH THREADS
 *
 * BONSAI_TUNE names a file of timings (engine/tune.h): kernels are chosen by what it says, and what it does
 * not say is measured first. Without it the default table decides.
 *
 * Prints "ready" when planned, then for every line "N" on standard input runs N times (after one more run
 * when N > 1) and prints the median of a run in microseconds. The other side (ort_latency.mjs) speaks the
 * same, so that a script can let the two take turns: this is how ratios stay true on a busy machine. */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "engine/net.h"
#include "engine/pool.h"

#define MAX_RUNS 10000

static int compare(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;

    return x < y ? -1 : x > y;
}

struct bench {
    struct tuner *tuner;
    struct net *net;
    struct plan *plan;
    struct pool *pool;
    struct arena arena;
    struct tensor in[8], out[8];
    double *us;
};

/* Numbers of a fixed generator in [-1, 1): both sides may use any input, time does not depend on it. */
static void *make_input(const struct shape *s) {
    int64_t n = 0;
    float *x;
    uint32_t state = 1;

    if (!shape_count(s, &n))
        return NULL;
    x = aligned_alloc(64, ((size_t)n * sizeof(float) + 64) / 64 * 64);
    for (int64_t i = 0; x && i < n; i++) {
        state = state * 1664525u + 1013904223u;
        x[i] = (float)(state >> 8) / 8388608.0f - 1;
    }
    return x;
}

/* One image size at a time, as the daemon does it, but to the end. */
static int bench_tune(struct bench *b, const struct shape *shape, unsigned threads, struct error *err) {
    struct tune_limits limits = {.seconds = 60};
    int r = net_plan(b->net, shape, threads, &b->plan, err);

    while (r == 0 && b->tuner && (r = net_tune(b->net, &limits, NULL, err)) == 1)
        r = 0;
    if (r == 0 && b->tuner)
        r = tuner_save(b->tuner, err);
    plan_unref(b->plan);
    b->plan = NULL;
    return r;
}

static int bench_open(struct bench *b, const char *path, int64_t batch, unsigned threads, struct error *err) {
    struct net_options o = {0};
    struct shape shape[8];
    const struct graph *g;
    int fd, r;

    r = cpu_detect(getenv("BONSAI_HIDE_CPU"), &o.cpu, err);
    o.kernels = getenv("BONSAI_KERNELS");
    o.policy = getenv("BONSAI_MEMORY") ? NET_MEMORY : NET_SPEED;
    if (r == 0 && getenv("BONSAI_TUNE"))
        r = tuner_new(getenv("BONSAI_TUNE"), &b->tuner, NULL);
    o.tuner = b->tuner;
    fd = open(path, O_RDONLY | O_CLOEXEC);
    if (r == 0)
        r = net_open_fd(fd, &o, &b->net, err);
    if (r < 0)
        return r;
    close(fd);
    g = net_graph(b->net);
    for (size_t i = 0; i < g->n_inputs && i < 8; i++) {
        shape[i] = g->values[g->inputs[i]].shape;
        for (int d = 0; d < shape[i].rank; d++) {
            if (shape[i].dim[d] < 0)
                shape[i].dim[d] = batch;
        }
        b->in[i] = (struct tensor){.dtype = DT_F32, .shape = shape[i], .data = make_input(&shape[i])};
    }
    r = bench_tune(b, shape, threads, err);
    if (r == 0)
        r = net_plan(b->net, shape, threads, &b->plan, err);
    if (r == 0)
        r = pool_new(threads, &b->pool, err);
    if (r == 0)
        r = arena_reserve(&b->arena, plan_arena_size(b->plan), err);
    if (r < 0)
        return r;
    for (size_t i = 0; i < plan_n_outputs(b->plan) && i < 8; i++)
        b->out[i].data = make_input(&plan_output(b->plan, i)->shape);
    b->us = calloc(MAX_RUNS, sizeof(*b->us));
    return b->us ? 0 : error_oom(err);
}

static void bench_run(struct bench *b, int n) {
    if (n > 1) /* what the other side left in the caches is not ours to pay for */
        plan_run(b->plan, &b->arena, b->in, b->out, b->pool, NULL);
    for (int i = 0; i < n; i++) {
        double t = clock_now_us();

        plan_run(b->plan, &b->arena, b->in, b->out, b->pool, NULL);
        b->us[i] = clock_now_us() - t;
    }
    qsort(b->us, (size_t)n, sizeof(*b->us), compare);
    printf("%.2f\n", b->us[n / 2]);
    fflush(stdout);
}

/* Where the time goes: one line per step, best of 20 runs. */
static void bench_steps(struct bench *b) {
    size_t n = plan_n_steps(b->plan);
    float *us = calloc(n + 1, sizeof(*us)), *best = calloc(n + 1, sizeof(*best));

    for (int k = 0; us && best && k < 20; k++) {
        plan_run(b->plan, &b->arena, b->in, b->out, b->pool, us);
        for (size_t i = 0; i < n; i++)
            best[i] = k == 0 || us[i] < best[i] ? us[i] : best[i];
    }
    for (size_t i = 0; us && best && i < n; i++) {
        struct plan_step s;

        plan_get_step(b->plan, i, &s);
        fprintf(stderr, "%8.1f us %8.2f GOP/s  %-28s %-10s %s\n", (double)best[i],
            2e-3 * (double)s.macs / (double)best[i], s.kernel, s.op, s.id);
    }
    free(us);
    free(best);
}

int main(int argc, char **argv) {
    struct bench b = {0};
    struct error err = {0};
    char line[32];

    if (argc != 4) {
        fprintf(stderr, "usage: float_latency FILE BATCH THREADS\n");
        return 2;
    }
    if (bench_open(&b, argv[1], atoll(argv[2]), (unsigned)atoi(argv[3]), &err) < 0) {
        fprintf(stderr, "float_latency: %s\n", err.text);
        return 1;
    }
    printf("ready\n");
    fflush(stdout);
    if (getenv("BENCH_STEPS"))
        bench_steps(&b);
    while (fgets(line, sizeof(line), stdin)) {
        int n = atoi(line);

        if (n > 0 && n <= MAX_RUNS)
            bench_run(&b, n);
    }
    plan_unref(b.plan);
    net_unref(b.net);
    tuner_free(b.tuner);
    pool_free(b.pool);
    arena_done(&b.arena);
    for (int i = 0; i < 8; i++) {
        free(b.in[i].data);
        free(b.out[i].data);
    }
    free(b.us);
    return 0;
}
