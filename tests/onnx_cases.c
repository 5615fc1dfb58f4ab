/* ONNX's backend cases through the engine:
 *
 *   onnx_cases [--only OPERATOR] FOLDER…
 *
 * Below every folder each `model.onnx` with its `test_data_set_*` is a case, and so is each `NAME.onnx` with
 * a `NAME_output_0.pb` beside an `input.f32`. A case runs through the reference kernels and through the
 * default ones; both must agree with the recorded outputs as ONNX's own runner wants it (rtol 1e-3, atol
 * 1e-7). Inputs whose values decide shapes are made constants when planning fails without them. Prints each
 * failure with its largest difference, each skip with its reason, and last `N passed, N failed, N skipped`. A
 * case is skipped only where the engine says that it lacks the operator or the type, and where other runtimes
 * contradict it too (table below). */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "engine/net.h"
#include "engine/onnx.h"

#define MAX_IO    16
#define MAX_DEPTH 8
#define PATH_SIZE 4096
#define RTOL      1e-3
#define ATOL      1e-7

DEFINE_CLEANUP(struct plan *, plan_unref)

struct totals {
    int n_passed, n_failed, n_skipped;
    const char *only; /* run only models with a node of this operator; NULL: all */
};

struct files {
    char model[PATH_SIZE];
    char set[PATH_SIZE]; /* folder of input_N.pb and output_N.pb; "" : `input` and `output` */
    char input[PATH_SIZE], output[PATH_SIZE];
};

struct run {
    struct net *net;
    struct tensor in[MAX_IO], want[MAX_IO], out[MAX_IO];
    size_t n_in, n_want;
    struct arena arena;
};

static void run_done(struct run *r) {
    for (size_t i = 0; i < MAX_IO; i++)
        free(r->out[i].data);
    arena_done(&r->arena);
    net_unref(r->net);
}

/* The whole file in the graph's arena; NULL: there is none. */
static void *read_whole(struct graph *g, const char *path, size_t *ret_size) {
    _cleanup_(fclosep) FILE *f = fopen(path, "rbe");
    struct stat st;
    void *data;

    if (!f || fstat(fileno(f), &st) < 0)
        return NULL;
    data = graph_alloc(g, (size_t)st.st_size + 1);
    if (!data || fread(data, 1, (size_t)st.st_size, f) != (size_t)st.st_size)
        return NULL;
    *ret_size = (size_t)st.st_size;
    return data;
}

/* 1: read, 0: no such file. */
static int read_tensor(struct graph *g, const char *path, struct tensor *ret, struct error *err) {
    size_t size = 0;
    void *data = read_whole(g, path, &size);
    int r;

    if (!data)
        return 0;
    r = onnx_read_tensor(g, data, size, NULL, ret, err);
    return r < 0 ? error_prefix(err, r, "recorded %s", strrchr(path, '/') + 1) : 1;
}

static int read_set(struct graph *g, const char *set, const char *kind, struct tensor *ret, size_t *ret_n,
    struct error *err) {
    for (*ret_n = 0; *ret_n < MAX_IO; (*ret_n)++) {
        char path[PATH_SIZE + 32];
        int r;

        snprintf(path, sizeof(path), "%s/%s_%zu.pb", set, kind, *ret_n);
        r = read_tensor(g, path, &ret[*ret_n], err);
        if (r <= 0)
            return r;
    }
    return 0;
}

static int read_data(struct graph *g, const struct files *f, struct run *r, struct error *err) {
    size_t size = 0;
    int e;

    if (*f->set) {
        e = read_set(g, f->set, "input", r->in, &r->n_in, err);
        return e < 0 ? e : read_set(g, f->set, "output", r->want, &r->n_want, err);
    }
    r->in[0] = (struct tensor){.dtype = DT_F32, .shape = g->values[g->inputs[0]].shape};
    r->in[0].data = read_whole(g, f->input, &size);
    r->n_in = r->n_want = 1;
    for (int d = 0; d < r->in[0].shape.rank; d++)
        if (r->in[0].shape.dim[d] < 0)
            r->in[0].shape.dim[d] = 1;
    e = read_tensor(g, f->output, &r->want[0], err);
    return e < 0 ? e : e == 0 || !r->in[0].data ? error_set(err, -ENOENT, "no recorded data") : 0;
}

/* Inputs from `first` on become constants. */
static int bake_inputs(struct graph *g, size_t first, struct run *r, struct error *err) {
    for (size_t i = first; i < r->n_in; i++) {
        int v = g->inputs[i];

        if (graph_set_init(g, v, &r->in[i]) < 0)
            return error_oom(err);
        g->values[v].is_input = false;
    }
    g->n_inputs = r->n_in = first;
    return graph_finish(g, err);
}

