/* Our int8 convolutions and fully connected layers beside oneDNN's (u8 s8 s32, requantised to u8), on one
 * thread, in turns: for every layer the median time of oneDNN's and how much faster ours is with weights of
 * any value, of 16 and of 2, and the share of the int8 peak measured here. Above 1: ours is ahead.
 *
 *   s8_bench [ROUNDS] [FIRST LAYER] */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/clock.h"
#include "engine/graph.h"
#include "engine/kernel/rows.h"
#include "engine/onednn.h"
#include "engine/ops.h"
#include "engine/pack.h"

struct shape_row {
    const char *name;
    int64_t n, ic, size, oc, k, stride; /* size 1, k 1: fully connected */
};

static const struct shape_row rows[] = {
    {"3x3 64 @56", 1, 64, 56, 64, 3, 1},
    {"3x3 128 @28", 1, 128, 28, 128, 3, 1},
    {"3x3 256 @14", 1, 256, 14, 256, 3, 1},
    {"3x3 512 @7", 1, 512, 7, 512, 3, 1},
    {"1x1 64->64 @56", 1, 64, 56, 64, 1, 1},
    {"1x1 64->256 @56", 1, 64, 56, 256, 1, 1},
    {"1x1 256->64 @56", 1, 256, 56, 64, 1, 1},
    {"1x1 256->1024 @14", 1, 256, 14, 1024, 1, 1},
    {"1x1 1024->256 @14", 1, 1024, 14, 256, 1, 1},
    {"1x1 512->2048 @7", 1, 512, 7, 2048, 1, 1},
    {"1x1/2 64->128 @56", 1, 64, 56, 128, 1, 2},
    {"3x3/2 128 @56", 1, 128, 56, 128, 3, 2},
    {"3x3 192->384 @13", 1, 192, 13, 384, 3, 1},
    {"7x7/2 3->64 @224", 1, 3, 224, 64, 7, 2},
    {"3x3/2 3->32 @224", 1, 3, 224, 32, 3, 2},
    {"3x3 3->64 @224", 1, 3, 224, 64, 3, 1},
    {"3x3 3->16 @32", 1, 3, 32, 16, 3, 1},
    {"5x5 1->32 @28", 1, 1, 28, 32, 5, 1},
    {"3x3 16 @32", 1, 16, 32, 16, 3, 1},
    {"3x3/2 16->32 @32", 1, 16, 32, 32, 3, 2},
    {"3x3 32 @16", 1, 32, 16, 32, 3, 1},
    {"3x3 64 @8", 1, 64, 8, 64, 3, 1},
    {"1x1 16->96 @112", 1, 16, 112, 96, 1, 1},
    {"1x1 96->24 @56", 1, 96, 56, 24, 1, 1},
    {"1x1 144->24 @56", 1, 144, 56, 24, 1, 1},
    {"1x1 960->160 @7", 1, 960, 7, 160, 1, 1},
    {"fc 512->1000", 1, 512, 1, 1000, 1, 1},
    {"fc 4096->4096", 1, 4096, 1, 4096, 1, 1},
    {"fc 25088->4096", 1, 25088, 1, 4096, 1, 1},
    {"fc 4096->4096 n 8", 8, 4096, 1, 4096, 1, 1},
};

static const int n_values[] = {0, 16, 2};
#define N_OURS 3

static uint32_t rng = 1;

static uint8_t *random_bytes(size_t n, int values) {
    uint8_t *p = aligned_alloc(64, (n + 127) / 64 * 64);

    for (size_t i = 0; p && i < n; i++) {
        rng = rng * 1664525u + 1013904223u;
        p[i] = (uint8_t)(rng >> 16);
        if (values)
            p[i] = (uint8_t)(p[i] % values * (255 / values));
    }
    return p;
}

/* ---- ours ---- */

struct ours {
    struct graph *g;
    struct weight weight;
    struct tensor codes, scale, x, w, y;
    const struct tensor *in[3];
    struct vtype in_type[3], out_type;
    struct pack_cache *packs;
    struct cpu cpu;
    const struct kernel *kernel;
    struct kernel_state *state;
    void *scratch;
};

static float one_scale = 0.0001f;

