/* int8 kernels: every instruction set gives, byte for byte, what the formula of kernel/s8.h says. */
#include "tests/unit/cmocka_all.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/graph.h"
#include "engine/kernel/conv_geometry.h"
#include "engine/kernel/rows.h"
#include "engine/ops.h"
#include "engine/pack.h"
#include "engine/weight.h"

#define SEED 12345

static uint32_t next_random(uint32_t *state) {
    *state = *state * 1664525u + 1013904223u;
    return *state >> 8;
}

struct conv_case {
    int64_t n, c, h, w, oc, kh, kw, stride, dilation, pad, groups;
    bool per_channel, is_float_out, has_bias, unsigned_weights;
    int n_values; /* different weights; 0: any; SPARSE: nine in ten blocks of 1 output x 4 inputs are 0 */
};
#define SPARSE (-1)

/* A layer and all the memory behind it. */
struct fixture {
    struct graph *g;
    struct weight weight;
    struct tensor codes, scales, zeros, x, w_tensor, bias, y;
    const struct tensor *in[3];
    struct vtype in_type[3], out_type;
    uint8_t *input, *w_codes, zero_points[1];
    float *w_scale, *bias_data;
    struct layer l;
};

/* Blocks of four input channels of one tap. */
static void prune_blocks(uint8_t *codes, const struct conv_case *k, uint32_t *rng) {
    int64_t ic = k->c / k->groups, taps = k->kh * k->kw;

    for (int64_t oc = 0; oc < k->oc; oc++)
        for (int64_t c = 0; c < ic; c += 4)
            for (int64_t tap = 0; tap < taps; tap++) {
                bool keep = next_random(rng) % 10 == 0;

                for (int64_t i = c; i < c + 4 && i < ic && !keep; i++)
                    codes[(oc * ic + i) * taps + tap] = k->unsigned_weights ? 7 : 0;
            }
}

static struct weight *weight_of(struct fixture *f, const struct conv_case *k, uint32_t *rng) {
    int64_t n_w = k->oc * (k->c / k->groups) * k->kh * k->kw, n_scale = k->per_channel ? k->oc : 1;

    f->w_codes = malloc((size_t)n_w);
    f->w_scale = malloc((size_t)n_scale * sizeof(float));
    for (int64_t i = 0; i < n_w; i++) {
        f->w_codes[i] = (uint8_t)next_random(rng);
        /* spread over the range, 0 not always among them */
        if (k->n_values > 0)
            f->w_codes[i] = (uint8_t)(f->w_codes[i] % k->n_values * (255 / k->n_values) + 1);
    }
    if (k->n_values == SPARSE)
        prune_blocks(f->w_codes, k, rng);
    for (int64_t i = 0; i < n_scale; i++)
        f->w_scale[i] = 0.001f * (float)(1 + next_random(rng) % 9);
    f->zero_points[0] = 7;
    f->codes = (struct tensor){.dtype = k->unsigned_weights ? DT_U8 : DT_S8,
        .shape = {.rank = 4, .dim = {k->oc, k->c / k->groups, k->kh, k->kw}},
        .data = f->w_codes};
    f->scales = (struct tensor){.dtype = DT_F32, .shape = {.rank = k->per_channel, .dim = {k->oc}}};
    f->scales.data = f->w_scale;
    f->zeros = (struct tensor){.dtype = DT_U8, .shape = {.rank = 0}, .data = f->zero_points};
    f->weight = (struct weight){
        .structure = weight_structure_find("dense"),
        .code = weight_code_find(k->unsigned_weights ? "u8" : "s8"),
        .scales = weight_scales_find(k->per_channel ? "channel" : "layer"),
        .shape = f->codes.shape,
        .rows = k->oc,
        .cols = n_w / k->oc,
        .codes = &f->codes,
        .scale = &f->scales,
        .zero = k->unsigned_weights ? &f->zeros : NULL,
    };
    return &f->weight;
}

