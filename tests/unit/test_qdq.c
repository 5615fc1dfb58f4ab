/* QuantizeLinear/DequantizeLinear graphs as our files and others' have them: what runs on codes gives what
 * the operators give one by one, and no detour over floats is left inside. */
#include "tests/unit/cmocka_all.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/kernel/kernel.h"
#include "engine/net.h"
#include "engine/pool.h"
#include "tests/unit/net_text.h"

#define QDQ(scale, zero)                                                                                     \
    "QuantizeLinear $ s:" scale " z:" zero "; DequantizeLinear $ s:" scale " z:" zero "; "
#define INPUT(shape) "QuantizeLinear x=" shape " s:0.0078 z:128u; DequantizeLinear $ s:0.0078 z:128u; "
/* weights of a layer per channel, then the layer on value `x` */
#define CONV(x, w, oc, more) "DequantizeLinear qw=" w " ps=" oc " axis=0; Conv " x " $ " more "; "
#define OUT                  QDQ("0.05", "120u")
#define END                  "Softplus $" /* a float operator: the net's output is a number, not codes */
#define NO_FLOAT             "-eltwise_f32_onednn" /* its Softplus is not the reference's to the last bit */

static const struct qdq_case {
    const char *text;
    float steps;  /* of the output's scale the result may differ by; 0: equal */
    int n_border; /* QuantizeLinear and DequantizeLinear steps that may be left */
} cases[] = {
    {INPUT("1x3x9x9") CONV("y1", "8x3x3x3", "8", "pads=1,1,1,1") OUT END, 0, 2},
    {INPUT("2x16x9x7") CONV("y1", "24x16x3x3", "24", "strides=2,2") "Relu $; " QDQ("0.03", "0u") END, 0, 2},
    {INPUT("1x16x9x7") CONV("y1", "24x16x1x1", "24", "") "Relu $; " QDQ("0.03", "17u") END, 0, 2},
    {INPUT("1x16x9x7") CONV("y1", "24x16x1x1", "24", "") "Clip $ lo:0.0 hi:2.0; " QDQ("0.03", "0u") END, 0,
        2},
    {INPUT("1x16x9x7") CONV("y1", "24x16x1x1", "24", "") "Clip $ lo:-1.0 hi:1.0; " OUT END, 0, 2},
    /* signed activations */
    {"QuantizeLinear x=1x8x5x5 s:0.0078 z:0b; DequantizeLinear $ s:0.0078 z:0b; " CONV(
         "y1", "8x8x3x3", "8", "") QDQ("0.04", "-3b") END,
        0, 2},
    /* depthwise, grouped, dilated */
    {INPUT("1x40x9x9") CONV("y1", "40x1x3x3", "40", "group=40 pads=1,1,1,1") OUT END, 0, 2},
    {INPUT("1x24x9x9") CONV("y1", "48x12x3x3", "48", "group=2 dilations=2,2") OUT END, 0, 2},
    /* int32 bias */
    {INPUT("1x8x6x6") "DequantizeLinear qw=16x8x3x3 ps=16 axis=0; DequantizeLinear rb=16 pb=16 axis=0; "
                      "Conv y1 y2 $; " OUT END,
        0, 2},
    /* residual: two scales */
    {INPUT("1x16x8x8") CONV("y1", "16x16x3x3", "16", "pads=1,1,1,1") OUT
        "Add $ y1; Relu $; " QDQ("0.04", "0u") END,
        1, 2},
    {INPUT("1x16x8x8") CONV("y1", "16x16x1x1", "16", "") OUT "Sub y1 $; " OUT END, 1, 2},
    /* pools: one scale kept, one of its own, another scale behind a pool that should keep it */
    {INPUT("1x16x9x9") "MaxPool $ kernel_shape=3,3 strides=2,2 pads=1,1,1,1; " QDQ("0.0078", "128u") END, 0,
        2},
    {INPUT("1x16x9x9") "MaxPool $ kernel_shape=2,2; " QDQ("0.011", "77u") END, 0, 2},
    {INPUT("1x16x9x9") "AveragePool $ kernel_shape=3,3 strides=2,2 pads=1,1,1,1; " QDQ("0.006", "120u") END,
        1, 2},
    {INPUT("1x16x9x9") "AveragePool $ kernel_shape=2,2 pads=1,1,1,1 count_include_pad=1; " QDQ(
         "0.006", "120u") END,
        1, 2},
    {INPUT("2x16x9x9") "GlobalAveragePool $; " QDQ("0.001", "120u") END, 1, 2},
    /* concat: one scale, two scales */
    {INPUT("1x16x6x6") CONV("y1", "8x16x1x1", "8", "")
            QDQ("0.0078", "128u") "Concat y1 $ axis=1; " QDQ("0.0078", "128u") END,
        0, 2},
    {INPUT("1x16x6x6") CONV("y1", "8x16x1x1", "8", "") OUT "Concat y1 $ axis=1; " QDQ("0.04", "121u") END, 0,
        2},
    /* views, with and without Q behind; the last layer's sums are floats */
    {INPUT("2x4x3x3") "Flatten $; " QDQ("0.0078", "128u") "DequantizeLinear qw=10x36 ps=10 axis=0; Gemm y4 "
                                                          "$ b=10 transB=1",
        0.005f, 1},
    {INPUT("2x4x3x3") "Flatten $; DequantizeLinear qw=36x10 ps=10 axis=1; Gemm y2 $ b=10", 0.005f, 1},
    {INPUT("2x5x12") "DequantizeLinear qw=12x7 ps=7 axis=1; MatMul y1 $; " OUT END, 0, 2},
    {INPUT("1x8x6x6") "Transpose $ perm=0,2,3,1; " QDQ("0.0078", "128u") END, 0, 2},
    /* elementwise functions become tables */
    {INPUT("1x16x6x6") "Sigmoid $; " QDQ("0.0039", "0u") END, 0, 2},
    {INPUT("1x16x6x6") "HardSigmoid $; Mul $ y1; " QDQ("0.004", "30u") END, 0, 2},
    {INPUT("1x16x6x6") "Add $ k:3.0; Clip $ lo:0.0 hi:6.0; Mul $ y1; Div $ d:6.0; " QDQ("0.004", "30u") END,
        0, 2},
    {INPUT("1x16x6x6") "HardSwish $; " QDQ("0.004", "30u") CONV("y4", "8x16x1x1", "8", "") OUT END, 0, 2},
    {INPUT("1x16x6x6") "Relu $; " QDQ("0.004", "0u") END, 0, 2},
    {INPUT("1x16x6x6") QDQ("0.02", "3u") END, 0, 2},
    /* squeeze and excitation */
    {INPUT("2x16x6x6") "GlobalAveragePool $; " QDQ("0.001", "128u")
            CONV("y4", "4x16x1x1", "4", "") "Relu $; " QDQ("0.002", "0u") CONV("y9", "16x4x1x1", "16", "")
                QDQ("0.002", "100u") "HardSigmoid $; " QDQ("0."
                                                           "004",
                    "0u") "Mul y1 $; " QDQ("0.004", "128u") END,
        2, 2},
    /* a constant with its own scale */
    {INPUT("2x6x5x5") "DequantizeLinear qc=6x1x1 s:0.01 z:0b; Add y1 $; " QDQ("0.015", "128u") END, 1, 3},
    /* nearest neighbours */
    {INPUT("1x8x5x4") "Resize $ _ sc:1,1,2,3 mode=nearest; " QDQ("0.0078", "128u") END, 0, 2},
    /* weights as floats with Q and DQ, as training tools export them */
    {INPUT(
         "1x8x6x6") "QuantizeLinear w=16x8x3x3 s:0.0078 z:0b; DequantizeLinear $ s:0.0078 z:0b; Conv y1 $; " OUT
            END,
        0, 2},
    /* two readers, each with a DequantizeLinear; one means other numbers */
    {INPUT("1x8x6x6") "DequantizeLinear y0 s:0.0078 z:128u; Sigmoid $; " QDQ(
         "0.0039", "0u") "Mul $ y1; " OUT END,
        1, 2},
    {INPUT("1x8x6x6") "DequantizeLinear y0 s:0.02 z:100u; Sigmoid $; " QDQ(
         "0.0039", "0u") "Mul $ y1; " OUT END,
        1, 4},
    /* the other spelling of a quantised layer */
    {"QuantizeLinear x=1x8x6x6 s:0.0078 z:128u; QLinearConv $ s:0.0078 z:128u qw=16x8x3x3 s:0.0078 z:0b s:0.05 "
     "z:120u rb=16 pads=1,1,1,1; DequantizeLinear $ s:0.05 z:120u; " END,
        1, 2},
    {"QuantizeLinear x=4x16 s:0.0078 z:128u; QLinearMatMul $ s:0.0078 z:128u qw=16x8 s:0.0078 z:0b s:0.05 "
     "z:120u; DequantizeLinear $ s:0.05 z:120u; " END,
        1, 2},
    /* a float operator between: its Q and DQ stay */
    {INPUT("1x8x5x4") "Softmax $ axis=1; " QDQ("0.0039", "0u") CONV("y4", "8x8x1x1", "8", "") OUT END, 0, 4},
};
#define N_CASES (sizeof(cases) / sizeof(cases[0]))

