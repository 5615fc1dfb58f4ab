/* Nets of signs give what the reference operators give, to the bit: all sums in them are exact. */
#include "tests/unit/cmocka_all.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/kernel/kernel.h"
#include "engine/pool.h"
#include "tests/unit/net_text.h"

#define SIGN(x) "GreaterOrEqual " x " z:0.0; Where $ one:1.0 neg:-1.0; "
#define SIGN2   "GreaterOrEqual $ z; Where $ one neg; "
#define BN(c)   "BatchNormalization $ s=" c " b=" c " m=" c " p=" c "; "

/* The last word says how many steps run on bits, and how many give bits of their own. */
static const struct {
    const char *text;
    int n_xnor, n_bits;
} nets[] = {
    /* shapes: channels, borders, strides, dilation, batch */
    {SIGN("x=1x64x8x8") "Conv $ h=16x64x3x3 pads=1,1,1,1", 1, 0},
    {SIGN("x=1x256x14x14") "Conv $ h=24x256x3x3 b=24 pads=1,1,1,1", 1, 0},
    {SIGN("x=2x3x9x7") "Conv $ h=5x3x3x3 pads=1,1,1,1", 1, 0},
    {SIGN("x=1x65x11x5") "Conv $ h=9x65x3x3 pads=2,0,1,3 strides=2,1", 1, 0},
    {SIGN("x=3x130x7x7") "Conv $ h=33x130x1x1", 1, 0},
    {SIGN("x=1x96x12x12") "Conv $ h=8x96x5x5 pads=2,2,2,2", 1, 0},
    {SIGN("x=1x40x13x19") "Conv $ h=7x40x3x5 pads=2,4,2,4 dilations=2,2", 1, 0},
    {SIGN("x=2x72x9x9") "Conv $ h=12x72x3x3 pads=1,1,1,1 strides=2,2", 1, 0},
    {SIGN("x=1x32x20x33") "Conv $ h=17x32x3x3", 1, 0},
    {SIGN("x=1x64x2x2") "Conv $ h=8x64x7x7 pads=3,3,3,3", 1, 0},
    {SIGN("x=2x128x31") "Conv $ h=16x128x3 pads=1,1", 1, 0},
    {SIGN("x=1x448x6x6") "Conv $ h=20x448x3x3 pads=1,1,1,1", 1, 0},
    {SIGN("x=1x64x8x8") "Conv $ h=64x1x3x3 group=64 pads=1,1,1,1", 0, 0},
    {SIGN("x=3x200") "Gemm $ h=200x17 b=17", 1, 0},
    {SIGN("x=1x513") "Gemm $ h=30x513 transB=1; Relu $", 1, 0},
    {SIGN("x=5x64") "MatMul $ h=64x9", 1, 0},
    /* padding by signs */
    {SIGN("x=1x64x8x8") "Pad $ pd:0,0,1,1,0,0,1,1i one; Conv $ h=16x64x3x3", 1, 0},
    {SIGN("x=2x70x6x5") "Pad $ pd:0,0,2,1,0,0,0,3i neg; Conv $ h=16x70x3x3 pads=1,0,1,1", 1, 0},
    {SIGN("x=1x64x8x8") "Pad $ pd:0,0,1,1,0,0,1,1i; Conv $ h=16x64x3x3", 1, 0},
    /* what follows */
    {SIGN("x=1x64x8x8") "Conv $ h=64x64x3x3 pads=1,1,1,1; Relu $; Add $ x; Clip $ lo:-1.0 hi:1.0", 1, 0},
    {SIGN("x=1x64x8x8") "Conv $ h=64x64x3x3 b=64 pads=1,1,1,1; " SIGN2 "Conv $ hi=24x64x3x3 pads=1,1,1,1", 2,
        1},
    {SIGN("x=2x70x9x6") "Conv $ h=72x70x3x3 pads=1,1,1,1; Relu $; " BN("72") SIGN2 "Conv $ hi=24x72x3x3", 2,
        1},
    {SIGN("x=1x64x8x8") "Conv $ h=20x64x1x1; " SIGN2 "Pad $ pd:0,0,1,1,0,0,1,1i one; Conv $ hi=9x20x3x3", 2,
        1},
    {SIGN("x=1x32x8x8") "Conv $ h=48x32x3x3 pads=1,1,1,1; " BN("48") SIGN2 "Conv $ hi=8x48x1x1", 2, 1},
    {"BatchNormalization x=1x40x6x6 s=40 b=40 m=40 p=40; " SIGN("$") "Conv $ h=8x40x3x3", 1, 0},
    {"BatchNormalization x=1x40x6x6 s=40 b=40 m=40 p=40; " SIGN("$") "Conv $ h=8x40x3x3; Flatten $; " SIGN2
                                                                     "Gemm $ hi=128x10 b=10",
        2, 0},
    /* a block and its shortcut, twice */
    {SIGN("x=1x64x8x8") "Conv $ h=64x64x3x3 pads=1,1,1,1; " BN(
         "64") "Add $ x; " SIGN2
               "Conv $ hi=64x64x3x3 pads=1,1,1,1; Add $ y4; GlobalAveragePool $; Flatten $; Gemm $ w=64x10 b=10",
        2, 0},
    /* other ways to write it */
    {"Greater x=1x64x5x5 t:0.25; Where $ one:1.0 neg:-1.0; Conv $ h=8x64x3x3", 1, 0},
    {"LessOrEqual t:0.0 x=1x64x5x5; Where $ one:1.0 neg:-1.0; Conv $ h=8x64x3x3", 1, 0},
    {"Less x=1x64x5x5 t:-0.1; Where $ one:1.0 neg:-1.0; Conv $ h=8x64x3x3", 1, 0},
    {"LessOrEqual x=1x64x5x5 t:0.1; Where $ one:1.0 neg:-1.0; Conv $ h=8x64x3x3", 1, 0},
    {"Greater t:0.1 x=1x64x5x5; Where $ one:1.0 neg:-1.0; Conv $ h=8x64x3x3", 1, 0},
    /* not it */
    {"Less x=1x64x5x5 t:0.0; Where $ neg:-1.0 one:1.0; Conv $ h=8x64x3x3", 0, 0},
    {"GreaterOrEqual x=1x64x5x5 t:0.0; Where $ one:1.0 neg:0.0; Conv $ h=8x64x3x3", 0, 0},
    {"Sign x=1x64x5x5; Conv $ h=8x64x3x3", 0, 0},
    {SIGN("x=1x64x5x5") "Conv $ w=8x64x3x3", 0, 0},
    {SIGN("x=1x64x8x8") "Pad $ pd:0,0,1,1,0,0,1,1i hf:0.5; Conv $ h=16x64x3x3", 0, 0},
    /* read as floats too */
    {SIGN("x=1x64x5x5") "Conv $ h=64x64x1x1; Add $ y1", 1, 0},
    {SIGN("x=2x20x5x5") "Conv $ h=20x20x1x1; Conv y1 w=20x20x1x1; Add y2 $", 1, 0},
};
#define N_NETS (sizeof(nets) / sizeof(*nets))