static void make_node(struct ours *o, const struct shape_row *r) {
    int ids[4], node;
    bool is_fc = r->size == 1;
    int64_t pad = r->k / 2;

    o->g = graph_new();
    for (int i = 0; i < 4; i++)
        ids[i] = graph_add_value(
            o->g, (const char *[]){"x", "w", "b", "y"}[i], DT_F32, &(struct shape){.rank = 4});
    node = graph_insert_node(o->g, 0, is_fc ? "Gemm" : "Conv", "layer", ids, 2, ids + 3, 1);
    o->g->nodes[node].id = "layer";
    if (is_fc) {
        graph_set_attr_int(o->g, &o->g->nodes[node], "transB", 1);
    } else {
        graph_set_attr_ints(o->g, &o->g->nodes[node], "strides", (int64_t[]){r->stride, r->stride}, 2);
        graph_set_attr_ints(o->g, &o->g->nodes[node], "pads", (int64_t[]){pad, pad, pad, pad}, 4);
    }
    o->g->nodes[node].op = op_find("", is_fc ? "Gemm" : "Conv");
    o->g->nodes[node].op->parse(o->g, &o->g->nodes[node], NULL);
    o->g->nodes[node].weight = &o->weight;
}

static int ours_init(struct ours *o, const struct shape_row *r, uint8_t *codes, struct error *err) {
    int64_t out = (r->size + 2 * (r->k / 2) - r->k) / r->stride + 1;
    bool is_fc = r->size == 1;
    size_t scratch = 0;
    struct layer l;
    int n_kernels = 0, ret;
    const struct kernel *kernels[3];

    if (is_fc)
        kernels[n_kernels++] = &kernel_gemm_s8_avx512vnni;
    kernels[n_kernels++] = is_fc ? &kernel_gemm_s8_avx2 : &kernel_conv_s8_avx512vnni;
    if (!is_fc)
        kernels[n_kernels++] = &kernel_conv_s8_avx2;
    memset(o, 0, sizeof(*o));
    make_node(o, r);
    o->codes = (struct tensor){
        .dtype = DT_S8, .shape = {.rank = is_fc ? 2 : 4, .dim = {r->oc, r->ic, r->k, r->k}}, .data = codes};
    o->scale = (struct tensor){.dtype = DT_F32, .data = &one_scale};
    o->weight = (struct weight){.structure = weight_structure_find("dense"),
        .code = weight_code_find("s8"),
        .scales = weight_scales_find("layer"),
        .shape = o->codes.shape,
        .rows = r->oc,
        .cols = r->ic * r->k * r->k,
        .codes = &o->codes,
        .scale = &o->scale};
    o->x = (struct tensor){.dtype = DT_U8,
        .layout = is_fc ? LAYOUT_PLAIN : LAYOUT_NHWC,
        .shape = {.rank = is_fc ? 2 : 4, .dim = {r->n, r->ic, r->size, r->size}}};
    o->y = (struct tensor){.dtype = DT_U8,
        .layout = o->x.layout,
        .shape = {.rank = is_fc ? 2 : 4, .dim = {r->n, r->oc, out, out}}};
    o->w = (struct tensor){.dtype = DT_F32, .shape = o->codes.shape};
    o->in[0] = &o->x;
    o->in[1] = &o->w;
    o->in_type[0] = (struct vtype){DT_U8, o->x.layout, {0.02f, 128}};
    o->out_type = (struct vtype){DT_U8, o->x.layout, {0.1f, 128}};
    o->packs = pack_cache_new();
    ret = cpu_detect(getenv("BONSAI_HIDE_CPU"), &o->cpu, err);
    l = (struct layer){.graph = o->g,
        .node = &o->g->nodes[0],
        .n_in = 2,
        .n_out = 1,
        .in = o->in,
        .out = &o->y,
        .in_type = o->in_type,
        .out_type = &o->out_type,
        .in_place_post = -1,
        .n_threads = 1,
        .is_compact = true,
        .cpu = &o->cpu};
    for (int i = 0; ret == 0 && i < n_kernels && !o->kernel; i++)
        if (kernels[i]->fits(&o->cpu, &l))
            o->kernel = kernels[i];
    if (!o->kernel)
        return error_set(err, -1, "no kernel takes '%s'", r->name);
    ret = o->kernel->prepare(&l, o->packs, &o->state, &scratch, err);
    o->scratch = aligned_alloc(64, (scratch + 127) / 64 * 64);
    return ret;
}

