/* Every float kernel agrees with the operator's reference, walked over kernel_table and a table of nets. */
#include "tests/unit/cmocka_all.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/kernel/ranges.h"
#include "tests/unit/net_text.h"

static const char *const nets[] = {
    "Conv x=1x3x32x32 w=16x3x3x3 b=16 pads=1,1,1,1",
    "Conv x=1x3x45x37 w=64x3x7x7 b=64 pads=3,3,3,3 strides=2,2; Relu $",
    "Conv x=2x1x28x30 w=48x1x5x5 b=48 pads=2,2,2,2; LeakyRelu $ alpha=0.1",
    "Conv x=2x3x31x43 w=32x3x3x3 strides=2,2; Clip $ lo:0.0 hi:6.0",
    "Conv x=3x4x17x21 w=16x4x3x2 b=16 pads=0,3,2,0 strides=1,1; HardSwish $",
    "Conv x=1x2x19x60 w=16x2x4x3 pads=3,2,0,1 strides=3,4; Add $ c=1x16x7x16",
    "Conv x=2x3x33x31 w=10x3x5x3 pads=2,0,1,1 strides=2,1",
    "Conv x=1x3x8x32 w=16x3x3x3 strides=2147483647,1",
    "Conv x=1x3x8x16 w=16x3x3x3 pads=0,536870912,0,0 strides=2147483647,33554432",
    "Conv x=1x0x3x14 w=16x0x1x1 b=16",
    "Conv x=1x16x15x15 w=32x16x3x3 b=32 strides=2,2",
    "Conv x=1x16x14x14 w=32x16x3x3 b=32 strides=2,2 pads=0,0,1,1",
    "Conv x=1x16x13x10 w=16x16x3x3 b=16 pads=1,1,1,1; Relu $",
    "Conv x=1x32x6x5 w=48x32x3x3 pads=1,1,1,1; Clip $ lo:-3.0 hi:4.0",
    "Conv x=2x16x21x19 w=64x16x3x3 b=64 pads=0,1,2,0; Conv $ v=16x64x3x3 pads=1,1,1,1",
    "Conv x=3x80x9x14 w=80x80x3x3 b=80 pads=1,1,1,1; Add $ x; Relu $",
    "Conv x=1x16x28x30 w=16x16x3x3 pads=1,1,1,1; LeakyRelu $ alpha=0.3",
    "Conv x=1x16x9x9 w=16x16x3x3 pads=1,1,1,1; HardSigmoid $ alpha=0.3 beta=0.4; Add $ x; HardSwish $",
    "Conv x=1x160x2x3 w=96x160x3x3 b=96 pads=1,1,1,1",
    "Conv x=1x8x20x20 w=8x8x3x3 dilations=2,3 pads=2,3,2,3",
    "Conv x=3x24x9x9 w=24x1x3x3 b=24 group=24 pads=1,1,1,1",
    "Conv x=1x24x17x17 w=24x1x5x5 group=24 strides=2,2 pads=2,2,2,2",
    "Conv x=2x40x8x7 w=40x1x3x3 b=40 group=40 pads=1,1,1,1; Clip $ lo:0.0 hi:6.0",
    "Conv x=1x7x13x12 w=7x1x3x3 group=7 strides=2,2 pads=0,1,1,0; HardSwish $",
    "Conv x=1x19x7x7 w=19x1x5x5 b=19 group=19 pads=2,2,2,2; Add $ x; Relu $",
    "Conv x=2x72x14x15 w=72x1x5x5 b=72 group=72 pads=1,2,2,1 strides=2,2",
    "Conv x=1x16x3x2 w=16x1x5x5 group=16 pads=4,4,4,4",
    "Conv x=1x33x5x1 w=33x1x3x3 b=33 group=33 pads=1,1,1,1; LeakyRelu $ alpha=0.2",
    "Conv x=1x12x8x8 w=6x4x3x3 group=3",
    "Conv x=1x7x8x8 w=5x7x1x1 b=5",
    "Conv x=1x3x16x16 w=8x3x3x3 auto_pad=SAME_UPPER strides=2,2",
    "Conv x=1x3x16x16 w=8x3x3x3 auto_pad=SAME_LOWER strides=2,2",
    "Conv x=1x4x16 w=8x4x3 pads=1,1",
    "Conv x=1x16x8x8 w=16x16x3x3 b=16 pads=1,1,1,1; Relu $",
    "Conv x=1x16x8x8 w=16x16x3x3 b=16 pads=1,1,1,1; Clip $ lo:0.0 hi:0.5",
    "Conv x=1x16x8x8 w=16x16x1x1; HardSwish $",
    "Conv x=1x16x8x8 w=16x16x1x1; LeakyRelu $ alpha=0.2",
    "Conv x=1x16x8x8 w=16x16x1x1; Sigmoid $",
    "Conv x=1x16x8x8 w=16x16x1x1; HardSigmoid $ alpha=0.3 beta=0.4",
    "Conv x=1x16x8x8 w=16x16x1x1; Tanh $",
    "Conv x=1x16x8x8 w=16x16x3x3 pads=1,1,1,1; Add $ x; Relu $",
    "Conv x=1x16x8x8 w=16x16x3x3 pads=1,1,1,1; Relu $; Conv $ v=16x16x3x3 pads=1,1,1,1; Add $ y0; Relu $",
    "Conv x=1x16x8x8 w=16x16x3x3 pads=1,1,1,1; Conv $ v=16x16x3x3 pads=1,1,1,1; Add y0 $; Conv $ u=4x16x1x1",
    "Conv x=2x16x8x8 w=16x16x1x1; Add $ x2=2x16x1x1; Relu $",
    "Conv x=1x16x8x8 w=16x16x1x1; Add $ k:3.0; Clip $ lo:0.0 hi:6.0; Mul y0 $; Div $ d:6.0",
    "Conv x=1x16x8x8 w=16x16x1x1; HardSigmoid $ alpha=0.16666667 beta=0.5; Mul y0 $",
    "Conv x=1x16x8x8 w=16x16x1x1; Sigmoid $; Mul y0 $",
    "Sigmoid x=3x7; Mul $ x",
    "ConvTranspose x=1x16x7x7 w=16x8x2x2 b=8 strides=2,2",
    "ConvTranspose x=2x6x7x5 w=6x4x3x3 strides=2,2 pads=1,1,1,1",
    "ConvTranspose x=1x6x5x5 w=6x2x3x3 group=2 strides=2,2 pads=1,0,0,1",
    "ConvTranspose x=1x6x5x5 w=6x3x3x3 strides=2,2 output_padding=1,1; Relu $",
    "Gemm x=5x40 w=40x10 b=10",
    "Gemm x=1x40 w=10x40 b=10 transB=1 alpha=0.5 beta=2.0; Relu $",
    "Gemm x=8x64 w=16x64 transB=1",
    "Gemm x=3x16 w=16x16 b=1x16; Add $ x; Relu $",
    "MatMul x=2x3x20 w=20x6",
    "MatMul x=4x256 w=256x10",
    "MaxPool x=1x16x15x15 kernel_shape=3,3 strides=2,2 pads=1,1,1,1",
    "MaxPool x=2x6x15x15 kernel_shape=2,2 strides=2,2",
    "MaxPool x=1x6x14x14 kernel_shape=3,3 strides=2,2 ceil_mode=1",
    "MaxPool x=1x6x14x14 kernel_shape=3,3 dilations=2,2",
    "AveragePool x=1x16x15x15 kernel_shape=3,3 strides=2,2 pads=1,1,1,1",
    "AveragePool x=1x16x15x15 kernel_shape=3,3 strides=2,2 pads=1,1,1,1 count_include_pad=1",
    "AveragePool x=1x6x14x14 kernel_shape=3,3 strides=2,2 ceil_mode=1",
    "AveragePool x=1x6x14x14 kernel_shape=3,3 auto_pad=SAME_UPPER strides=2,2",
    "MaxPool x=1x3x6x6x6 kernel_shape=2,2,2 strides=2,2,2",
    "MaxPool x=1x37x13x11 kernel_shape=3,2 strides=2,1 pads=1,0,2,1 dilations=1,2",
    "AveragePool x=2x24x9x9 kernel_shape=2,3 strides=1,2 pads=0,1,1,1",
    "GlobalAveragePool x=2x20x7x7",
    "GlobalMaxPool x=2x20x7x7",
    "Conv x=2x3x7x9 w=20x3x3x3; ReduceMean $ axes=2,3; Conv $ v=8x20x1x1; Sigmoid $",
    "Conv x=2x3x7x9 w=20x3x3x3; ReduceMean $ axes=-1,-2 keepdims=0; Gemm $ v=20x5",
    "Conv x=2x3x7x9 w=20x3x3x3; ReduceMax $ axes=3,2; Relu $",
    "Conv x=2x3x7x9 w=20x3x3x3; ReduceMean $ axes=1,2",
    "ReduceMean x=2x3x7 axes=2,",
    "Concat x=1x3x8x8 x2=1x5x8x8 axis=1",
    "Conv x=1x3x8x8 w=7x3x1x1; Conv x v=9x3x1x1; Concat y0 $ axis=1; Conv $ u=4x16x3x3",
    "Conv x=1x3x8x8 w=8x3x1x1; Concat $ $ axis=2; Relu $",
    "Concat x=2x3 c=2x4 axis=-1",
    "Add x=2x3x4x5 x2=2x3x4x5; Relu $",
    "Add x=2x3x4x5 b=3x1x1; Clip $ lo:-0.5 hi:0.5",
    "Mul x=2x8x6x6 x2=2x8x1x1",
    "Mul x=2x8x1x1 x2=2x8x6x6",
    "Conv x=1x8x6x6 w=8x8x1x1; GlobalAveragePool $; Conv $ v=8x8x1x1; Sigmoid $; Mul $ y0",
    "Conv x=1x8x6x6 w=8x8x1x1; Sub c=8x6x6 $",
    "Conv x=1x8x6x6 w=8x8x1x1; Div $ c=1x8x1x6",
    "Max x=4x1x5 x2=1x3x1",
    "Min x=4x7 k:0.25",
    "PRelu x=1x6x5x5 s=6x1x1",
    "Conv x=1x8x6x6 w=8x8x1x1; PRelu $ s=8x1x1",
    "Sub k:1.0 x=7",
    "Abs x=3x5",
    "Elu x=3x5 alpha=0.7",
    "Erf x=3x37",
    "Mul x=2x7x5x3 k:6.0; Erf $",
    "Conv x=1x3x8x8 w=5x3x1x1; Mul $ k:4.0; Gelu $",
    "Gelu x=3x5 approximate=tanh",
    "Exp x=3x5",
    "Mish x=3x5",
    "Softplus x=3x5",
    "Sqrt x=3x5; Abs $",
    "Transpose x=2x3x4x5 perm=0,2,3,1",
    "Transpose x=37x41",
    "Transpose x=2x3x4x5 perm=3,1,0,2",
    "Transpose x=1x5x17x33 perm=0,1,3,2",
    "Transpose x=1x1x1",
    "Transpose x=1x9x3x3x14x14 perm=0,1,4,2,5,3",
    "Conv x=2x3x7x9 w=6x3x1x1; Transpose $ perm=0,2,3,1",
    "Conv x=2x3x7x9 w=6x3x1x1; Transpose $ perm=2,1,3,0",
    "Resize x=2x7x6x5 _ scale:1,1,2,3",
    "Resize x=2x7x6x5 _ scale:1,1,2,3 mode=linear",
    "Resize x=1x17x9x8 _ scale:1,1,1.5,0.5 mode=linear coordinate_transformation_mode=align_corners",
    "Resize x=1x17x9x8 _ scale:1,1,1.7,0.6 mode=linear coordinate_transformation_mode=asymmetric",
    "Resize x=1x17x9x8 _ scale:1,1,1.7,0.6 coordinate_transformation_mode=asymmetric nearest_mode=floor",
    "BatchNormalization x=2x5x7x6 s=5 b=5 m=5 p=5",
    "Concat x=1x5x7x6 x2=1x3x7x6 axis=1; BatchNormalization $ s=8 b=8 m=8 p=8 epsilon=0.01",
    "Conv x=1x8x7x6 w=8x8x1x1; Concat $ $ axis=1; BatchNormalization $ s=16 b=16 m=16 p=16; Relu $",
    "Softmax x=3x11 axis=1",
    "Softmax x=2x3x4x5 axis=-1",
    "Softmax x=2x3x4x5 axis=1",
    "LogSoftmax x=4x17",
    "LRN x=1x16x9x9 size=5 alpha=0.3 beta=0.75 bias=1.5",
    "Conv x=1x3x9x9 w=20x3x3x3; LRN $ size=3 alpha=0.3",
    "GreaterOrEqual x=2x70x9x7 z:0.0; Where $ one:1.0 neg:-1.0; Conv $ h=9x70x3x3 pads=1,1,1,1; Add $ y2",
    "Add x=0x3 b=3",
    "Conv x=0x3x8x8 w=4x3x3x3; Relu $; Add $ b=4x1x1; GlobalAveragePool $",
    "Relu x=1x3x4x4; Sigmoid $; Tanh $; LeakyRelu $; HardSwish $; Clip $ lo:0.1",
};
#define N_NETS (sizeof(nets) / sizeof(*nets))