static float number_for(int64_t i, uint32_t seed) {
    float f;

    net_text_fill(&f, 1, seed + (uint32_t)i);
    if (i % 17 == 3)
        return 0;
    if (i % 17 == 5)
        return -0.0f;
    return (float)(int)(f * 64) / 64; /* so that sums with it are exact */
}

static float *run_text(const char *text, const struct net_options *o, unsigned n_threads, int *n_xnor,
    int *n_bits, int64_t *ret_n) {
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
    memset(arena.data, 0xff, arena.size);
    for (size_t i = 0; i < t.n_inputs; i++) {
        int64_t n = 0;
        float *x;

        assert_true(shape_count(&t.input[i], &n));
        x = malloc((size_t)n * sizeof(float));
        for (int64_t k = 0; k < n; k++)
            x[k] = number_for(k, 77);
        in[i] = (struct tensor){.dtype = DT_F32, .shape = t.input[i], .data = x};
    }
    assert_true(shape_bytes(&plan_output(plan, 0)->shape, plan_output(plan, 0)->dtype, &size));
    assert_true(shape_count(&plan_output(plan, 0)->shape, ret_n));
    out.data = malloc(size);
    {
        struct pool *pool = NULL;

        if (n_threads > 1)
            assert_int_equal(pool_new(n_threads, &pool, &err), 0);
        plan_run(plan, &arena, in, &out, pool, NULL);
        pool_free(pool);
    }
    *n_xnor = *n_bits = 0;
    for (size_t i = 0; i < plan_n_steps(plan); i++) {
        struct plan_step s;

        plan_get_step(plan, i, &s);
        *n_xnor += strstr(s.kernel, "xnor") != NULL;
        *n_bits += strstr(s.kernel, "xnor_bits") != NULL;
    }
    for (size_t i = 0; i < t.n_inputs; i++)
        free(in[i].data);
    arena_done(&arena);
    plan_unref(plan);
    net_unref(net);
    return out.data;
}

/* Floats left in a net (its first or last layer, means) are summed in another order. */
static bool is_near(float a, float b) {
    float size = b < 0 ? -b : b, d = a < b ? b - a : a - b;

    return d <= 2e-5f * (1 + size);
}

static void check_nets(const char *hide, unsigned n_threads) {
    struct net_options o = {0}, reference = {.reference = true};
    struct error err = {0};
    int n_wrong = 0;

    assert_int_equal(cpu_detect(hide, &o.cpu, &err), 0);
    for (size_t i = 0; i < N_NETS; i++) {
        int64_t n, m, bad = 0;
        int n_xnor, n_bits, none;
        float *a = run_text(nets[i].text, &o, n_threads, &n_xnor, &n_bits, &n);
        float *b = run_text(nets[i].text, &reference, 1, &none, &none, &m);
        bool is_exact = nets[i].n_xnor && !strstr(nets[i].text, "w=") && !strstr(nets[i].text, " b=");

        assert_int_equal(n, m);
        for (int64_t k = 0; k < n; k++)
            bad += is_exact ? a[k] < b[k] || a[k] > b[k] || a[k] != a[k] : !is_near(a[k], b[k]);
        if (bad || n_xnor != nets[i].n_xnor || n_bits != nets[i].n_bits) {
            print_error("%s: %lld of %lld differ, %d and %d steps on bits\n", nets[i].text, (long long)bad,
                (long long)n, n_xnor, n_bits);
            n_wrong++;
        }
        free(a);
        free(b);
    }
    assert_int_equal(n_wrong, 0);
}

static void test_vectors_of_512_bits_agree_with_the_reference(void **state) {
    (void)state;
    check_nets(NULL, 1);
    check_nets(NULL, 2);
}

static void test_vectors_of_256_bits_agree_with_the_reference(void **state) {
    (void)state;
    check_nets("avx512", 1);
    check_nets("avx512", 2);
}

static void test_plain_c_agrees_with_the_reference(void **state) {
    (void)state;
    check_nets("all", 1);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_vectors_of_512_bits_agree_with_the_reference),
        cmocka_unit_test(test_vectors_of_256_bits_agree_with_the_reference),
        cmocka_unit_test(test_plain_c_agrees_with_the_reference),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