static int64_t out_size(int64_t in, int64_t k, const struct conv_case *c) {
    return (in + 2 * c->pad - (k - 1) * c->dilation - 1) / c->stride + 1;
}

static void fixture_init(struct fixture *f, const struct conv_case *k) {
    uint32_t rng = SEED;
    int64_t n_x = k->n * k->c * k->h * k->w, oh = out_size(k->h, k->kh, k), ow = out_size(k->w, k->kw, k);
    int ids[4], node;

    memset(f, 0, sizeof(*f));
    f->g = graph_new();
    for (int i = 0; i < 4; i++) {
        char name[2] = {(char)('a' + i), 0};

        ids[i] = graph_add_value(f->g, name, DT_F32, &(struct shape){.rank = 4});
    }
    node = graph_insert_node(f->g, 0, "Conv", "conv", ids, 3, ids + 3, 1);
    f->g->nodes[node].id = "conv";
    graph_set_attr_ints(f->g, &f->g->nodes[node], "strides", (int64_t[]){k->stride, k->stride}, 2);
    graph_set_attr_ints(f->g, &f->g->nodes[node], "dilations", (int64_t[]){k->dilation, k->dilation}, 2);
    graph_set_attr_ints(f->g, &f->g->nodes[node], "pads", (int64_t[]){k->pad, k->pad, k->pad, k->pad}, 4);
    graph_set_attr_int(f->g, &f->g->nodes[node], "group", k->groups);
    assert_int_equal(op_find("", "Conv")->parse(f->g, &f->g->nodes[node], NULL), 0);
    f->input = malloc((size_t)n_x);
    for (int64_t i = 0; i < n_x; i++)
        f->input[i] = (uint8_t)next_random(&rng);
    f->g->nodes[node].weight = weight_of(f, k, &rng);
    f->bias_data = malloc((size_t)k->oc * sizeof(float));
    for (int64_t i = 0; i < k->oc; i++)
        f->bias_data[i] = 0.01f * (float)(int)(next_random(&rng) % 1000) - 5;
    f->x = (struct tensor){
        .dtype = DT_U8, .layout = LAYOUT_NHWC, .shape = {.rank = 4, .dim = {k->n, k->c, k->h, k->w}}};
    f->w_tensor = (struct tensor){.dtype = DT_F32, .shape = f->codes.shape};
    f->bias = (struct tensor){.dtype = DT_F32, .shape = {.rank = 1, .dim = {k->oc}}, .data = f->bias_data};
    f->y = (struct tensor){.dtype = k->is_float_out ? DT_F32 : DT_U8,
        .layout = LAYOUT_NHWC,
        .shape = {.rank = 4, .dim = {k->n, k->oc, oh, ow}}};
    f->in[0] = &f->x;
    f->in[1] = &f->w_tensor;
    f->in[2] = k->has_bias ? &f->bias : NULL;
    f->in_type[0] = (struct vtype){DT_U8, LAYOUT_NHWC, {0.02f, 131}};
    f->in_type[1] = f->in_type[2] = (struct vtype){.dtype = DT_F32};
    f->out_type = (struct vtype){
        f->y.dtype, LAYOUT_NHWC, k->is_float_out ? (struct quant){0} : (struct quant){0.11f, 119}};
    f->l = (struct layer){
        .graph = f->g,
        .node = &f->g->nodes[node],
        .n_in = 3,
        .n_out = 1,
        .in = f->in,
        .out = &f->y,
        .in_type = f->in_type,
        .out_type = &f->out_type,
        .in_place_post = -1,
        .n_threads = 1,
    };
}

static void fixture_done(struct fixture *f) {
    free(f->input);
    free(f->w_codes);
    free(f->w_scale);
    free(f->bias_data);
    graph_free(f->g);
}

