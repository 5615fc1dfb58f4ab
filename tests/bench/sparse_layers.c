/* Sparse layers against the dense kernels on the same weights, in turns: microseconds of the layer alone,
 * medians, and the ratio.
 *
 *   sparse_layers [f32|s8 [ZEROS [ROUNDS [THREADS]]]]      both; 90; 15; 1
 *   sparse_layers save FOLDER          writes each layer as a file, for float_latency and its peer
 *
 * The pattern is random; on codes, blocks of 1 output x 4 inputs. To be run with `chrt -f 10`: it sleeps as
 * long as it works. */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "engine/net.h"
#include "engine/onnx.h"
#include "engine/pool.h"

#define DENSE_F32  "conv_f32_onednn,gemm_f32_onednn"
#define DENSE_S8   "conv_s8_avx512vnni,conv_s8_avx2,gemm_s8_avx512vnni,gemm_s8_avx2"
#define MAX_ROUNDS 101
#define BURST      8 /* runs of one side before the other's turn */

struct layer_case {
    int ic, oc, size, k; /* k 0: fully connected, batch 1 */
};

static const struct layer_case cases[] = {
    {64, 256, 56, 1},
    {256, 64, 56, 1},
    {128, 512, 28, 1},
    {512, 128, 28, 1},
    {256, 1024, 14, 1},
    {1024, 256, 14, 1},
    {512, 2048, 7, 1},
    {2048, 512, 7, 1},
    {64, 64, 56, 3},
    {128, 128, 28, 3},
    {256, 256, 14, 3},
    {512, 512, 7, 3},
    {4096, 4096, 1, 0},
    {25088, 4096, 1, 0},
};

static uint32_t next_random(uint32_t *state) {
    *state = *state * 1664525u + 1013904223u;
    return *state >> 8;
}

/* Weights in blocks of `block` inputs of one tap, `density` of them not zero: floats or codes. */
static void fill_weights(void *w, bool is_s8, const struct layer_case *c, int block, float density) {
    uint32_t rng = 7;
    int taps = c->k ? c->k * c->k : 1;

    for (int oc = 0; oc < c->oc; oc++)
        for (int ic = 0; ic < c->ic; ic += block)
            for (int tap = 0; tap < taps; tap++) {
                bool keep = (float)next_random(&rng) < density * (float)(1 << 24);

                for (int i = 0; i < block && keep; i++) {
                    size_t at = ((size_t)oc * (size_t)c->ic + (size_t)(ic + i)) * (size_t)taps + (size_t)tap;
                    int code = (int)(next_random(&rng) % 127) + 1;

                    if (is_s8)
                        ((int8_t *)w)[at] = (int8_t)(code % 2 ? code : -code);
                    else
                        ((float *)w)[at] = (float)code / 128;
                }
            }
}

static int scalar(struct graph *g, const char *name, enum dtype t, const void *data) {
    struct tensor s = {.dtype = t, .shape = {.rank = 0}, .data = (void *)(uintptr_t)data};

    return graph_add_init(g, name, &s, false);
}

static int value(struct graph *g, const char *name) {
    return graph_add_value(g, name, DT_NONE, &(struct shape){.rank = -1});
}

static int node(struct graph *g, const char *op, const char *out, const int *in, int n_in) {
    int v = value(g, out);

    graph_insert_node(g, g->n_nodes, op, out, in, n_in, &v, 1);
    return v;
}

/* x -> [Q DQ] -> Conv -> [Q DQ] -> y */
static struct graph *make_graph(const struct layer_case *c, bool is_s8, float density) {
    struct graph *g = graph_new();
    struct shape x = {.rank = c->k ? 4 : 2, .dim = {1, c->ic, c->size, c->size}};
    struct tensor w = {
        .dtype = is_s8 ? DT_S8 : DT_F32, .shape = {.rank = c->k ? 4 : 2, .dim = {c->oc, c->ic, c->k, c->k}}};
    int64_t pad = c->k / 2;
    int v, wv, sx, zx, sy, zy;
    size_t bytes = 0;

