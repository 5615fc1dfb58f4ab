/* Sparse float layers agree with the reference on every instruction set, in any number of parts. (Those on
 * codes: test_kernel_s8.c.) */
#include "tests/unit/cmocka_all.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/kernel/kernel.h"
#include "engine/kernel/rows.h"
#include "engine/pool.h"
#include "tests/unit/net_text.h"

static const char *const nets[] = {
    "Conv x=1x64x14x14 z=64x64x1x1 b=64; Relu $",
    "Conv x=1x16x1x1 z=1x16x1x1",
    "Conv x=3x33x7x5 z=70x33x1x1 b=70",
    "Conv x=1x300x9x9 z=130x300x1x1",
    "Conv x=1x64x13x15 z=40x64x1x1 b=40 strides=2,3",
    "Conv x=1x32x14x14 z=65x32x3x3 b=65 pads=1,1,1,1; Clip $ lo:0.0 hi:0.5",
    "Conv x=2x20x11x13 z=24x20x3x5 b=24 pads=2,0,1,3 strides=2,1",
    "Conv x=1x24x12x12 z=16x24x3x3 dilations=2,3 pads=2,3,2,3",
    "Conv x=1x16x5x6 z=16x16x2x1 dilations=2147483646,1 pads=0,0,2147483647,0",
    "Conv x=2x64x9x9 z=36x32x3x3 b=36 group=2 pads=1,1,1,1",
    "Conv x=1x48x6x6 z=210x16x1x1 group=3",
    "Conv x=1x16x3x3 z=8x16x5x5 pads=4,4,4,4",
    "Conv x=1x512x7x7 z=128x512x3x3 pads=1,1,1,1",
    "Conv x=1x128x30 z=64x128x3 b=64 pads=1,1",
    "Conv x=1x64x8x8 z=64x64x3x3 pads=1,1,1,1; Add $ x; Relu $",
    "Conv x=1x64x8x8 z=64x64x1x1; Relu $; Conv $ za=64x64x1x1; Add $ y0; Relu $",
    "Conv x=1x32x8x8 z=32x32x1x1; HardSwish $",
    "Conv x=1x32x8x8 z=30x32x1x1; LeakyRelu $ alpha=0.2",
    "Conv x=1x32x7x7 z=30x32x1x1; Sigmoid $",
    "Conv x=1x32x8x8 z=32x32x1x1; Sigmoid $; Mul y0 $",
    "Conv x=1x32x5x5 z=29x32x1x1; HardSigmoid $ alpha=0.3 beta=0.4",
    "Gemm x=1x200 z=200x70 b=70",
    "Gemm x=1x1000 z=130x1000 b=130 transB=1 alpha=0.5 beta=2.0; Relu $",
    "Gemm x=37x64 z=64x64 b=1; Add $ x; Relu $",
    "MatMul x=2x3x40 z=40x66",
    "MatMul x=1x1000 z=1000x1000",
};
#define N_NETS (sizeof(nets) / sizeof(*nets))

static bool is_sparse_row(const char *name) {
    return strstr(name, "_sparse_") != NULL;
}