static int open_case(const struct files *f, bool reference, size_t n_live, struct run *r, struct error *err) {
    _cleanup_(graph_freep) struct graph *g = NULL;
    _cleanup_(closep) int fd = open(f->model, O_RDONLY | O_CLOEXEC);
    struct net_options o = {.reference = reference};
    int e;

    if (fd < 0)
        return error_errno(err, "the model");
    e = onnx_read_fd(fd, &g, err);
    if (e == 0)
        e = read_data(g, f, r, err);
    if (e == 0 && (r->n_in != g->n_inputs || r->n_want != g->n_outputs))
        e = error_set(err, -EINVAL, "%zu inputs and %zu outputs are recorded, the model has %zu and %zu",
            r->n_in, r->n_want, g->n_inputs, g->n_outputs);
    if (e == 0 && n_live < r->n_in)
        e = bake_inputs(g, n_live, r, err);
    if (e == 0)
        e = cpu_detect(NULL, &o.cpu, err);
    return e < 0 ? e : net_new(TAKE(g), &o, &r->net, err);
}

/* IEEE half to double. */
static double half_value(uint16_t h) {
    double sign = h & 0x8000 ? -1 : 1;
    int exponent = (h >> 10) & 31, fraction = h & 1023;

    if (exponent == 31)
        return fraction ? (double)NAN : sign * HUGE_VAL;
    return exponent ? sign * ldexp(1024 + fraction, exponent - 25) : sign * ldexp(fraction, -24);
}

static double bits_value(uint32_t bits) {
    float f;

    memcpy(&f, &bits, sizeof(f));
    return (double)f;
}

/* Element `i` of packed little-endian numbers of `bits` bits each. */
static uint64_t raw_element(const struct tensor *t, unsigned bits, int64_t i) {
    const unsigned char *data = t->data;
    uint64_t v = 0;

    if (bits < 8)
        return (uint64_t)data[(uint64_t)i * bits / 8] >> ((uint64_t)i * bits % 8) & ((1u << bits) - 1);
    memcpy(&v, data + (uint64_t)i * (bits / 8), bits / 8);
    return v;
}

static double element(const struct tensor *t, int64_t i) {
    const struct dtype_info *info = dtype_info(t->dtype);
    uint64_t v = raw_element(t, info->bits, i);
    double d;

    if (t->dtype == DT_F64) {
        memcpy(&d, &v, sizeof(d));
        return d;
    }
    if (t->dtype == DT_F32)
        return bits_value((uint32_t)v);
    if (t->dtype == DT_F16)
        return half_value((uint16_t)v);
    if (t->dtype == DT_BF16)
        return bits_value((uint32_t)v << 16);
    if (info->is_signed && info->bits < 64 && v >> (info->bits - 1))
        return (double)v - ldexp(1, (int)info->bits);
    return info->is_signed ? (double)(int64_t)v : (double)v;
}

static bool is_close(double got, double want) {
    if (isnan(got) || isnan(want))
        return isnan(got) && isnan(want);
    return got == want || fabs(got - want) <= ATOL + RTOL * fabs(want);
}

static int compare(const struct tensor *got, const struct tensor *want, size_t index, struct error *err) {
    char a[SHAPE_TEXT_MAX], b[SHAPE_TEXT_MAX];
    int64_t n = 0, n_far = 0;
    double worst = 0;

    if (got->dtype != want->dtype)
        return error_set(err, -EINVAL, "output %zu is %s, recorded is %s", index,
            dtype_info(got->dtype)->name, dtype_info(want->dtype)->name);
    if (!shape_equal(&got->shape, &want->shape))
        return error_set(err, -EINVAL, "output %zu is %s, recorded is %s", index, shape_text(&got->shape, a),
            shape_text(&want->shape, b));
    (void)shape_count(&got->shape, &n);
    for (int64_t i = 0; i < n; i++) {
        double x = element(got, i), y = element(want, i), d = fabs(x - y);

        if (is_close(x, y))
            continue;
        n_far++;
        worst = fmax(worst, isnan(d) ? HUGE_VAL : d);
    }
    if (n_far == 0)
        return 0;
    return error_set(err, -EINVAL, "output %zu: %lld of %lld values differ, largest difference %.4g", index,
        (long long)n_far, (long long)n, worst);
}

static int run_net(struct run *r, struct error *err) {
    _cleanup_(plan_unrefp) struct plan *plan = NULL;
    struct shape shapes[MAX_IO];
    int e;

    for (size_t i = 0; i < r->n_in; i++)
        shapes[i] = r->in[i].shape;
    e = net_plan(r->net, shapes, 1, &plan, err);
    if (e == 0)
        e = arena_reserve(&r->arena, plan_arena_size(plan), err);
    for (size_t i = 0; e == 0 && i < r->n_want; i++) {
        size_t size = 0;

        (void)shape_bytes(&plan_output(plan, i)->shape, plan_output(plan, i)->dtype, &size);
        r->out[i].data = calloc(1, size + 1);
        e = r->out[i].data ? 0 : error_oom(err);
    }
    if (e < 0)
        return e;
    plan_run(plan, &r->arena, r->in, r->out, NULL, NULL);
    for (size_t i = 0; e == 0 && i < r->n_want; i++)
        e = compare(&r->out[i], &r->want[i], i, err);
    return e;
}

static int try_case(const struct files *f, bool reference, size_t n_live, struct error *err) {
    _cleanup_(run_done) struct run r = {0};
    int e = open_case(f, reference, n_live, &r, err);

    return e < 0 ? e : run_net(&r, err);
}