    g->opset = 13;
    g->ir_version = 8;
    v = graph_add_value(g, "x", DT_F32, &x);
    graph_add_input(g, v);
    (void)shape_bytes(&w.shape, w.dtype, &bytes);
    w.data = calloc(bytes, 1);
    fill_weights(w.data, is_s8, c, is_s8 ? 4 : 1, density);
    wv = graph_add_init(g, "w", &w, false);
    free(w.data);
    if (is_s8) {
        sx = scalar(g, "sx", DT_F32, &(float){0.02f});
        zx = scalar(g, "zx", DT_U8, &(uint8_t){128});
        sy = scalar(g, "sy", DT_F32, &(float){0.3f});
        zy = scalar(g, "zy", DT_U8, &(uint8_t){128});
        wv = node(g, "DequantizeLinear", "wd", (int[]){wv, scalar(g, "sw", DT_F32, &(float){0.01f})}, 2);
        v = node(g, "QuantizeLinear", "xq", (int[]){v, sx, zx}, 3);
        v = node(g, "DequantizeLinear", "xd", (int[]){v, sx, zx}, 3);
    }
    v = node(g, c->k ? "Conv" : "Gemm", "layer", (int[]){v, wv}, 2);
    if (!c->k)
        graph_set_attr_int(g, &g->nodes[g->n_nodes - 1], "transB", 1);
    else
        graph_set_attr_ints(g, &g->nodes[g->n_nodes - 1], "pads", (int64_t[]){pad, pad, pad, pad}, 4);
    if (is_s8) {
        v = node(g, "QuantizeLinear", "yq", (int[]){v, sy, zy}, 3);
        v = node(g, "DequantizeLinear", "yd", (int[]){v, sy, zy}, 3);
    }
    graph_add_output(g, v);
    return g;
}

struct side {
    struct net *net;
    struct plan *plan;
    struct arena arena;
    struct tensor x, y;
    float us[64];
    size_t step; /* the layer's */
    const char *kernel;
    size_t bytes;
    double median[MAX_ROUNDS];
};

static void die(const struct error *err) {
    fprintf(stderr, "%s\n", err->text);
    exit(1);
}

static void side_open(struct side *s, const struct layer_case *c, bool is_s8, float density,
    const char *kernels, unsigned threads) {
    struct net_options o = {.kernels = kernels};
    struct shape x = {.rank = c->k ? 4 : 2, .dim = {1, c->ic, c->size, c->size}};
    struct error err = {0};
    struct graph *g = make_graph(c, is_s8, density);
    size_t bytes = 0;

    memset(s, 0, sizeof(*s));
    if (cpu_detect(getenv("BONSAI_HIDE_CPU"), &o.cpu, &err) < 0 || graph_finish(g, &err) < 0 ||
        net_new(g, &o, &s->net, &err) < 0 || net_plan(s->net, &x, threads, &s->plan, &err) < 0 ||
        arena_reserve(&s->arena, plan_arena_size(s->plan), &err) < 0)
        die(&err);
    for (size_t i = 0; i < plan_n_steps(s->plan); i++) {
        struct plan_step step;

        plan_get_step(s->plan, i, &step);
        if (strcmp(step.op, "Conv") == 0 || strcmp(step.op, "Gemm") == 0) {
            s->step = i;
            s->kernel = step.kernel;
            s->bytes = step.weight_bytes;
        }
    }
    s->x = (struct tensor){.dtype = DT_F32, .shape = x};
    (void)shape_bytes(&x, DT_F32, &bytes);
    s->x.data = aligned_alloc(64, (bytes + 63) / 64 * 64);
    for (size_t i = 0; i < bytes / sizeof(float); i++)
        ((float *)s->x.data)[i] = (float)(i * 7919 % 255) / 128 - 1;
    (void)shape_bytes(&plan_output(s->plan, 0)->shape, DT_F32, &bytes);
    s->y.data = aligned_alloc(64, (bytes + 63) / 64 * 64);
}

