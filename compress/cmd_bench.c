/* bonsai-worker bench: latency of a model in this engine, whole and by layer. */
#include <errno.h>
#include <getopt.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "compress/command.h"
#include "compress/latency.h"
#include "compress/session.h"

#define MAX_INPUTS 64
#define MAX_RUNS   200000

#define MAX_TUNE_SECONDS 60

struct bench {
    const char *model, *kernels, *tune_cache;
    bool tune;
    struct tuner *tuner;
    long batch, threads, seconds;
    enum net_policy policy;
    size_t n_shapes;
    char *shapes[MAX_INPUTS]; /* "NAME=1x3x224x224" */
};

static int parse_option(int c, struct bench *b, struct error *err) {
    switch (c) {
    case 'b': return command_number("batch", optarg, 1, 4096, &b->batch, err);
    case 't': return command_number("threads", optarg, 1, 256, &b->threads, err);
    case 's': return command_number("seconds", optarg, 1, 3600, &b->seconds, err);
    case 'k': b->kernels = optarg; return 0;
    case 'S':
        if (b->n_shapes == MAX_INPUTS || !strchr(optarg, '='))
            return error_set(err, -EINVAL, "--shape: '%s' is not NAME=1x3x224x224", optarg);
        b->shapes[b->n_shapes++] = optarg;
        return 0;
    case 'T': b->tune = true; return 0;
    case 'C': b->tune_cache = optarg; return 0;
    case 'p':
        if (strcmp(optarg, "speed") && strcmp(optarg, "memory"))
            return error_set(err, -EINVAL, "--policy: '%s' is neither speed nor memory", optarg);
        b->policy = strcmp(optarg, "speed") ? NET_MEMORY : NET_SPEED;
        return 0;
    default: return error_set(err, -EINVAL, "unknown option");
    }
}

static int parse(int argc, char **argv, struct bench *b, struct error *err) {
    static const struct option options[] = {
        {"batch", required_argument, NULL, 'b'},
        {"kernels", required_argument, NULL, 'k'},
        {"policy", required_argument, NULL, 'p'},
        {"seconds", required_argument, NULL, 's'},
        {"shape", required_argument, NULL, 'S'},
        {"threads", required_argument, NULL, 't'},
        {"tune", no_argument, NULL, 'T'},
        {"tune-cache", required_argument, NULL, 'C'},
        {0},
    };
    int c;

    while ((c = getopt_long(argc, argv, "", options, NULL)) != -1)
        if (parse_option(c, b, err) < 0)
            return -EINVAL;
    if (optind != argc - 1)
        return error_set(err, -EINVAL, "one FILE is needed");
    b->model = argv[optind];
    return 0;
}

static int parse_shape(const char *text, struct shape *ret, struct error *err) {
    struct shape s = {0};
    const char *p = strchr(text, '=') + 1;

    for (;;) {
        char *end;
        long long v = strtoll(p, &end, 10);

        if (end == p || v < 1 || s.rank == SHAPE_MAX_RANK || (*end && *end != 'x'))
            return error_set(err, -EINVAL, "--shape: '%s' is not NAME=1x3x224x224", text);
        s.dim[s.rank++] = v;
        if (!*end)
            break;
        p = end + 1;
    }
    *ret = s;
    return 0;
}

/* The given shape, else the declared one with the batch put in; other free dimensions must be given. */
static int input_shape(const struct bench *b, const struct value *v, struct shape *ret, struct error *err) {
    size_t size = strlen(v->name);

    for (size_t i = 0; i < b->n_shapes; i++)
        if (!strncmp(b->shapes[i], v->name, size) && b->shapes[i][size] == '=')
            return parse_shape(b->shapes[i], ret, err);
    *ret = v->shape;
    if (ret->rank > 0 && (ret->dim[0] < 0 || b->batch > 1))
        ret->dim[0] = b->batch;
    for (int i = 0; i < ret->rank; i++)
        if (ret->dim[i] < 0)
            return error_set(
                err, -EINVAL, "dimension %d of input '%s' is free: give --shape %s=…", i, v->name, v->name);
    return 0;
}

static void tensors_done(struct tensor **t) {
    for (size_t i = 0; *t && i < MAX_INPUTS; i++)
        free((*t)[i].data);
    free(*t);
}

/* Uniform noise in [0, 1): timings must not profit from zeros. */
static void fill_noise(struct tensor *t, size_t size) {
    uint32_t x = 123456789;

    memset(t->data, 0, size);
    for (size_t i = 0; t->dtype == DT_F32 && i < size / sizeof(float); i++) {
        x = x * 1664525u + 1013904223u;
        ((float *)t->data)[i] = (float)(x >> 8) / (float)(1 << 24);
    }
}

static int make_inputs(const struct bench *b, struct session *s, struct tensor *in, struct error *err) {
    const struct graph *g = net_graph(s->net);
    struct shape shapes[MAX_INPUTS];

    if (g->n_inputs > MAX_INPUTS)
        return error_set(
            err, -EINVAL, "the model has %zu inputs, at most %d can be timed", g->n_inputs, MAX_INPUTS);
    for (size_t i = 0; i < g->n_inputs; i++) {
        const struct value *v = &g->values[g->inputs[i]];
        int r = input_shape(b, v, &shapes[i], err);
        size_t size;

        if (r < 0)
            return r;
        in[i] = (struct tensor){.dtype = v->dtype, .shape = shapes[i]};
        if (!shape_bytes(&shapes[i], v->dtype, &size))
            return error_set(err, -EFBIG, "input '%s' is too large", v->name);
        in[i].data = alloc_aligned(size);
        if (!in[i].data)
            return error_oom(err);
        fill_noise(&in[i], size);
    }
    return session_plan(s, shapes, g->n_inputs, err);
}