struct result {
    float *y;
    int64_t n;
    int n_border, n_reference;
};

static bool is_float_island(const char *op) {
    static const char *const ops[] = {"DequantizeLinear", "Sigmoid", "Softmax", "Softplus"};

    for (size_t i = 0; i < sizeof(ops) / sizeof(ops[0]); i++)
        if (strcmp(ops[i], op) == 0)
            return true;
    return false;
}

/* `used` [kernel_table_size] or NULL: kernels that ran are marked. `pool` NULL: one thread. */
static struct result run_shared(
    const char *text, const struct net_options *o, bool *used, struct pool *pool) {
    struct net_text t = net_text_read(text);
    struct tensor in = {.dtype = DT_F32, .shape = t.input[0]}, out = {0};
    struct arena arena = {0};
    struct result r = {0};
    struct error err = {0};
    struct net *net;
    struct plan *plan;
    size_t size;
    int64_t n = 0;

    if (net_new(t.graph, o, &net, &err) < 0 ||
        net_plan(net, t.input, pool ? pool_size(pool) : 1, &plan, &err) < 0)
        fail_msg("%s: %s", text, err.text);
    assert_int_equal(arena_reserve(&arena, plan_arena_size(plan), &err), 0);
    memset(arena.data, 0xff, arena.size);
    assert_true(shape_count(&t.input[0], &n));
    in.data = malloc((size_t)n * sizeof(float));
    net_text_fill(in.data, n, 1000);
    assert_true(shape_bytes(&plan_output(plan, 0)->shape, DT_F32, &size));
    assert_true(shape_count(&plan_output(plan, 0)->shape, &r.n));
    r.y = out.data = malloc(size);
    plan_run(plan, &arena, &in, &out, pool, NULL);
    for (size_t i = 0; i < plan_n_steps(plan); i++) {
        struct plan_step s;

        plan_get_step(plan, i, &s);
        if (getenv("QDQ_SHOW"))
            print_message("  %s %s %s\n", s.op, s.kernel, s.form);
        r.n_border += strstr(s.op, "quantizeLinear") || strstr(s.op, "QuantizeLinear");
        r.n_reference += strcmp(s.kernel, "reference") == 0 && !is_float_island(s.op);
        for (size_t k = 0; used && k < kernel_table_size; k++)
            used[k] = used[k] || strcmp(kernel_table[k]->name, s.kernel) == 0;
    }
    free(in.data);
    arena_done(&arena);
    plan_unref(plan);
    net_unref(net);
    return r;
}