/* How the arena was left by an earlier run must not matter. */
static void poison(struct arena *a) {
    memset(a->data, 0xff, a->size);
}

static float *run_text(
    const char *text, const struct net_options *o, unsigned n_threads, bool *used, int64_t *ret_n) {
    struct net_text t = net_text_read(text);
    struct tensor in[NET_TEXT_MAX_INPUTS] = {0}, out = {0};
    struct arena arena = {0};
    struct error err = {0};
    struct net *net;
    struct plan *plan;
    size_t size;

    if (net_new(t.graph, o, &net, &err) < 0 || net_plan(net, t.input, n_threads, &plan, &err) < 0)
        fail_msg("%s: %s", text, err.text);
    assert_int_equal(arena_reserve(&arena, plan_arena_size(plan), &err), 0);
    poison(&arena);
    for (size_t i = 0; i < t.n_inputs; i++) {
        int64_t n = 0;

        assert_true(shape_count(&t.input[i], &n));
        in[i] =
            (struct tensor){.dtype = DT_F32, .shape = t.input[i], .data = malloc((size_t)n * sizeof(float))};
        net_text_fill(in[i].data, n, 1000 + (uint32_t)i);
    }
    assert_true(shape_bytes(&plan_output(plan, 0)->shape, plan_output(plan, 0)->dtype, &size));
    assert_true(shape_count(&plan_output(plan, 0)->shape, ret_n));
    out.data = malloc(size);
    plan_run(plan, &arena, in, &out, NULL, NULL);
    for (size_t i = 0; used && i < plan_n_steps(plan); i++) {
        struct plan_step s;

        plan_get_step(plan, i, &s);
        for (size_t k = 0; k < kernel_table_size; k++)
            used[k] = used[k] || strcmp(kernel_table[k]->name, s.kernel) == 0;
    }
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

        if (isnan((double)a[i]) != isnan((double)b[i]))
            return HUGE_VAL;
        if (d > worst)
            worst = d;
    }
    return worst / scale;
}