/* `wanted`: of the name of the kernel that must run; NULL: any. */
static float *run_text(const char *text, const struct net_options *o, unsigned n_threads, struct pool *pool,
    const char *wanted, int64_t *ret_n) {
    struct net_text t = net_text_read(text);
    struct tensor in[NET_TEXT_MAX_INPUTS] = {0}, out = {0};
    struct arena arena = {0};
    struct error err = {0};
    struct net *net;
    struct plan *plan;
    struct plan_step step;
    size_t size;

    if (net_new(t.graph, o, &net, &err) < 0 || net_plan(net, t.input, n_threads, &plan, &err) < 0)
        fail_msg("%s: %s", text, err.text);
    for (size_t i = 0; wanted && i < plan_n_steps(plan); i++) {
        plan_get_step(plan, i, &step);
        if (is_sparse_row(step.kernel))
            break;
        if (i + 1 == plan_n_steps(plan))
            fail_msg("%s: no sparse kernel runs it", text);
    }
    if (wanted && !strstr(step.kernel, wanted))
        fail_msg("%s: %s runs it, not %s", text, step.kernel, wanted);
    assert_int_equal(arena_reserve(&arena, plan_arena_size(plan), &err), 0);
    memset(arena.data, 0xff, arena.size);
    for (size_t i = 0; i < t.n_inputs; i++) {
        int64_t n = 0;

        assert_true(shape_count(&t.input[i], &n));
        in[i] =
            (struct tensor){.dtype = DT_F32, .shape = t.input[i], .data = malloc((size_t)n * sizeof(float))};
        net_text_fill(in[i].data, n, 1000 + (uint32_t)i);
    }
    assert_true(shape_bytes(&plan_output(plan, 0)->shape, DT_F32, &size));
    assert_true(shape_count(&plan_output(plan, 0)->shape, ret_n));
    out.data = malloc(size);
    plan_run(plan, &arena, in, &out, pool, NULL);
    for (size_t i = 0; i < t.n_inputs; i++)
        free(in[i].data);
    arena_done(&arena);
    plan_unref(plan);
    net_unref(net);
    return out.data;
}

static double largest_difference(const float *a, const float *b, int64_t n) {
    double scale = 1e-3, worst = 0;

    for (int64_t i = 0; i < n; i++)
        scale = fmax(scale, fabs((double)b[i]));
    for (int64_t i = 0; i < n; i++) {
        double d = fabs((double)a[i] - (double)b[i]);

        if (!(d <= worst))
            worst = isnan(d) ? HUGE_VAL : d;
    }
    return worst / scale;
}

static void check_net(const char *text, const char *hide, const char *wanted, unsigned n_threads) {
    struct net_options fast = {0}, reference = {.reference = true};
    struct error err = {0};
    struct pool *pool = NULL;
    int64_t n, m;
    float *a, *b;
    double d;

    assert_int_equal(cpu_detect(hide, &fast.cpu, &err), 0);
    if (n_threads > 1)
        assert_int_equal(pool_new(n_threads, &pool, &err), 0);
    a = run_text(text, &fast, n_threads, pool, wanted, &n);
    b = run_text(text, &reference, 1, NULL, NULL, &m);
    assert_int_equal(n, m);
    d = largest_difference(a, b, n);
    if (!(d <= 1e-5))
        fail_msg("%s (%s, %u threads): differs by %g", text, wanted, n_threads, d);
    free(a);
    free(b);
    pool_free(pool);
}

/* An instruction set as the options hide it; false: this processor has not got it. */
static bool has_isa(const char *hide, const struct kernel *k) {
    struct error err = {0};
    struct cpu cpu;

    assert_int_equal(cpu_detect(hide, &cpu, &err), 0);
    return k == &kernel_conv_sparse_f32_plain ||
           (k == &kernel_conv_sparse_f32_avx2 ? cpu.avx2 && cpu.fma : cpu.avx512 && cpu.avx512_vnni);
}

static const struct {
    const char *hide, *name;
    const struct kernel *conv;
} isas[] = {
    {NULL, "_avx512", &kernel_conv_sparse_f32_avx512},
    {"avx512", "_avx2", &kernel_conv_sparse_f32_avx2},
    {"all", "_plain", &kernel_conv_sparse_f32_plain},
};
#define N_ISAS (sizeof(isas) / sizeof(*isas))

static void test_sparse_layers_agree_with_the_reference(void **state) {
    (void)state;
    for (size_t k = 0; k < N_ISAS; k++)
        for (size_t i = 0; has_isa(isas[k].hide, isas[k].conv) && i < N_NETS; i++)
            check_net(nets[i], isas[k].hide, isas[k].name, 1);
}

static void test_threads_do_not_change_sparse_layers(void **state) {
    (void)state;
    for (size_t k = 0; k < N_ISAS; k++)
        for (size_t i = 0; has_isa(isas[k].hide, isas[k].conv) && i < N_NETS; i++)
            check_net(nets[i], isas[k].hide, isas[k].name, 2 + (unsigned)i % 2);
}