static void ours_done(struct ours *o) {
    o->kernel->done(o->state);
    pack_cache_free(o->packs);
    free(o->scratch);
    graph_free(o->g);
}

/* ---- oneDNN ---- */

struct peer {
    dnnl_engine_t engine;
    dnnl_stream_t stream;
    dnnl_primitive_t prim;
    dnnl_exec_arg_t args[5];
    const char *impl;
};

static void check(dnnl_status_t st, const char *what) {
    if (st == dnnl_success)
        return;
    fprintf(stderr, "oneDNN: %s failed (%d)\n", what, (int)st);
    exit(1);
}

static dnnl_memory_t memory_of(struct peer *p, const dnnl_memory_desc_t *md, void *data) {
    dnnl_memory_t m;

    check(dnnl_memory_create(&m, md, p->engine, data), "memory");
    return m;
}

static void peer_init(struct peer *p, const struct shape_row *r, uint8_t *codes, uint8_t *x, uint8_t *y) {
    int64_t pad = r->k / 2, out = (r->size + 2 * pad - r->k) / r->stride + 1;
    dnnl_dims_t xd = {r->n, r->ic, r->size, r->size}, wd = {r->oc, r->ic, r->k, r->k}, bd = {r->oc},
                yd = {r->n, r->oc, out, out};
    dnnl_dims_t strides = {r->stride, r->stride}, zero = {0, 0}, pads = {pad, pad};
    dnnl_memory_desc_t xm, wm, wany, bm, ym;
    dnnl_convolution_desc_t d;
    dnnl_primitive_attr_t attr;
    dnnl_primitive_desc_t pd;
    dnnl_primitive_t reorder;
    dnnl_primitive_desc_t rpd;
    dnnl_memory_t w, plain;
    float *bias = calloc((size_t)r->oc, sizeof(*bias)), *scale = malloc((size_t)r->oc * sizeof(*scale));

    check(dnnl_engine_create(&p->engine, dnnl_cpu, 0), "engine");
    check(dnnl_stream_create(&p->stream, p->engine, dnnl_stream_default_flags), "stream");
    dnnl_memory_desc_init_by_tag(&xm, 4, xd, dnnl_u8, dnnl_nhwc);
    dnnl_memory_desc_init_by_tag(&wm, 4, wd, dnnl_s8, dnnl_abcd);
    dnnl_memory_desc_init_by_tag(&wany, 4, wd, dnnl_s8, dnnl_format_tag_any);
    dnnl_memory_desc_init_by_tag(&bm, 1, bd, dnnl_f32, dnnl_a);
    dnnl_memory_desc_init_by_tag(&ym, 4, yd, dnnl_u8, dnnl_nhwc);
    check(dnnl_convolution_forward_desc_init(
              &d, dnnl_forward_inference, dnnl_convolution_direct, &xm, &wany, &bm, &ym, strides, pads, pads),
        "describing");
    for (int64_t i = 0; i < r->oc; i++)
        scale[i] = 0.00002f;
    dnnl_primitive_attr_create(&attr);
    dnnl_primitive_attr_set_output_scales(attr, r->oc, 2, scale);
    check(dnnl_primitive_desc_create(&pd, &d, attr, p->engine, NULL), "choosing");
    dnnl_primitive_desc_query(pd, dnnl_query_impl_info_str, 0, (void *)&p->impl);
    check(dnnl_primitive_create(&p->prim, pd), "making");
    w = memory_of(p, dnnl_primitive_desc_query_md(pd, dnnl_query_weights_md, 0), DNNL_MEMORY_ALLOCATE);
    plain = memory_of(p, &wm, codes);
    check(dnnl_reorder_primitive_desc_create(&rpd, &wm, p->engine,
              dnnl_primitive_desc_query_md(pd, dnnl_query_weights_md, 0), p->engine, NULL),
        "reorder");
    check(dnnl_primitive_create(&reorder, rpd), "reorder");
    check(dnnl_primitive_execute(
              reorder, p->stream, 2, (dnnl_exec_arg_t[]){{DNNL_ARG_FROM, plain}, {DNNL_ARG_TO, w}}),
        "reorder");
    dnnl_stream_wait(p->stream);
    (void)zero;
    p->args[0] = (dnnl_exec_arg_t){DNNL_ARG_SRC, memory_of(p, &xm, x)};
    p->args[1] = (dnnl_exec_arg_t){DNNL_ARG_WEIGHTS, w};
    p->args[2] = (dnnl_exec_arg_t){DNNL_ARG_BIAS, memory_of(p, &bm, bias)};
    p->args[3] = (dnnl_exec_arg_t){DNNL_ARG_DST, memory_of(p, &ym, y)};
}