/* Each step's smallest time over the runs: the least disturbed by other work on the machine. */
static json_t *layers_json(const struct plan *p, const float *us) {
    json_t *list = json_array();

    for (size_t i = 0; list && i < plan_n_steps(p); i++) {
        struct plan_step step;

        plan_get_step(p, i, &step);
        json_array_append_new(
            list, json_pack("{s:s, s:s, s:s, s:s, s:b, s:f, s:I, s:I}", "name", step.id, "op", step.op,
                      "form", step.form, "kernel", step.kernel, "decoded", step.is_decoded, "us",
                      (double)us[i], "macs", (json_int_t)step.macs, "bytes", (json_int_t)step.weight_bytes));
    }
    return list;
}

static int time_runs(
    const struct bench *b, struct session *s, const struct tensor *in, json_t **ret, struct error *err) {
    size_t n_steps = plan_n_steps(s->plan), n = 0;
    _cleanup_(freep) float *us = calloc(n_steps + 1, sizeof(*us)),
                           *least = calloc(n_steps + 1, sizeof(*least));
    _cleanup_(freep) double *runs = calloc(MAX_RUNS, sizeof(*runs));
    double end = clock_now_us() + (double)b->seconds * 1e6;
    struct latency l;
    struct net_bytes bytes;

    if (!us || !least || !runs)
        return error_oom(err);
    for (size_t i = 0; i < n_steps; i++)
        least[i] = INFINITY;
    for (int i = 0; i < 3; i++)
        session_run(s, in);
    while (n < MAX_RUNS && (n < 5 || clock_now_us() < end)) {
        double start = clock_now_us();

        /* every eighth run also looks at the layers: reading the clock between them costs time */
        plan_run(s->plan, &s->arena, in, s->out, s->pool, n % 8 == 0 ? us : NULL);
        runs[n] = clock_now_us() - start;
        for (size_t i = 0; n % 8 == 0 && i < n_steps; i++)
            least[i] = fminf(least[i], us[i]);
        n++;
    }
    l = latency_of(runs, n);
    net_count_bytes(s->net, &bytes);
    *ret = json_pack("{s:f, s:f, s:f, s:f, s:I, s:I, s:o}", "p50_us", l.p50, "p95_us", l.p95, "p99_us", l.p99,
        "min_us", l.min, "runs", (json_int_t)n, "bytes_resident",
        (json_int_t)(bytes.packed + bytes.plans + bytes.mapped + bytes.arena_max), "layers",
        layers_json(s->plan, least));
    return *ret ? 0 : error_oom(err);
}

/* As the daemon does while it is idle: the kernels of this size are measured, then planned again. */
static int tune(const struct bench *b, struct session *s, const struct tensor *in, struct error *err) {
    struct tune_limits limits = {.seconds = MAX_TUNE_SECONDS};
    struct shape shapes[MAX_INPUTS];
    size_t n = net_graph(s->net)->n_inputs;
    int r = 1;

    if (!b->tune)
        return 0;
    while (r == 1)
        r = net_tune(s->net, &limits, NULL, err);
    if (r == 0)
        r = tuner_save(b->tuner, err);
    for (size_t i = 0; i < n; i++)
        shapes[i] = in[i].shape;
    return r < 0 ? r : session_plan(s, shapes, n, err);
}

/* Times of kernels are used when they are there, and made with --tune. */
static int open_tuner(struct bench *b, struct error *err) {
    struct error why = {0};

    if (!b->tune && !b->tune_cache)
        return 0;
    if (tuner_new(b->tune_cache, &b->tuner, &why) < 0)
        return error_oom(err);
    if (why.err)
        fprintf(stderr, "bonsai-worker bench: %s\n", why.text);
    return 0;
}

static int open_session(const struct bench *b, struct session *s, struct error *err) {
    struct net_options o = {.kernels = b->kernels, .policy = b->policy, .tuner = b->tuner};

    return session_open_file(b->model, &o, (unsigned)b->threads, s, err);
}

static int run(int argc, char **argv) {
    _cleanup_(tuner_freep) struct tuner *tuner = NULL; /* after the session, which uses it */
    _cleanup_(session_done) struct session s = {0};
    _cleanup_(tensors_done) struct tensor *in = calloc(MAX_INPUTS, sizeof(*in));
    struct bench b = {.batch = 1, .threads = 1, .seconds = 2};
    struct error err = {0};
    json_t *result = NULL;

    if (!in || parse(argc, argv, &b, &err) < 0) {
        fprintf(stderr, "bonsai-worker bench: %s\n", err.text);
        return command_usage(&command_bench);
    }
    if (open_tuner(&b, &err) < 0)
        return command_fail(&err);
    tuner = b.tuner;
    if (open_session(&b, &s, &err) < 0 || make_inputs(&b, &s, in, &err) < 0 || tune(&b, &s, in, &err) < 0 ||
        time_runs(&b, &s, in, &result, &err) < 0)
        return command_fail(&err);
    return command_print(result);
}

const struct command command_bench = {
    .name = "bench",
    .arguments =
        "FILE [--shape NAME=1x3x224x224]… [--batch N] [--threads N] [--policy speed|memory] [--seconds S] "
        "[--kernels LIST] [--tune] [--tune-cache FILE]",
    .summary = "Times a model in this engine, without HTTP.",
    .run = run,
};
