/* What loading costs: from the file to the first answer, in a process of its own, files in the page cache.
 *
 *   load_first FILE
 *
 * Prints microseconds from opening to the first answer (batch 1, the run on one thread; packing on
 * BONSAI_THREADS, without it as many as there are cores), then what the process grew by,
 * in KiB: afterwards, and at its highest meanwhile. BONSAI_TUNE names a file of timings that a tuned daemon
 * would have. The other side is ort_load.mjs. */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "engine/net.h"

#define MAX_INPUTS 8

/* A line of /proc/self/status, in KiB; 0: not there. */
static long status_kb(const char *key) {
    FILE *f = fopen("/proc/self/status", "re");
    char line[256];
    long kb = 0;

    while (f && fgets(line, sizeof(line), f))
        if (strncmp(line, key, strlen(key)) == 0)
            kb = atol(line + strlen(key) + 1);
    if (f)
        fclose(f);
    return kb;
}

static void reset_peak(void) {
    FILE *f = fopen("/proc/self/clear_refs", "we");

    if (!f)
        return;
    fputs("5", f);
    fclose(f);
}

static int first_answer(struct net *n, struct arena *arena, struct error *err) {
    const struct graph *g = net_graph(n);
    struct shape shape[MAX_INPUTS];
    struct tensor in[MAX_INPUTS] = {0}, out[MAX_INPUTS] = {0};
    struct plan *p;
    int r;

    for (size_t i = 0; i < g->n_inputs && i < MAX_INPUTS; i++) {
        int64_t n_values = 0;

        shape[i] = g->values[g->inputs[i]].shape;
        for (int d = 0; d < shape[i].rank; d++)
            shape[i].dim[d] = shape[i].dim[d] < 0 ? 1 : shape[i].dim[d];
        if (!shape_count(&shape[i], &n_values))
            return error_set(err, -1, "the input is too large");
        in[i] = (struct tensor){
            .dtype = DT_F32, .shape = shape[i], .data = calloc((size_t)n_values, sizeof(float))};
    }
    r = net_plan(n, shape, 1, &p, err);
    if (r == 0)
        r = arena_reserve(arena, plan_arena_size(p), err);
    if (r < 0)
        return r;
    for (size_t i = 0; i < plan_n_outputs(p) && i < MAX_INPUTS; i++) {
        int64_t n_values = 0;

        shape_count(&plan_output(p, i)->shape, &n_values);
        out[i].data = calloc((size_t)n_values, sizeof(double));
    }
    plan_run(p, arena, in, out, NULL, NULL);
    plan_unref(p);
    for (int i = 0; i < MAX_INPUTS; i++) {
        free(in[i].data);
        free(out[i].data);
    }
    return 0;
}

/* As in the daemon, whose default is a thread a core. */
static unsigned all_threads(void *ctx) {
    (void)ctx;
    return getenv("BONSAI_THREADS") ? (unsigned)atoi(getenv("BONSAI_THREADS"))
                                    : (unsigned)sysconf(_SC_NPROCESSORS_ONLN);
}

int main(int argc, char **argv) {
    struct net_options o = {.spare_threads = all_threads};
    struct arena arena = {0};
    struct error err = {0};
    struct net *n = NULL;
    double begin, us;
    long before;
    int fd = argc == 2 ? open(argv[1], O_RDONLY | O_CLOEXEC) : -1, r;

    if (fd < 0) {
        fprintf(stderr, "usage: load_first FILE\n");
        return 2;
    }
    r = cpu_detect(getenv("BONSAI_HIDE_CPU"), &o.cpu, &err);
    o.policy = getenv("BONSAI_COMPACT") ? NET_MEMORY : NET_SPEED;
    reset_peak();
    before = status_kb("VmRSS:");
    begin = clock_now_us();
    if (r == 0 && getenv("BONSAI_TUNE"))
        r = tuner_new(getenv("BONSAI_TUNE"), &o.tuner, NULL);
    if (r == 0)
        r = net_open_fd(fd, &o, &n, &err);
    if (r == 0)
        r = first_answer(n, &arena, &err);
    us = clock_now_us() - begin;
    if (r < 0) {
        fprintf(stderr, "load_first: %s\n", err.text);
        return 1;
    }
    printf("%.0f %ld %ld\n", us, status_kb("VmRSS:") - before, status_kb("VmHWM:") - before);
    arena_done(&arena);
    net_unref(n);
    tuner_free(o.tuner);
    close(fd);
    return 0;
}