static void side_close(struct side *s) {
    free(s->x.data);
    free(s->y.data);
    arena_done(&s->arena);
    plan_unref(s->plan);
    net_unref(s->net);
}

static int compare(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;

    return x < y ? -1 : x > y;
}

static void side_run(struct side *s, int round, struct pool *pool) {
    double us[BURST];

    plan_run(s->plan, &s->arena, &s->x, &s->y, pool, s->us);
    for (int i = 0; i < BURST; i++) {
        plan_run(s->plan, &s->arena, &s->x, &s->y, pool, s->us);
        us[i] = (double)s->us[s->step];
    }
    qsort(us, BURST, sizeof(*us), compare);
    s->median[round] = us[BURST / 2];
}

static void bench(
    const struct layer_case *c, bool is_s8, float density, int rounds, unsigned threads, struct pool *pool) {
    static struct side a, b;
    double ratio[MAX_ROUNDS], macs = (double)c->ic * c->oc * c->size * c->size * (c->k ? c->k * c->k : 1);

    side_open(&a, c, is_s8, density, NULL, threads);
    side_open(&b, c, is_s8, density, is_s8 ? DENSE_S8 : DENSE_F32, threads);
    for (int r = 0; r < rounds; r++) {
        side_run(&a, r, pool);
        side_run(&b, r, pool);
        ratio[r] = b.median[r] / a.median[r];
        nanosleep(&(struct timespec){.tv_nsec = 20000000}, NULL);
    }
    qsort(a.median, (size_t)rounds, sizeof(double), compare);
    qsort(b.median, (size_t)rounds, sizeof(double), compare);
    qsort(ratio, (size_t)rounds, sizeof(double), compare);
    printf(
        "%4d->%-4d %dx%d @%-2d %2.0f%% zero  %-24s %8.1f us  dense %8.1f us  %5.2fx  %6.0f dense GOP/s  %6zu KiB\n",
        c->ic, c->oc, c->k, c->k, c->size, (double)(1 - density) * 100, a.kernel, a.median[rounds / 2],
        b.median[rounds / 2], ratio[rounds / 2], 2e-3 * macs / a.median[rounds / 2], a.bytes >> 10);
    fflush(stdout);
    side_close(&a);
    side_close(&b);
}

static void save(const char *folder) {
    struct error err = {0};

    for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++)
        for (int k = 0; k < 4; k++) {
            const struct layer_case *c = &cases[i];
            float density = k % 2 ? 0.05f : 0.1f;
            struct graph *g = make_graph(c, k > 1, density);
            char path[512];
            int fd;

            snprintf(path, sizeof(path), "%s/%s_%d_%d_%dx%d_%d_%d.onnx", folder, k > 1 ? "s8" : "f32", c->ic,
                c->oc, c->k, c->k, c->size, k % 2 ? 95 : 90);
            fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
            if (graph_finish(g, &err) < 0 || onnx_write_fd(g, fd, &err) < 0)
                die(&err);
            close(fd);
            graph_free(g);
        }
}

int main(int argc, char **argv) {
    float density = 1 - (argc > 2 ? (float)atoi(argv[2]) : 90) / 100;
    int rounds = argc > 3 ? atoi(argv[3]) : 15;
    unsigned threads = argc > 4 ? (unsigned)atoi(argv[4]) : 1;
    struct pool *pool = NULL;
    struct error err = {0};

    if (argc == 3 && strcmp(argv[1], "save") == 0) {
        save(argv[2]);
        return 0;
    }
    rounds = rounds < 1 ? 1 : rounds > MAX_ROUNDS ? MAX_ROUNDS : rounds;
    if (threads > 1 && pool_new(threads, &pool, &err) < 0)
        die(&err);
    for (int s8 = 0; s8 < 2; s8++)
        for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++)
            if (argc < 2 || (strcmp(argv[1], "s8") == 0) == s8)
                bench(&cases[i], s8, density, rounds, threads, pool);
    pool_free(pool);
    return 0;
}