/* Every net as `o` says, against the reference. */
static void check_nets(const struct net_options *o, unsigned n_threads, double tolerance, bool *used) {
    struct net_options reference = {.reference = true};
    int n_bad = 0;

    for (size_t i = 0; i < N_NETS; i++) {
        int64_t n, m;
        float *a = run_text(nets[i], o, n_threads, used, &n), *b = run_text(nets[i], &reference, 1, NULL, &m);
        double d;

        assert_int_equal(n, m);
        d = largest_difference(a, b, n);
        if (!(d <= tolerance)) {
            print_error("%s: differs by %g\n", nets[i], d);
            n_bad++;
        }
        free(a);
        free(b);
    }
    assert_int_equal(n_bad, 0);
}

/* Kernels that the default table never picks, and how far from the direct sum they may round. */
static const struct {
    const char *name;
    double tolerance;
} named[] = {{"conv_f32_winograd2", 1e-5}, {"conv_f32_winograd4", 1e-4}};

static void check_kernels(const char *hide, bool *used) {
    struct net_options o = {0};
    struct error err = {0};

    assert_int_equal(cpu_detect(hide, &o.cpu, &err), 0);
    check_nets(&o, 1, 1e-5, used);
    check_nets(&o, 3, 1e-5, used);
    for (size_t i = 0; i < sizeof(named) / sizeof(*named); i++) {
        o.kernels = named[i].name;
        check_nets(&o, 1, named[i].tolerance, used);
        check_nets(&o, 3, named[i].tolerance, used);
    }
}