/* ---- in turns ---- */

static int compare(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;

    return x < y ? -1 : x > y;
}

static void run_peer(const struct peer *p) {
    dnnl_primitive_execute(p->prim, p->stream, 4, p->args);
    dnnl_stream_wait(p->stream);
}

static void run_ours(const struct ours *o, uint8_t *x, uint8_t *y) {
    const void *in[3] = {x, NULL, NULL};
    void *out[1] = {y};

    o->kernel->run(o->state, &(struct run_io){.in = in, .out = out, .scratch = o->scratch});
}

static double timed(const struct peer *p, const struct ours *o, uint8_t *x, uint8_t *y, int reps) {
    double t = clock_now_us();

    for (int i = 0; i < reps; i++) {
        if (p)
            run_peer(p);
        else
            run_ours(o, x, y);
    }
    return (clock_now_us() - t) / reps;
}

static void bench_row(const struct shape_row *r, int n_rounds) {
    int64_t out = (r->size + 2 * (r->k / 2) - r->k) / r->stride + 1;
    size_t n_w = (size_t)(r->oc * r->ic * r->k * r->k);
    uint8_t *x = random_bytes((size_t)(r->n * r->ic * r->size * r->size), 0);
    uint8_t *y = random_bytes((size_t)(r->n * r->oc * out * out), 0), *codes[N_OURS];
    double macs = (double)(r->n * out * out) * (double)n_w, best = 1e30;
    double *us[1 + N_OURS], *ratio[1 + N_OURS];
    struct ours ours[N_OURS];
    struct peer peer;
    struct error err = {0};
    int reps;

    for (int i = 0; i < N_OURS; i++) {
        codes[i] = random_bytes(n_w, n_values[i]);
        if (ours_init(&ours[i], r, codes[i], &err) < 0) {
            fprintf(stderr, "%s\n", err.text);
            exit(1);
        }
    }
    peer_init(&peer, r, codes[0], x, y);
    for (int i = 0; i <= N_OURS; i++) {
        us[i] = calloc((size_t)n_rounds, sizeof(double));
        ratio[i] = calloc((size_t)n_rounds, sizeof(double));
    }
    timed(&peer, NULL, x, y, 1);
    reps = (int)(2000 / timed(&peer, NULL, x, y, 3)) + 1;
    for (int k = 0; k < n_rounds; k++) {
        us[0][k] = timed(&peer, NULL, x, y, reps);
        for (int i = 0; i < N_OURS; i++) {
            us[1 + i][k] = timed(NULL, &ours[i], x, y, reps);
            ratio[1 + i][k] = us[0][k] / us[1 + i][k];
            best = i == 0 && us[1][k] < best ? us[1][k] : best;
        }
        if (k % 8 == 7)
            nanosleep(&(struct timespec){.tv_nsec = 60000000}, NULL);
    }
    for (int i = 0; i <= N_OURS; i++) {
        qsort(us[i], (size_t)n_rounds, sizeof(double), compare);
        qsort(ratio[i], (size_t)n_rounds, sizeof(double), compare);
    }
    printf("%-20s %-22s %8.1f us  s8 %5.2f  16 values %5.2f  2 values %5.2f  best %6.1f GOP/s\n", r->name,
        peer.impl, us[0][n_rounds / 2], ratio[1][n_rounds / 2], ratio[2][n_rounds / 2],
        ratio[3][n_rounds / 2], 2e-3 * macs / best);
    fflush(stdout);
    for (int i = 0; i < N_OURS; i++) {
        ours_done(&ours[i]);
        free(codes[i]);
    }
}

int main(int argc, char **argv) {
    int n_rounds = argc > 1 ? atoi(argv[1]) : 41, first = argc > 2 ? atoi(argv[2]) : 0;
    int end = argc > 3 ? atoi(argv[3]) : (int)(sizeof(rows) / sizeof(rows[0]));

    onednn_enter();
    for (int i = first; i < end; i++)
        bench_row(&rows[i], n_rounds);
    return 0;
}