/* The exact sum of one output, the zero points taken off both sides. */
static int32_t sum_at(
    const struct fixture *f, const struct conv_case *k, int64_t n, int64_t oc, int64_t oy, int64_t ox) {
    int64_t icg = k->c / k->groups, g = oc / (k->oc / k->groups), sum = 0;

    for (int64_t ci = 0; ci < icg; ci++)
        for (int64_t ky = 0; ky < k->kh; ky++)
            for (int64_t kx = 0; kx < k->kw; kx++) {
                int64_t y = oy * k->stride - k->pad + ky * k->dilation;
                int64_t x = ox * k->stride - k->pad + kx * k->dilation;
                uint8_t code = f->w_codes[((oc * icg + ci) * k->kh + ky) * k->kw + kx];

                if (y < 0 || y >= k->h || x < 0 || x >= k->w)
                    continue;
                sum += (k->unsigned_weights ? code - 7 : (int8_t)code) *
                       (f->input[((n * k->h + y) * k->w + x) * k->c + g * icg + ci] - 131);
            }
    return (int32_t)sum;
}

static void *formula(const struct fixture *f, const struct conv_case *k, size_t *ret_size) {
    int64_t oh = f->y.shape.dim[2], ow = f->y.shape.dim[3], at = 0;
    size_t count = (size_t)(k->n * oh * ow * k->oc);
    float *real = malloc(count * sizeof(float));
    uint8_t *code = malloc(count);

    for (int64_t n = 0; n < k->n; n++)
        for (int64_t y = 0; y < oh; y++)
            for (int64_t x = 0; x < ow; x++)
                for (int64_t oc = 0; oc < k->oc; oc++, at++) {
                    float s = 0.02f * f->w_scale[k->per_channel ? oc : 0];
                    int32_t sum = sum_at(f, k, n, oc, y, x);
                    float v;

                    if (k->has_bias)
                        sum += (int32_t)nearbyint((double)f->bias_data[oc] / (double)s);
                    real[at] = (float)sum * s;
                    v = rintf((float)sum * (s / 0.11f)) + 119;
                    code[at] = (uint8_t)(v < 0 ? 0 : v > 255 ? 255 : v);
                }
    *ret_size = k->is_float_out ? count * sizeof(float) : count;
    free(k->is_float_out ? (void *)code : (void *)real);
    return k->is_float_out ? (void *)real : (void *)code;
}

/* The kernel's output, NULL when it does not fit. */
static void *run_kernel(
    const struct fixture *f, const struct kernel *kernel, const char *hide, size_t size, unsigned n_threads) {
    struct pack_cache *packs = pack_cache_new(NULL);
    struct layer l = f->l;
    struct kernel_state *s = NULL;
    struct error err = {0};
    struct cpu cpu;
    size_t scratch_size = 0;
    void *scratch, *y;
    const void *in[3] = {f->input, NULL, NULL};

    l.n_threads = n_threads;
    assert_int_equal(cpu_detect(hide, &cpu, &err), 0);
    l.cpu = &cpu;
    if (!kernel->fits(&cpu, &l)) {
        pack_cache_free(packs);
        return NULL;
    }
    assert_int_equal(kernel->prepare(&l, packs, &s, &scratch_size, &err), 0);
    y = malloc(size);
    scratch = aligned_alloc(64, scratch_size + 64);
    kernel->run(s, &(struct run_io){.in = in, .out = &y, .scratch = scratch});
    kernel->done(s);
    pack_cache_free(packs);
    free(scratch);
    return y;
}