static uint32_t next_random(uint32_t *state) {
    *state = *state * 1664525u + 1013904223u;
    return *state >> 8;
}

static void test_random_sparse_convolutions_agree_with_the_reference(void **state) {
    const char *draws = getenv("RANDOM_DRAWS");
    uint32_t rng = 12345;

    (void)state;
    for (size_t i = 0; i < (draws ? strtoul(draws, NULL, 10) : 60); i++) {
        unsigned group = 1 + next_random(&rng) % 4 / 3, ic = 32 + next_random(&rng) % 120;
        unsigned oc = 1 + next_random(&rng) % 150, kh = 1 + next_random(&rng) % 4;
        unsigned kw = 1 + next_random(&rng) % 4, dilation = 1 + next_random(&rng) % 2;
        unsigned h = (kh - 1) * dilation + 1 + next_random(&rng) % 16;
        unsigned w = (kw - 1) * dilation + 1 + next_random(&rng) % 16, k = next_random(&rng) % N_ISAS;
        char text[256];

        snprintf(text, sizeof(text),
            "Conv x=%ux%ux%ux%u z=%ux%ux%ux%u b=%u group=%u dilations=%u,%u strides=%u,%u pads=%u,%u,%u,%u",
            1 + next_random(&rng) % 3, group * ic, h, w, group * oc, ic, kh, kw, group * oc, group, dilation,
            dilation, 1 + next_random(&rng) % 3, 1 + next_random(&rng) % 3, next_random(&rng) % 3,
            next_random(&rng) % 3, next_random(&rng) % 3, next_random(&rng) % 3);
        if (has_isa(isas[k].hide, isas[k].conv))
            check_net(text, isas[k].hide, isas[k].name, 1 + next_random(&rng) % 3);
    }
}

static void test_dense_layers_stay_with_the_dense_kernels(void **state) {
    static const char *const dense[] = {
        "Conv x=1x64x7x7 w=64x64x3x3 pads=1,1,1,1", "Gemm x=1x256 w=256x256",
        "Conv x=1x64x7x7 z=64x1x3x3 group=64", /* depthwise: nothing to gather */
    };

    (void)state;
    for (size_t i = 0; i < sizeof(dense) / sizeof(*dense); i++) {
        struct net_text t = net_text_read(dense[i]);
        struct net_options o = {0};
        struct error err = {0};
        struct net *net;
        struct plan *plan;

        assert_int_equal(cpu_detect(NULL, &o.cpu, &err), 0);
        assert_int_equal(net_new(t.graph, &o, &net, &err), 0);
        assert_int_equal(net_plan(net, t.input, 1, &plan, &err), 0);
        for (size_t k = 0; k < plan_n_steps(plan); k++) {
            struct plan_step s;

            plan_get_step(plan, k, &s);
            assert_false(is_sparse_row(s.kernel));
        }
        plan_unref(plan);
        net_unref(net);
    }
}

/* Places take a byte, values four: at 90% zeros an eighth of the dense floats, and a little. */
static void test_packed_weights_are_small(void **state) {
    struct net_text t = net_text_read("Conv x=1x256x14x14 z=1024x256x1x1");
    struct net_options o = {0};
    struct error err = {0};
    struct net_bytes bytes;
    struct net *net;
    struct plan *plan;

    (void)state;
    assert_int_equal(cpu_detect(NULL, &o.cpu, &err), 0);
    assert_int_equal(net_new(t.graph, &o, &net, &err), 0);
    assert_int_equal(net_plan(net, t.input, 1, &plan, &err), 0);
    net_count_bytes(net, &bytes);
    assert_in_range(bytes.packed, 1, 1024 * 256 * 4 / 7);
    plan_unref(plan);
    net_unref(net);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_sparse_layers_agree_with_the_reference),
        cmocka_unit_test(test_threads_do_not_change_sparse_layers),
        cmocka_unit_test(test_random_sparse_convolutions_agree_with_the_reference),
        cmocka_unit_test(test_dense_layers_stay_with_the_dense_kernels),
        cmocka_unit_test(test_packed_weights_are_small),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
