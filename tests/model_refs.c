/* Whole models against recorded outputs of another engine:
 *
 *   model_refs [--reference] FILE.refs.json…
 *
 * A refs file names the model beside it and cases with raw little-endian float32 inputs and outputs. The
 * difference of an output is its largest absolute difference over the largest absolute value (softmax outputs
 * are probabilities: then it is absolute). Fails over 1e-4. */
#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <libgen.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "engine/net.h"

#define MAX_IO 8
#define LIMIT  1e-4

DEFINE_CLEANUP(struct plan *, plan_unref)
DEFINE_CLEANUP(struct net *, net_unref)

static float *read_floats(const char *folder, const char *name, size_t *ret_n) {
    char path[4096];
    _cleanup_(fclosep) FILE *f = NULL;
    float *data;
    long size;

    snprintf(path, sizeof(path), "%s/%s", folder, name);
    f = fopen(path, "rbe");
    if (!f || fseek(f, 0, SEEK_END) != 0)
        return NULL;
    size = ftell(f);
    rewind(f);
    data = malloc((size_t)size + 1);
    *ret_n = data ? fread(data, sizeof(float), (size_t)size / sizeof(float), f) : 0;
    return data;
}

static double difference(const float *got, const float *want, size_t n) {
    double scale = 1, worst = 0;

    for (size_t i = 0; i < n; i++)
        scale = fmax(scale, fabs((double)want[i]));
    for (size_t i = 0; i < n; i++) {
        double d = fabs((double)got[i] - (double)want[i]);

        if (!(d <= worst))
            worst = isnan(d) ? HUGE_VAL : d;
    }
    return worst / scale;
}

struct run {
    struct tensor in[MAX_IO], out[MAX_IO];
    struct shape shape[MAX_IO];
    struct arena arena;
};

static void run_done(struct run *r) {
    for (int i = 0; i < MAX_IO; i++) {
        free(r->in[i].data);
        free(r->out[i].data);
    }
    arena_done(&r->arena);
}

static int read_inputs(
    const struct graph *g, const char *folder, json_t *inputs, struct run *r, struct error *err) {
    json_t *input, *dim;
    size_t i, d;

    json_array_foreach(inputs, i, input) {
        const char *name = json_string_value(json_object_get(input, "name"));
        size_t at = 0, n = 0;

        while (at < g->n_inputs && strcmp(g->values[g->inputs[at]].name, name) != 0)
            at++;
        if (at == g->n_inputs || at >= MAX_IO)
            return error_set(err, -EINVAL, "the model has no input '%s'", name);
        json_array_foreach(json_object_get(input, "dims"), d, dim) r->shape[at].dim[r->shape[at].rank++] =
            json_integer_value(dim);
        r->in[at] = (struct tensor){.dtype = DT_F32, .shape = r->shape[at]};
        r->in[at].data = read_floats(folder, json_string_value(json_object_get(input, "file")), &n);
        if (!r->in[at].data)
            return error_set(err, -ENOENT, "input '%s' cannot be read", name);
    }
    return 0;
}

static int check_outputs(const struct graph *g, const char *folder, json_t *outputs, const struct run *r,
    double *ret_worst, struct error *err) {
    json_t *output;
    size_t i;

    json_array_foreach(outputs, i, output) {
        const char *name = json_string_value(json_object_get(output, "name"));
        _cleanup_(freep) float *want = NULL;
        size_t at = 0, n = 0;
        int64_t have = 0;

        while (at < g->n_outputs && strcmp(g->values[g->outputs[at]].name, name) != 0)
            at++;
        want = read_floats(folder, json_string_value(json_object_get(output, "file")), &n);
        if (at >= g->n_outputs || at >= MAX_IO || !want || !shape_count(&r->out[at].shape, &have))
            return error_set(err, -EINVAL, "output '%s' is missing", name);
        if ((size_t)have != n)
            return error_set(
                err, -EINVAL, "output '%s' has %lld values, recorded are %zu", name, (long long)have, n);
        *ret_worst = fmax(*ret_worst, difference(r->out[at].data, want, n));
    }
    return 0;
}

static int run_case(struct net *net, const char *folder, json_t *c, double *ret_worst, struct error *err) {
    const struct graph *g = net_graph(net);
    _cleanup_(run_done) struct run r = {0};
    _cleanup_(plan_unrefp) struct plan *plan = NULL;
    int e = read_inputs(g, folder, json_object_get(c, "inputs"), &r, err);

    if (e == 0)
        e = net_plan(net, r.shape, 1, &plan, err);
    if (e == 0)
        e = arena_reserve(&r.arena, plan_arena_size(plan), err);
    for (size_t i = 0; e == 0 && i < plan_n_outputs(plan) && i < MAX_IO; i++) {
        size_t size = 0;

        (void)shape_bytes(&plan_output(plan, i)->shape, plan_output(plan, i)->dtype, &size);
        r.out[i].data = malloc(size + 1);
        e = r.out[i].data ? 0 : error_oom(err);
    }
    if (e < 0)
        return e;
    plan_run(plan, &r.arena, r.in, r.out, NULL, NULL);
    if (getenv("MODEL_STEPS")) {
        for (size_t i = 0; i < plan_n_steps(plan); i++) {
            struct plan_step s;

            plan_get_step(plan, i, &s);
            printf("  %-28s %-20s %s\n", s.kernel, s.op, s.id);
        }
    }
    return check_outputs(g, folder, json_object_get(c, "outputs"), &r, ret_worst, err);
}

static int run_model(const char *path, const struct net_options *o, double *ret_worst, struct error *err) {
    _cleanup_(json_decrefp) json_t *refs = json_load_file(path, 0, NULL);
    _cleanup_(freep) char *copy = strdup(path);
    _cleanup_(closep) int fd = -1;
    _cleanup_(net_unrefp) struct net *net = NULL;
    char model[4096];
    const char *folder;
    json_t *c;
    size_t i;
    int r;

    if (!refs || !copy)
        return error_set(err, -ENOENT, "cannot read the refs file");
    folder = dirname(copy);
    snprintf(model, sizeof(model), "%s/%s", folder, json_string_value(json_object_get(refs, "model")));
    fd = open(model, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return error_errno(err, "the model");
    r = net_open_fd(fd, o, &net, err);
    json_array_foreach(json_object_get(refs, "cases"), i, c) {
        if (r == 0)
            r = run_case(net, folder, c, ret_worst, err);
    }
    return r;
}

int main(int argc, char **argv) {
    struct net_options o = {0};
    int n_failed = 0, first = 1;

    if (argc > 1 && strcmp(argv[1], "--reference") == 0) {
        o.reference = true;
        first = 2;
    }
    o.kernels = getenv("BONSAI_KERNELS");
    if (cpu_detect(getenv("BONSAI_HIDE_CPU"), &o.cpu, NULL) < 0)
        return 2;
    for (int i = first; i < argc; i++) {
        struct error err = {0};
        double worst = 0;
        int r = run_model(argv[i], &o, &worst, &err);
        bool ok = r == 0 && worst <= LIMIT;

        printf("%s %s: ", ok ? "ok  " : "FAIL", argv[i]);
        if (r < 0)
            printf("%s\n", err.text);
        else
            printf("largest difference %.2g\n", worst);
        n_failed += !ok;
    }
    printf("%d failed\n", n_failed);
    return n_failed != 0;
}