static const struct conv_case conv_cases[] = {
    /* n c h w oc kh kw stride dilation pad groups per_channel float bias unsigned values */
    {1, 16, 9, 8, 16, 3, 3, 1, 1, 1, 1, true, false, true, false, 0},
    {2, 3, 11, 13, 24, 3, 3, 2, 1, 1, 1, true, false, true, false, 0},
    {1, 3, 15, 15, 40, 7, 7, 2, 1, 3, 1, false, false, true, false, 0},
    {1, 64, 7, 7, 64, 3, 3, 1, 1, 1, 1, true, false, true, false, 0},
    {1, 32, 4, 4, 144, 3, 3, 1, 1, 1, 1, true, false, false, false, 0},
    {3, 24, 5, 6, 72, 1, 1, 1, 1, 0, 1, true, false, true, false, 0},
    {1, 17, 5, 6, 33, 1, 1, 1, 1, 0, 1, true, false, true, false, 0},
    {1, 64, 1, 1, 128, 1, 1, 1, 1, 0, 1, true, false, true, false, 0},
    {1, 32, 8, 8, 64, 1, 1, 2, 1, 0, 1, true, false, true, false, 0},
    {1, 8, 12, 12, 8, 3, 3, 1, 2, 2, 1, true, false, true, false, 0},
    {1, 24, 6, 5, 36, 3, 3, 1, 1, 1, 3, true, false, true, false, 0},
    {1, 20, 6, 5, 20, 3, 3, 1, 1, 1, 20, true, false, true, false, 0},
    {2, 96, 14, 13, 96, 3, 3, 2, 1, 1, 96, true, false, true, false, 0},
    {1, 40, 9, 9, 40, 5, 5, 1, 1, 2, 40, false, false, true, false, 0},
    {1, 96, 9, 7, 96, 3, 3, 1, 1, 1, 96, true, false, true, false, 0},
    {2, 30, 11, 9, 30, 3, 3, 2, 1, 1, 30, true, false, true, false, 0},
    {1, 72, 7, 7, 72, 3, 3, 1, 2, 2, 72, true, false, true, false, 0},
    {1, 33, 10, 10, 33, 5, 5, 2, 1, 2, 33, true, false, true, false, 0},
    {1, 70, 6, 6, 70, 3, 3, 1, 1, 0, 70, true, false, true, false, 0},
    {1, 32, 5, 6, 32, 3, 4, 1, 1, 1, 32, false, false, true, true, 0},
    {1, 16, 9, 40, 16, 1, 5, 1, 1, 0, 1, true, false, true, false, 0},
    {1, 16, 9, 8, 32, 3, 3, 1, 1, 1, 1, true, true, true, false, 0},
    {1, 16, 9, 8, 32, 3, 3, 1, 1, 1, 1, false, false, true, true, 0},
    {1, 200, 30, 30, 16, 3, 3, 1, 1, 1, 1, true, false, true, false, 0},
    {1, 30, 40, 40, 10, 1, 1, 1, 1, 0, 1, true, false, true, false, 0},
    {1, 128, 14, 14, 64, 1, 1, 1, 1, 0, 1, true, false, true, false, SPARSE},
    {2, 140, 9, 7, 130, 1, 1, 1, 1, 0, 1, true, false, true, false, SPARSE},
    {1, 64, 13, 13, 63, 3, 3, 2, 1, 1, 1, true, false, true, false, SPARSE},
    {1, 512, 7, 7, 66, 3, 3, 1, 1, 1, 1, true, false, true, false, SPARSE},
    {1, 64, 9, 9, 30, 3, 3, 1, 2, 2, 2, true, true, true, false, SPARSE},
    {1, 1024, 1, 1, 100, 1, 1, 1, 1, 0, 1, false, false, true, false, SPARSE},
};

static const struct kernel *const conv_kernels[] = {
    &kernel_conv_s8_avx512vnni,
    &kernel_conv_s8_avx2,
    &kernel_conv_s8_plain,
    &kernel_depthwise_s8_avx512vnni,
    &kernel_depthwise_s8,
    &kernel_conv_sparse_s8_avx512,
    &kernel_conv_sparse_s8_avx2,
    &kernel_conv_sparse_s8_plain,
};