static struct result run_text(const char *text, const struct net_options *o, bool *used) {
    return run_shared(text, o, used, NULL);
}

/* Softplus has a slope of at most 1: a step of its input is at most as much of its output. */
static float largest_step(const char *text) {
    float largest = 0;

    for (const char *s = strstr(text, " s:"); s; s = strstr(s + 1, " s:"))
        largest = fmaxf(largest, strtof(s + 3, NULL));
    return largest;
}

static int check_case(const struct qdq_case *c, const struct net_options *fast) {
    struct net_options reference = {.reference = true};
    struct result a = run_text(c->text, fast, NULL), b = run_text(c->text, &reference, NULL);
    float allowed = c->steps * largest_step(c->text) * 1.001f, worst = 0;
    int n_bad = 0;

    assert_int_equal(a.n, b.n);
    for (int64_t i = 0; i < a.n; i++)
        worst = fmaxf(worst, fabsf(a.y[i] - b.y[i]));
    if (!(worst <= allowed)) {
        print_error("%s: differs by %g, allowed %g\n", c->text, (double)worst, (double)allowed);
        n_bad++;
    }
    if (a.n_border > c->n_border || a.n_reference) {
        print_error("%s: %d Q and DQ, %d reference steps\n", c->text, a.n_border, a.n_reference);
        n_bad++;
    }
    free(a.y);
    free(b.y);
    return n_bad;
}

