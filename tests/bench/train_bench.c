/* One side of the training benchmark: trains a network on demand and says how long a step took.
 *
 *   train_bench FILE BATCH THREADS [LANES [bf16]]
 *
 * A step is what train_torch.py's is: forward, cross entropy, backward and SGD with momentum and weight decay
 * on a minibatch that lies ready. Speaks the protocol of float_latency.c: "ready", then for every line "N"
 * the median of N steps in microseconds. With BENCH_STEPS set it says first where the time of a step goes and
 * how many page faults it has. */
#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "base/clock.h"
#include "engine/onnx.h"
#include "engine/pass.h"
#include "engine/train/trainer.h"

#define MAX_RUNS 10000

struct bench {
    struct graph *graph;
    struct trainer *trainer;
    struct pool *pool;
    struct optim optim;
    struct loss loss;
    float *targets;
    double *us;
    double last; /* loss */
};

static int compare(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;

    return x < y ? -1 : x > y;
}

static int read_graph(const char *path, struct graph **ret, struct error *err) {
    int fd = open(path, O_RDONLY | O_CLOEXEC), r;

    if (fd < 0)
        return error_set(err, -ENOENT, "%s cannot be opened", path);
    r = onnx_read_fd(fd, ret, err);
    close(fd);
    if (r == 0)
        r = pass_remove_identities(*ret, err);
    return r == 0 ? pass_fold_constants(*ret, err) : r;
}

/* Numbers of a fixed generator, about normal: any input will do, time does not depend on it. */
static void fill(float *x, int64_t n, uint32_t *state) {
    for (int64_t i = 0; i < n; i++) {
        float sum = 0;

        for (int k = 0; k < 4; k++) {
            *state = *state * 1664525u + 1013904223u;
            sum += (float)(*state >> 8) / 8388608.0f - 1;
        }
        x[i] = sum;
    }
}

static int bench_open(
    struct bench *b, const char *path, const struct trainer_options *o, unsigned threads, struct error *err) {
    struct optim_param p = optim_defaults();
    int r = read_graph(path, &b->graph, err);
    uint32_t state = 1;
    struct shape item;
    int64_t n;

    if (r < 0)
        return r;
    item = b->graph->values[b->graph->inputs[0]].shape;
    item.dim[0] = 1;
    r = trainer_new(b->graph, &item, o, &b->trainer, err);
    if (r == 0)
        r = pool_new(threads, &b->pool, err);
    p.weight_decay = 1e-4f;
    if (r == 0)
        r = optim_init(&b->optim, optim_find("sgd"), &p, trainer_n_gradients(b->trainer), err);
    if (r < 0)
        return r;
    n = trainer_n_outputs(b->trainer);
    b->targets = calloc((size_t)(o->batch * n), sizeof(*b->targets));
    b->us = calloc(MAX_RUNS, sizeof(*b->us));
    if (!b->targets || !b->us || !shape_count(&item, &n))
        return error_oom(err);
    for (int64_t i = 0; i < o->batch; i++) {
        fill(trainer_input(b->trainer, i), n, &state);
        b->targets[i * trainer_n_outputs(b->trainer) + (i * 7) % trainer_n_outputs(b->trainer)] = 1;
    }
    b->loss.kind = loss_find("cross_entropy");
    return 0;
}

static void bench_step(struct bench *b) {
    b->last = trainer_gradients(b->trainer, b->pool, &b->loss, b->targets);
    if (!trainer_move(b->trainer, b->pool, &b->optim, 1e-3f)) {
        fprintf(stderr, "train_bench: the gradients are not finite\n");
        exit(1);
    }
}

static void bench_run(struct bench *b, int n) {
    if (n > 1) /* what the other side left in the caches is not ours to pay for */
        bench_step(b);
    for (int i = 0; i < n; i++) {
        double t = clock_now_us();

        bench_step(b);
        b->us[i] = clock_now_us() - t;
    }
    qsort(b->us, (size_t)n, sizeof(*b->us), compare);
    printf("%.2f\n", b->us[n / 2]);
    fflush(stdout);
}

/* Where the time goes: mean milliseconds of all threads together, a line a step; page faults of all runs. */
static int bench_steps(struct bench *b, struct error *err) {
    const int runs = 10;
    struct rusage before, after;
    double forward = 0, backward = 0, move = 0;
    int r = trainer_watch(b->trainer, err);

    if (r < 0)
        return r;
    getrusage(RUSAGE_SELF, &before);
    for (int i = 0; i < runs; i++) {
        double t;

        b->last = trainer_gradients(b->trainer, b->pool, &b->loss, b->targets);
        t = clock_now_us();
        (void)trainer_move(b->trainer, b->pool, &b->optim, 1e-3f);
        move += clock_now_us() - t;
    }
    getrusage(RUSAGE_SELF, &after);
    for (size_t i = 0; i < trainer_n_steps(b->trainer); i++) {
        struct trainer_step s;

        trainer_step(b->trainer, i, &s);
        forward += s.forward_us / runs;
        backward += s.backward_us / runs;
        fprintf(stderr, "%8.2f ms %8.2f ms  %-24s %-18s %s\n", s.forward_us / runs / 1e3,
            s.backward_us / runs / 1e3, s.kernel, s.op, s.id);
    }
    fprintf(stderr, "%8.2f ms %8.2f ms  forward and backward; update %.2f ms; %ld page faults in %d steps\n",
        forward / 1e3, backward / 1e3, move / runs / 1e3, after.ru_minflt - before.ru_minflt, runs);
    fprintf(stderr, "loss %.9g, %.1f MiB\n", b->last, (double)trainer_bytes(b->trainer) / 1048576);
    return 0;
}

int main(int argc, char **argv) {
    struct trainer_options o = {.uses_batch_stats = true, .bf16 = argc > 5 && strcmp(argv[5], "bf16") == 0};
    struct bench b = {0};
    struct error err = {0};
    char line[32];
    int r;

    if (argc < 4 || argc > 6) {
        fprintf(stderr, "usage: train_bench FILE BATCH THREADS [LANES [bf16]]\n");
        return 2;
    }
    o.batch = atoll(argv[2]);
    o.lanes = argc > 4 ? (unsigned)atoi(argv[4]) : 0;
    r = bench_open(&b, argv[1], &o, (unsigned)atoi(argv[3]), &err);
    if (r == 0 && trainer_why_float(b.trainer))
        fprintf(stderr, "train_bench: in floats: %s\n", trainer_why_float(b.trainer));
    for (int i = 0; r == 0 && i < 3; i++)
        bench_step(&b);
    if (r == 0 && getenv("BENCH_STEPS"))
        r = bench_steps(&b, &err);
    if (r < 0) {
        fprintf(stderr, "train_bench: %s\n", err.text);
        return 1;
    }
    printf("ready\n");
    fflush(stdout);
    while (fgets(line, sizeof(line), stdin)) {
        int n = atoi(line);

        if (n > 0 && n <= MAX_RUNS)
            bench_run(&b, n);
    }
    trainer_free(b.trainer);
    pool_free(b.pool);
    optim_done(&b.optim);
    graph_free(b.graph);
    free(b.targets);
    free(b.us);
    return 0;
}