static struct conv_case random_case(uint32_t *rng) {
    struct conv_case k = {
        .n = 1 + next_random(rng) % 2,
        .h = 1 + next_random(rng) % 20,
        .w = 1 + next_random(rng) % 40,
        .kh = 1 + next_random(rng) % 5,
        .kw = 1 + next_random(rng) % 5,
        .stride = 1 + next_random(rng) % 3,
        .dilation = 1 + next_random(rng) % 4 / 3,
        .pad = next_random(rng) % 3,
        .groups = 1,
        .per_channel = next_random(rng) % 2,
        .is_float_out = next_random(rng) % 8 == 0,
        .has_bias = next_random(rng) % 4 > 0,
    };
    bool depthwise = next_random(rng) % 3 == 0;

    k.c = k.oc = 1 + next_random(rng) % 150;
    if (depthwise)
        k.groups = k.c;
    else
        k.oc = 1 + next_random(rng) % 100;
    k.unsigned_weights = !k.per_channel && next_random(rng) % 4 == 0;
    if (!depthwise && next_random(rng) % 3 == 0) {
        k.n_values = SPARSE;
        k.c = (k.c + 143) / 16 * 16; /* fewer inputs run as dense */
        k.unsigned_weights = false;  /* those need nine bits */
    }
    while (k.h + 2 * k.pad < (k.kh - 1) * k.dilation + 1)
        k.h += 4;
    while (k.w + 2 * k.pad < (k.kw - 1) * k.dilation + 1)
        k.w += 4;
    return k;
}

static void check_conv(const struct conv_case *k, size_t number, bool is_compact, const char *hide) {
    const unsigned n_threads = 1 + (unsigned)number % 3;
    struct fixture f;
    size_t size;
    void *want;

    fixture_init(&f, k);
    f.l.is_compact = is_compact;
    want = formula(&f, k, &size);
    for (size_t j = 0; j < sizeof(conv_kernels) / sizeof(conv_kernels[0]); j++) {
        void *got = run_kernel(&f, conv_kernels[j], hide, size, n_threads);

        if (got && memcmp(got, want, size) != 0)
            fail_msg(
                "case %zu, kernel %s: n %d c %d %dx%d oc %d kernel %dx%d stride %d dilation %d pad %d groups %d values %d",
                number, conv_kernels[j]->name, (int)k->n, (int)k->c, (int)k->h, (int)k->w, (int)k->oc,
                (int)k->kh, (int)k->kw, (int)k->stride, (int)k->dilation, (int)k->pad, (int)k->groups,
                k->n_values);
        if (conv_kernels[j] == &kernel_conv_sparse_s8_plain && !got && k->n_values == SPARSE)
            fail_msg("case %zu: sparse weights run as dense ones", number);
        if (conv_kernels[j] == &kernel_conv_s8_plain && !got)
            fail_msg(
                "case %zu: plain C does not take it, c %d groups %d kernel %dx%d float %d unsigned %d channel %d oc %d n %d h %d w %d s %d d %d p %d",
                number, (int)k->c, (int)k->groups, (int)k->kh, (int)k->kw, k->is_float_out,
                k->unsigned_weights, k->per_channel, (int)k->oc, (int)k->n, (int)k->h, (int)k->w,
                (int)k->stride, (int)k->dilation, (int)k->pad);
        free(got);
    }
    free(want);
    fixture_done(&f);
}

static void test_convolutions_give_the_bytes_of_the_formula(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof(conv_cases) / sizeof(conv_cases[0]); i++)
        check_conv(&conv_cases[i], i, false, NULL);
}

static void test_random_convolutions_give_the_bytes_of_the_formula(void **state) {
    const char *draws = getenv("RANDOM_DRAWS");
    uint32_t rng = SEED;

    (void)state;
    for (size_t i = 0; i < (draws ? strtoul(draws, NULL, 10) : 40); i++) {
        struct conv_case k = random_case(&rng);

        check_conv(&k, i, false, NULL);
    }
}