static void test_kernels_agree_with_the_reference(void **state) {
    bool *used = calloc(kernel_table_size, sizeof(*used));

    (void)state;
    check_kernels(NULL, used);
    for (size_t k = 0; k < kernel_table_size; k++) {
        if (strstr(kernel_table[k]->name, "f32") && !strstr(kernel_table[k]->name, "_sparse_") && !used[k])
            fail_msg("no net of the table runs kernel %s", kernel_table[k]->name);
    }
    free(used);
}

static void test_kernels_agree_without_avx512(void **state) {
    (void)state;
    check_kernels("avx512", NULL);
}

static void test_kernels_agree_without_vectors(void **state) {
    (void)state;
    check_kernels("all", NULL);
}

static void test_work_beyond_any_integer_is_shared_out(void **state) {
    const struct layer l = {.n_threads = 4};

    (void)state;
    assert_int_equal(ranges_count(&l, 100, 1e30, 1), 4);
    assert_int_equal(ranges_count(&l, 3, 1e30, 1), 3);
    assert_int_equal(ranges_count(&l, 100, 299, 100), 3);
    assert_int_equal(ranges_count(&l, 100, 0, 100), 1);
    assert_int_equal(ranges_count(&l, 0, 0, 100), 1);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_kernels_agree_with_the_reference),
        cmocka_unit_test(test_kernels_agree_without_avx512),
        cmocka_unit_test(test_kernels_agree_without_vectors),
        cmocka_unit_test(test_work_beyond_any_integer_is_shared_out),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