static void test_codes_give_what_the_operators_give(void **state) {
    struct net_options fast = {.kernels = NO_FLOAT};
    struct error err = {0};
    int n_bad = 0;

    (void)state;
    assert_int_equal(cpu_detect(NULL, &fast.cpu, &err), 0);
    for (size_t i = 0; i < N_CASES; i++)
        n_bad += check_case(&cases[i], &fast);
    assert_int_equal(n_bad, 0);
}

static void test_every_processor_gives_the_same_bytes(void **state) {
    static const char *const hide[] = {"avx512_vnni", "avx512_vbmi", "avx512", "all"};
    struct net_options all = {.kernels = NO_FLOAT};
    bool *used = calloc(kernel_table_size, sizeof(*used));
    struct error err = {0};

    (void)state;
    assert_int_equal(cpu_detect(NULL, &all.cpu, &err), 0);
    for (size_t i = 0; i < N_CASES; i++) {
        struct result want = run_text(cases[i].text, &all, used);

        for (size_t k = 0; k < sizeof(hide) / sizeof(hide[0]); k++) {
            struct net_options less = {.kernels = NO_FLOAT};
            struct result got;

            if (cases[i].steps > 0 && cases[i].steps < 1)
                continue; /* ends in floats */
            assert_int_equal(cpu_detect(hide[k], &less.cpu, &err), 0);
            got = run_text(cases[i].text, &less, used);
            if (memcmp(got.y, want.y, (size_t)want.n * sizeof(float)) != 0)
                fail_msg("without %s: %s", hide[k], cases[i].text);
            free(got.y);
        }
        free(want.y);
    }
    for (size_t k = 0; k < kernel_table_size && all.cpu.avx512_vnni; k++)
        if (strstr(kernel_table[k]->name, "s8") && !strstr(kernel_table[k]->name, "_sparse_") && !used[k])
            fail_msg("no case runs kernel %s", kernel_table[k]->name);
    free(used);
}

/* large enough that their work is shared */
static const char *const shared_nets[] = {
    INPUT("1x3x70x90") CONV("y1", "40x3x3x3", "40", "pads=1,1,1,1") OUT END,
    INPUT("1x64x31x29") CONV("y1", "64x64x3x3", "64", "pads=1,1,1,1") OUT
    "Add $ y1; Relu $; " QDQ("0.04", "0u") END,
    INPUT("1x128x28x28") CONV("y1", "72x128x1x1", "72", "") OUT END,
    INPUT("3x64x14x14") CONV("y1", "256x64x1x1", "256", "") OUT END,
    INPUT("1x256x5x5") CONV("y1", "256x256x3x3", "256", "pads=1,1,1,1") OUT END,
    INPUT("1x48x30x31") CONV("y1", "96x24x3x3", "96", "group=2 pads=1,1,1,1") OUT END,
    INPUT("2x40x37x41") "MaxPool $ kernel_shape=3,3 strides=2,2 pads=1,1,1,1; " QDQ("0.0078", "128u") END,
    INPUT("2x40x37x41") "AveragePool $ kernel_shape=3,3 strides=2,2 pads=1,1,1,1; " QDQ("0.006", "120u") END,
    INPUT("3x70x40x41") "GlobalAveragePool $; " QDQ("0.001", "120u") END,
    INPUT("2x33x40x41") "GlobalAveragePool $; " QDQ("0.001", "128u") "Mul y1 $; " QDQ("0.004", "128u") END,
};

static void test_threads_change_no_byte(void **state) {
    struct net_options o = {.kernels = NO_FLOAT};
    struct error err = {0};

    (void)state;
    assert_int_equal(cpu_detect(NULL, &o.cpu, &err), 0);
    for (unsigned threads = 2; threads <= 3; threads++) {
        struct pool *pool;

        assert_int_equal(pool_new(threads, &pool, &err), 0);
        for (size_t i = 0; i < sizeof(shared_nets) / sizeof(*shared_nets); i++) {
            struct result one = run_text(shared_nets[i], &o, NULL);
            struct result more = run_shared(shared_nets[i], &o, NULL, pool);

            assert_int_equal(one.n, more.n);
            if (memcmp(one.y, more.y, (size_t)one.n * sizeof(float)) != 0)
                fail_msg("%u threads: %s", threads, shared_nets[i]);
            free(one.y);
            free(more.y);
        }
        pool_free(pool);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_codes_give_what_the_operators_give),
        cmocka_unit_test(test_every_processor_gives_the_same_bytes),
        cmocka_unit_test(test_threads_change_no_byte),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