/* Packed in as few bits as the values allow: the same bytes. */
static void test_coded_weights_give_the_bytes_of_the_formula(void **state) {
    static const int n_values[] = {1, 2, 3, 4, 5, 9, 16, 17, 40, 100, 128, 129};
    uint32_t rng = SEED;

    (void)state;
    for (size_t i = 0; i < sizeof(conv_cases) / sizeof(conv_cases[0]); i++)
        for (size_t j = 0; j < sizeof(n_values) / sizeof(n_values[0]); j++) {
            struct conv_case k = conv_cases[i];

            k.n_values = n_values[j];
            check_conv(&k, i * 1000 + (size_t)k.n_values, true, i % 2 ? NULL : "avx512_vbmi");
        }
    for (size_t i = 0; i < 40; i++) {
        struct conv_case k = random_case(&rng);

        k.n_values = n_values[i % (sizeof(n_values) / sizeof(n_values[0]))];
        check_conv(&k, i, true, NULL);
    }
}

/* The convolution of a picture of one pixel each is a fully connected layer. */
static void make_matrix(struct fixture *f, const struct conv_case *k) {
    struct node *n = &f->g->nodes[0];

    n->op = op_find("", "Gemm");
    n->op_type = "Gemm";
    graph_set_attr_int(f->g, n, "transB", 1);
    f->x.shape = (struct shape){.rank = 2, .dim = {k->n, k->c}};
    f->y.shape = (struct shape){.rank = 2, .dim = {k->n, k->oc}};
    f->weight.shape = f->w_tensor.shape = (struct shape){.rank = 2, .dim = {k->oc, k->c}};
    f->x.layout = f->y.layout = LAYOUT_PLAIN;
}

static const struct kernel *const gemm_kernels[] = {
    &kernel_gemm_s8_avx512vnni,
    &kernel_gemm_s8_avx2,
    &kernel_gemm_s8_plain,
};

static void check_matrix(const struct conv_case *k, const char *hide, unsigned n_threads) {
    struct fixture f;
    size_t size;
    void *want;

    fixture_init(&f, k);
    want = formula(&f, k, &size);
    make_matrix(&f, k);
    for (size_t j = 0; j < sizeof(gemm_kernels) / sizeof(gemm_kernels[0]); j++) {
        void *got = run_kernel(&f, gemm_kernels[j], hide, size, n_threads);

        if (got && memcmp(got, want, size) != 0)
            fail_msg("kernel %s: %d x %d -> %d, %d values", gemm_kernels[j]->name, (int)k->n, (int)k->c,
                (int)k->oc, k->n_values);
        assert_true(got || gemm_kernels[j] != &kernel_gemm_s8_plain);
        free(got);
    }
    free(want);
    fixture_done(&f);
}

static void test_fully_connected_layers_give_the_bytes_of_the_formula(void **state) {
    static const int n_values[] = {0, 2, 3, 4, 8, 16, 60};
    static const int64_t ic[] = {1, 4, 12, 16, 36, 64, 67, 200}, oc[] = {1, 16, 17, 32, 48, 49, 64, 100, 130};
    struct conv_case k = {1, 1, 1, 1, 1, 1, 1, 1, 1, 0, 1, true, false, true, false, 0};

    (void)state;
    for (size_t v = 0; v < sizeof(n_values) / sizeof(n_values[0]); v++)
        for (size_t i = 0; i < sizeof(ic) / sizeof(ic[0]); i++)
            for (size_t o = 0; o < sizeof(oc) / sizeof(oc[0]); o++)
                for (k.n = 1; k.n <= 10; k.n += 1 + (int64_t)(i + o) % 3) {
                    k.n_values = n_values[v];
                    k.c = ic[i];
                    k.oc = oc[o];
                    k.is_float_out = (i + o) % 2;
                    check_matrix(&k, i % 2 ? NULL : "avx512_vbmi", 1);
                }
    k = (struct conv_case){1, 1200, 1, 1, 4100, 1, 1, 1, 1, 0, 1, true, false, true, false, 16};
    check_matrix(&k, NULL, 1);
    check_matrix(&k, NULL, 2);
}