static bool is_lacking(const struct error *err) {
    return err->code && !strcmp(err->code, "unsupported_operator");
}

/* All inputs live if that plans; else the first only; else none. A wrong number is a failure at once. */
static int run_kernels(const struct files *f, bool reference, struct error *err) {
    static const size_t live[] = {MAX_IO, 1, 0};
    int r = 0;

    for (size_t i = 0; i < sizeof(live) / sizeof(live[0]); i++) {
        error_clear(err);
        r = try_case(f, reference, live[i], err);
        if (r == 0 || is_lacking(err) || !strncmp(err->text, "output ", 7))
            break;
    }
    return r < 0 ? error_prefix(err, r, "%s kernels", reference ? "reference" : "default") : 0;
}

static bool has_operator(const char *path, const char *op_type) {
    _cleanup_(graph_freep) struct graph *g = NULL;
    _cleanup_(closep) int fd = open(path, O_RDONLY | O_CLOEXEC);

    if (fd < 0 || onnx_read_fd(fd, &g, NULL) < 0)
        return false;
    for (size_t i = 0; i < g->n_nodes; i++)
        if (!strcmp(g->nodes[i].op_type, op_type))
            return true;
    return false;
}

/* Cases whose numbers ONNX Runtime and PyTorch contradict, and we with them. */
static const struct {
    const char *name, *why;
} contradicted[] = {
    {"test_resize_downsample_scales_cubic_align_corners", "corners are aligned to a size that is not whole"},
    {"test_resize_downsample_scales_linear_align_corners", "corners are aligned to a size that is not whole"},
};

static const char *contradiction(const char *name) {
    for (size_t i = 0; i < sizeof(contradicted) / sizeof(contradicted[0]); i++)
        if (!strcmp(contradicted[i].name, name))
            return contradicted[i].why;
    return NULL;
}

static void run_case(struct totals *t, const struct files *f, const char *name) {
    const char *why = contradiction(name);
    struct error err = {0};
    int r;

    if (t->only && !has_operator(f->model, t->only))
        return;
    if (why) {
        t->n_skipped++;
        printf("skip %s: %s\n", name, why);
        return;
    }
    r = run_kernels(f, true, &err);
    if (r == 0)
        r = run_kernels(f, false, &err);
    if (r == 0) {
        t->n_passed++;
    } else if (is_lacking(&err)) {
        t->n_skipped++;
        printf("skip %s: %s\n", name, err.text);
    } else {
        t->n_failed++;
        printf("FAIL %s: %s\n", name, err.text);
    }
}

static bool is_file(const char *path) {
    return access(path, R_OK) == 0;
}

/* `folder` holds NAME.onnx; runs it when its data is there. */
static void run_file(struct totals *t, const char *folder, const char *name) {
    struct files f = {0};
    size_t stem = strlen(name) - strlen(".onnx");

    if (snprintf(f.model, PATH_SIZE, "%s/%s", folder, name) >= PATH_SIZE)
        return;
    if (snprintf(f.output, PATH_SIZE, "%s/%.*s_output_0.pb", folder, (int)stem, name) >= PATH_SIZE ||
        snprintf(f.input, PATH_SIZE, "%s/input.f32", folder) >= PATH_SIZE)
        return;
    if (is_file(f.output) && is_file(f.input)) {
        run_case(t, &f, name);
        return;
    }
    for (int set = 0; !strcmp(name, "model.onnx"); set++) {
        const char *last = strrchr(folder, '/');

        if (snprintf(f.set, PATH_SIZE, "%s/test_data_set_%d", folder, set) >= PATH_SIZE || !is_file(f.set))
            break;
        run_case(t, &f, last ? last + 1 : folder);
    }
}

static bool ends_with(const char *s, const char *end) {
    size_t n = strlen(s), m = strlen(end);

    return n > m && !strcmp(s + n - m, end);
}

static void walk(struct totals *t, const char *folder, int depth) {
    struct dirent **entries = NULL;
    int n = depth < MAX_DEPTH ? scandir(folder, &entries, NULL, alphasort) : 0;

    for (int i = 0; i < n; i++) {
        _cleanup_(freep) struct dirent *e = entries[i];
        char path[PATH_SIZE];
        struct stat st;

        if (e->d_name[0] == '.' || snprintf(path, PATH_SIZE, "%s/%s", folder, e->d_name) >= PATH_SIZE)
            continue;
        if (stat(path, &st) < 0)
            continue;
        if (S_ISDIR(st.st_mode))
            walk(t, path, depth + 1);
        else if (ends_with(e->d_name, ".onnx"))
            run_file(t, folder, e->d_name);
    }
    free(entries);
}

int main(int argc, char **argv) {
    struct totals t = {0};
    int first = 1;

    if (argc > 2 && !strcmp(argv[1], "--only")) {
        t.only = argv[2];
        first = 3;
    }
    for (int i = first; i < argc; i++)
        walk(&t, argv[i], 0);
    printf("%d passed, %d failed, %d skipped\n", t.n_passed, t.n_failed, t.n_skipped);
    return t.n_failed != 0 || t.n_passed == 0;
}
