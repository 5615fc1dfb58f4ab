/* bonsai-worker infer: runs a model once on .npy inputs and writes its outputs as .npy. */
#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/cleanup.h"
#include "compress/command.h"
#include "compress/npy.h"
#include "compress/session.h"

#define MAX_INPUTS 64
#define INPUT_MAX  (4ull << 30)

struct infer {
    const char *model, *output, *kernels;
    size_t n;
    char *given[MAX_INPUTS]; /* "NAME=FILE" */
    void *file[MAX_INPUTS];  /* bytes of the .npy, in the model's input order */
    struct tensor in[MAX_INPUTS];
};

static void infer_done(struct infer *f) {
    for (size_t i = 0; i < MAX_INPUTS; i++)
        free(f->file[i]);
}

static int parse(int argc, char **argv, struct infer *f) {
    static const struct option options[] = {
        {"input", required_argument, NULL, 'i'},
        {"output", required_argument, NULL, 'o'},
        {"kernels", required_argument, NULL, 'k'},
        {0},
    };
    int c;

    while ((c = getopt_long(argc, argv, "", options, NULL)) != -1) {
        if (c == 'i' && f->n < MAX_INPUTS && strchr(optarg, '='))
            f->given[f->n++] = optarg;
        else if (c == 'o')
            f->output = optarg;
        else if (c == 'k')
            f->kernels = optarg;
        else
            return -EINVAL;
    }
    if (optind != argc - 1 || !f->output)
        return -EINVAL;
    f->model = argv[optind];
    return 0;
}

/* The file given for input `name`, or NULL. */
static const char *file_of(const struct infer *f, const char *name) {
    size_t size = strlen(name);

    for (size_t i = 0; i < f->n; i++)
        if (!strncmp(f->given[i], name, size) && f->given[i][size] == '=')
            return f->given[i] + size + 1;
    return NULL;
}

static int load_inputs(struct infer *f, const struct graph *g, struct shape *shapes, struct error *err) {
    if (g->n_inputs != f->n || g->n_inputs > MAX_INPUTS)
        return error_set(err, -EINVAL, "the model has %zu inputs, %zu were given", g->n_inputs, f->n);
    for (size_t i = 0; i < g->n_inputs; i++) {
        const struct value *v = &g->values[g->inputs[i]];
        const char *path = file_of(f, v->name);
        size_t size;
        int r;

        if (!path)
            return error_set(err, -EINVAL, "input '%s' of the model was not given", v->name);
        r = command_read_file(path, INPUT_MAX, &f->file[i], &size, err);
        if (r < 0)
            return r;
        r = npy_read(f->file[i], size, &f->in[i], err);
        if (r < 0)
            return error_prefix(err, r, "input '%s'", v->name);
        if (f->in[i].dtype != v->dtype)
            return error_set(err, -EINVAL, "input '%s' is %s, the file holds %s", v->name,
                dtype_info(v->dtype) ? dtype_info(v->dtype)->name : "?", dtype_info(f->in[i].dtype)->name);
        shapes[i] = f->in[i].shape;
    }
    return 0;
}

static int output_path(const char *dir, const char *name, char *ret, size_t size, struct error *err) {
    int n;

    if (!*name || !strcmp(name, ".") || !strcmp(name, ".."))
        return error_set(err, -EINVAL, "output name '%s' cannot be a file's", name);
    n = snprintf(ret, size, "%s/%s.npy", dir, name);
    if (n < 0 || (size_t)n >= size)
        return error_set(err, -ENAMETOOLONG, "output name '%.64s…' is too long", name);
    for (char *p = ret + strlen(dir) + 1; *p; p++)
        if (*p == '/')
            *p = '_';
    return 0;
}

static int write_output(const char *dir, const char *name, const struct tensor *t, struct error *err) {
    char header[NPY_HEADER_MAX], path[4096];
    _cleanup_(fclosep) FILE *f = NULL;
    int n = npy_write_header(t->dtype, &t->shape, header),
        r = output_path(dir, name, path, sizeof(path), err);
    size_t size;

    if (r < 0)
        return r;
    if (n < 0 || !shape_bytes(&t->shape, t->dtype, &size))
        return error_set(err, -EINVAL, "output '%s' has a type that npy files cannot hold", name);
    f = fopen(path, "wbe");
    if (!f)
        return error_errno(err, "'%s'", path);
    if (fwrite(header, 1, (size_t)n, f) != (size_t)n || (size && fwrite(t->data, 1, size, f) != size) ||
        fflush(f))
        return error_errno(err, "'%s'", path);
    return 0;
}

static int infer(struct infer *f, struct error *err) {
    _cleanup_(session_done) struct session s = {0};
    struct shape shapes[MAX_INPUTS];
    const struct graph *g;
    int r = session_open_file(f->model, &(struct net_options){.kernels = f->kernels}, 1, &s, err);

    if (r < 0)
        return r;
    g = net_graph(s.net);
    r = load_inputs(f, g, shapes, err);
    if (r < 0)
        return r;
    r = session_plan(&s, shapes, g->n_inputs, err);
    if (r < 0)
        return r;
    session_run(&s, f->in);
    r = plan_check_outputs(s.plan, s.out, err);
    if (r < 0)
        return r;
    if (mkdir(f->output, 0777) < 0 && errno != EEXIST)
        return error_errno(err, "'%s'", f->output);
    for (size_t i = 0; i < s.n_out; i++) {
        r = write_output(f->output, g->values[g->outputs[i]].name, &s.out[i], err);
        if (r < 0)
            return r;
    }
    return 0;
}

static int run(int argc, char **argv) {
    _cleanup_(infer_done) struct infer f = {0};
    struct error err = {0};

    if (parse(argc, argv, &f) < 0)
        return command_usage(&command_infer);
    return infer(&f, &err) < 0 ? command_fail(&err) : EXIT_SUCCESS;
}

const struct command command_infer = {
    .name = "infer",
    .arguments = "FILE --input NAME=FILE.npy … --output DIR [--kernels LIST]",
    .summary = "Runs a model once; writes DIR/NAME.npy for each output ('/' in a name becomes '_').",
    .run = run,
};