static void test_few_values_take_few_bytes(void **state) {
    static const struct {
        int n_values;
        double at_most; /* of the bytes of floats */
    } cases[] = {{2, 1 / 25.0}, {4, 1 / 14.0}, {16, 1 / 7.0}, {60, 1 / 5.0}, {0, 1 / 3.8}};

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
        for (size_t j = 0; j < 3; j++) {
            struct conv_case k = conv_cases[3];
            struct pack_cache *packs = pack_cache_new(NULL);
            struct kernel_state *s = NULL;
            struct error err = {0};
            size_t scratch;
            struct fixture f;
            struct cpu cpu;

            k.n_values = cases[i].n_values;
            fixture_init(&f, &k);
            assert_int_equal(cpu_detect(NULL, &cpu, &err), 0);
            f.l.cpu = &cpu;
            f.l.is_compact = true;
            /* AVX2 and plain C hold plain weights in two bytes */
            if (conv_kernels[j]->fits(&cpu, &f.l) && (j == 0 || k.n_values)) {
                assert_int_equal(conv_kernels[j]->prepare(&f.l, packs, &s, &scratch, &err), 0);
                assert_true((double)pack_count_bytes(packs).own <=
                            cases[i].at_most * 4 * (double)(k.oc * k.c * k.kh * k.kw));
                conv_kernels[j]->done(s);
            }
            pack_cache_free(packs);
            fixture_done(&f);
        }
}

static void test_parts_of_threads_give_the_same_bytes(void **state) {
    static const struct conv_case big[] = {
        {1, 64, 28, 28, 128, 3, 3, 1, 1, 1, 1, true, false, true, false, 0},
        {1, 2048, 1, 1, 2048, 1, 1, 1, 1, 0, 1, true, false, true, false, 0},
        {1, 256, 28, 28, 128, 1, 1, 1, 1, 0, 1, true, false, true, false, 0},
        {1, 256, 28, 28, 128, 3, 3, 1, 1, 1, 1, true, false, true, false, SPARSE},
        {1, 2048, 1, 1, 2048, 1, 1, 1, 1, 0, 1, true, false, true, false, SPARSE},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(big) / sizeof(big[0]); i++)
        for (size_t j = 0; j < sizeof(conv_kernels) / sizeof(conv_kernels[0]); j++) {
            struct fixture f;
            size_t size;
            void *one, *three;

            fixture_init(&f, &big[i]);
            size = (size_t)(big[i].oc * f.y.shape.dim[2] * f.y.shape.dim[3]);
            one = run_kernel(&f, conv_kernels[j], NULL, size, 1);
            three = run_kernel(&f, conv_kernels[j], NULL, size, 3);
            if (one)
                assert_memory_equal(one, three, size);
            free(one);
            free(three);
            fixture_done(&f);
        }
}

static void test_hidden_features_hide_kernels(void **state) {
    struct fixture f;

    (void)state;
    fixture_init(&f, &conv_cases[0]);
    assert_null(run_kernel(&f, &kernel_conv_s8_avx512vnni, "avx512_vnni", 1, 1));
    assert_null(run_kernel(&f, &kernel_conv_s8_avx2, "all", 1, 1));
    fixture_done(&f);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_convolutions_give_the_bytes_of_the_formula),
        cmocka_unit_test(test_random_convolutions_give_the_bytes_of_the_formula),
        cmocka_unit_test(test_coded_weights_give_the_bytes_of_the_formula),
        cmocka_unit_test(test_fully_connected_layers_give_the_bytes_of_the_formula),
        cmocka_unit_test(test_few_values_take_few_bytes),
        cmocka_unit_test(test_parts_of_threads_give_the_same_bytes),
        cmocka_unit_test(test_hidden_features_hide_kernels),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
