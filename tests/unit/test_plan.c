/* Plans: cached and counted, small arenas, in-place results, batches, many threads. */
#include "tests/unit/cmocka_all.h"

#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/net.h"
#include "engine/pool.h"
#include "tests/unit/net_text.h"

#define RESIDUAL_NET                                                                                         \
    "Conv x=1x3x16x16 w=16x3x3x3 b=16 pads=1,1,1,1; Relu $; Conv $ v=16x16x3x3 pads=1,1,1,1; Relu $; "       \
    "Conv $ u=16x16x3x3 pads=1,1,1,1; Add $ y1; Relu $; GlobalAveragePool $; Flatten $; Gemm $ g=16x10 b=10"

static struct net *open_text(const char *text, struct shape *ret_input) {
    struct net_options o = {0};
    struct net_text t = net_text_read(text);
    struct error err = {0};
    struct net *n = NULL;

    assert_int_equal(cpu_detect(NULL, &o.cpu, &err), 0);
    *ret_input = t.input[0];
    if (net_new(t.graph, &o, &n, &err) < 0)
        fail_msg("%s", err.text);
    return n;
}

/* Inputs declared with a fixed batch are opened up, so that any batch plans. */
static struct net *open_free_batch(const char *text, struct shape *ret_input) {
    struct net_options o = {0};
    struct net_text t = net_text_read(text);
    struct error err = {0};
    struct net *n = NULL;

    assert_int_equal(cpu_detect(NULL, &o.cpu, &err), 0);
    *ret_input = t.input[0];
    t.graph->values[t.graph->inputs[0]].shape.dim[0] = -1;
    if (net_new(t.graph, &o, &n, &err) < 0)
        fail_msg("%s", err.text);
    return n;
}

static struct plan *plan_for(struct net *n, const struct shape *s, unsigned threads) {
    struct plan *p = NULL;
    struct error err = {0};

    if (net_plan(n, s, threads, &p, &err) < 0)
        fail_msg("%s", err.text);
    return p;
}

static int64_t count(const struct shape *s) {
    int64_t n = 0;

    assert_true(shape_count(s, &n));
    return n;
}

static void run(const struct plan *p, const struct shape *s, float *x, float *y, struct pool *pool) {
    struct tensor in = {.dtype = DT_F32, .shape = *s, .data = x}, out = {.data = y};
    struct arena a = {0};

    assert_true(arena_reserve(&a, plan_arena_size(p), NULL) == 0);
    memset(a.data, 0xff, a.size);
    plan_run(p, &a, &in, &out, pool, NULL);
    arena_done(&a);
}

static void test_same_shapes_give_the_same_plan(void **state) {
    struct shape s;
    struct net *n = open_free_batch(RESIDUAL_NET, &s);
    struct plan *a = plan_for(n, &s, 1), *b = plan_for(n, &s, 1), *c = plan_for(n, &s, 2);

    (void)state;
    assert_ptr_equal(a, b);
    assert_ptr_not_equal(a, c);
    plan_unref(a);
    plan_unref(b);
    plan_unref(c);
    net_unref(n);
}

static void test_the_least_recently_used_plan_goes(void **state) {
    struct shape s;
    struct net *n = open_free_batch("Relu x=1x8", &s);
    struct plan *first = plan_for(n, &s, 1), *again;
    struct net_bytes before, after;

    (void)state;
    for (int64_t batch = 2; batch <= 16; batch++) {
        s.dim[0] = batch;
        plan_unref(plan_for(n, &s, 1));
    }
    net_count_bytes(n, &before);
    s.dim[0] = 1;
    again = plan_for(n, &s, 1);
    assert_ptr_equal(first, again); /* used: the second oldest is the one to go */
    plan_unref(again);
    s.dim[0] = 17;
    plan_unref(plan_for(n, &s, 1));
    net_count_bytes(n, &after);
    assert_true(after.plans < before.plans + before.plans / 8);
    s.dim[0] = 1;
    again = plan_for(n, &s, 1);
    assert_ptr_equal(first, again);
    plan_unref(again);
    plan_unref(first);
    net_unref(n);
}

static void test_a_plan_outlives_the_handle_to_its_net(void **state) {
    struct shape s;
    struct net *n = open_text(RESIDUAL_NET, &s);
    struct plan *p = plan_for(n, &s, 1);
    float *x = malloc((size_t)count(&s) * sizeof(float)), y[10];

    (void)state;
    net_unref(n);
    net_text_fill(x, count(&s), 7);
    run(p, &s, x, y, NULL);
    assert_true(isnan((double)y[0]) == 0);
    free(x);
    plan_unref(p);
}

static void test_shapes_that_do_not_fit_are_named(void **state) {
    struct shape s, bad;
    struct net *n = open_free_batch(RESIDUAL_NET, &s);
    struct plan *p = NULL;
    struct error err = {0};

    (void)state;
    bad = s;
    bad.dim[1] = 4;
    assert_true(net_plan(n, &bad, 1, &p, &err) < 0);
    assert_string_equal(err.code, "shape_mismatch");
    assert_string_equal(err.text, "input 'x' has shape [1,4,16,16], the model takes [?,3,16,16]");
    assert_null(p);
    net_unref(n);
}

/* 40 layers in a row need room for two values (and the input), not 40. */
static void test_the_arena_does_not_grow_with_depth(void **state) {
    char text[4096] = "Conv x=1x16x32x32 w=16x16x3x3 pads=1,1,1,1";
    struct shape s;
    struct net *n;
    struct plan *p;

    (void)state;
    for (int i = 0; i < 40; i++)
        strcat(text, "; Conv $ w=16x16x3x3 pads=1,1,1,1; Relu $");
    n = open_text(text, &s);
    p = plan_for(n, &s, 1);
    assert_int_equal(plan_n_steps(p), 43);
    assert_true(plan_arena_size(p) < 4 * 16 * 32 * 32 * sizeof(float));
    plan_unref(p);
    net_unref(n);
}

/* conv + residual: the sum is written over the residual when nobody reads it later. */
static void test_a_residual_is_added_in_place(void **state) {
    struct shape s;
    struct net *n = open_text(RESIDUAL_NET, &s);
    struct plan *p = plan_for(n, &s, 1);
    size_t image = 16 * 16 * 16 * sizeof(float);

    (void)state;
    assert_int_equal(plan_n_steps(p), 5); /* three convolutions with all their posts, pool, gemm */
    assert_true(plan_arena_size(p) < 2 * image + image / 2 + 3 * 16 * 16 * sizeof(float));
    plan_unref(p);
    net_unref(n);
}

/* The size comes with a request; what it would take is known before anything is allocated. */
static void test_a_size_beyond_the_budget_is_refused(void **state) {
    atomic_size_t limit;
    struct shape s;
    struct net *n = open_free_batch(RESIDUAL_NET, &s);
    struct plan *p = plan_for(n, &s, 1);
    struct error err = {0};

    (void)state;
    atomic_init(&limit, plan_arena_size(p));
    net_limit_arena(n, &limit);
    plan_unref(p);
    s.dim[0] = 100000;
    assert_true(net_plan(n, &s, 1, &p, &err) < 0);
    assert_string_equal(err.code, "memory_budget");
    s.dim[0] = 1;
    p = plan_for(n, &s, 2); /* another plan of a size that fits */
    plan_unref(p);
    atomic_store(&limit, SIZE_MAX);
    s.dim[0] = 16;
    plan_unref(plan_for(n, &s, 1));
    net_unref(n);
}

static void test_a_batch_gives_the_answers_of_single_images(void **state) {
    enum { BATCH = 8 };
    struct shape one, many;
    struct net *n = open_free_batch(RESIDUAL_NET, &one);
    struct plan *p, *q;
    int64_t size = count(&one);
    float *x = malloc((size_t)(BATCH * size) * sizeof(float)), y[BATCH][10], z[BATCH][10];
    struct net_bytes alone, both;

    (void)state;
    net_text_fill(x, BATCH * size, 3);
    p = plan_for(n, &one, 1);
    net_count_bytes(n, &alone);
    many = one;
    many.dim[0] = BATCH;
    q = plan_for(n, &many, 1);
    net_count_bytes(n, &both);
    assert_int_equal(alone.packed, both.packed); /* the weights are shared */
    run(q, &many, x, &z[0][0], NULL);
    for (int i = 0; i < BATCH; i++) {
        run(p, &one, x + i * size, y[i], NULL);
        for (int k = 0; k < 10; k++)
            assert_true(fabsf(y[i][k] - z[i][k]) <= 1e-5f * fmaxf(1, fabsf(y[i][k])));
    }
    free(x);
    plan_unref(p);
    plan_unref(q);
    net_unref(n);
}

/* Big enough that threads share them. */
static const char *const shared_nets[] = {
    RESIDUAL_NET,
    "Conv x=1x32x57x57 w=64x32x3x3 b=64 pads=1,1,1,1; Relu $",
    "Conv x=1x32x56x57 w=64x32x5x3 pads=0,1,4,1 strides=2,2",
    "Conv x=1x64x56x56 w=64x64x3x3 b=64 pads=1,1,1,1; Conv $ v=64x64x3x3 b=64 pads=1,1,1,1; Add $ y0; Relu $",
    "Conv x=1x64x56x56 w=64x64x3x3 b=64 pads=1,1,1,1; Conv $ v=64x64x3x3 pads=1,1,1,1; Add $ y0; Concat $ y0",
    "Conv x=4x32x28x28 w=64x32x3x3 b=64 pads=1,1,1,1",
    "Conv x=1x256x30x30 w=256x64x3x3 group=4 pads=2,2,2,2 dilations=2,2",
    "Conv x=1x256x112x112 w=256x1x3x3 group=256 pads=1,1,1,1",
    "Gemm x=1x4096 w=1024x4096 b=1024 transB=1; Relu $",
    "Gemm x=1x4096 w=4096x1000 b=1000",
    "ConvTranspose x=4x32x28x28 w=32x32x2x2 strides=2,2",
};

static float *run_text(const char *text, unsigned threads, struct pool *pool, size_t *ret_size) {
    struct shape s;
    struct net *n = open_text(text, &s);
    struct plan *p = plan_for(n, &s, threads);
    float *x = malloc((size_t)count(&s) * sizeof(float)), *y;

    *ret_size = (size_t)count(&plan_output(p, 0)->shape) * sizeof(float);
    y = malloc(*ret_size);
    net_text_fill(x, count(&s), 5);
    run(p, &s, x, y, pool);
    free(x);
    plan_unref(p);
    net_unref(n);
    return y;
}

static void test_threads_change_no_bit(void **state) {
    (void)state;
    for (unsigned threads = 2; threads <= 3; threads++) {
        struct pool *pool;

        assert_int_equal(pool_new(threads, &pool, NULL), 0);
        for (size_t i = 0; i < sizeof(shared_nets) / sizeof(*shared_nets); i++) {
            size_t size, again;
            float *y = run_text(shared_nets[i], 1, NULL, &size);
            float *z = run_text(shared_nets[i], threads, pool, &again);

            assert_int_equal(size, again);
            if (memcmp(y, z, size) != 0)
                fail_msg("%s: %u threads give other bits", shared_nets[i], threads);
            free(y);
            free(z);
        }
        pool_free(pool);
    }
}

struct runner {
    pthread_t thread;
    const struct plan *plan;
    const struct shape *shape;
    float *x, y[10];
};

static void *run_often(void *arg) {
    struct runner *r = arg;
    struct arena a = {0};

    if (arena_reserve(&a, plan_arena_size(r->plan), NULL) < 0)
        return NULL;
    for (int i = 0; i < 50; i++) {
        struct tensor in = {.dtype = DT_F32, .shape = *r->shape, .data = r->x}, out = {.data = r->y};

        plan_run(r->plan, &a, &in, &out, NULL, NULL);
    }
    arena_done(&a);
    return NULL;
}

static void test_many_threads_run_one_plan(void **state) {
    enum { THREADS = 6 };
    struct runner r[THREADS];
    struct shape s;
    struct net *n = open_text(RESIDUAL_NET, &s);
    struct plan *p = plan_for(n, &s, 1);
    float *x = malloc((size_t)count(&s) * sizeof(float));

    (void)state;
    net_text_fill(x, count(&s), 9);
    for (int i = 0; i < THREADS; i++) {
        r[i] = (struct runner){.plan = p, .shape = &s, .x = x};
        assert_int_equal(pthread_create(&r[i].thread, NULL, run_often, &r[i]), 0);
    }
    for (int i = 0; i < THREADS; i++)
        pthread_join(r[i].thread, NULL);
    for (int i = 1; i < THREADS; i++)
        assert_memory_equal(r[0].y, r[i].y, sizeof(r[0].y));
    free(x);
    plan_unref(p);
    net_unref(n);
}

static void test_unaligned_inputs_and_outputs_are_fine(void **state) {
    struct shape s;
    struct net *n = open_text("Relu x=3x5; Tanh $", &s);
    struct plan *p = plan_for(n, &s, 1);
    float x[17], y[17], *a = x + 1, *b = y + 1;

    (void)state;
    net_text_fill(a, 15, 2);
    run(p, &s, a, b, NULL);
    for (int i = 0; i < 15; i++)
        assert_true(fabsf(b[i] - tanhf(a[i] > 0 ? a[i] : 0)) < 1e-6f);
    plan_unref(p);
    net_unref(n);
}

/* KiB of private memory, or -1 where the kernel does not tell or a sanitiser has its own. */
static long resident_kb(void) {
    char line[256];
    long kb = -1;
    FILE *f = fopen("/proc/self/smaps_rollup", "re");

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
    if (f)
        fclose(f);
    return -1;
#endif
    while (f && fgets(line, sizeof(line), f))
        (void)sscanf(line, "Private_Dirty: %ld kB", &kb);
    if (f)
        fclose(f);
    return kb;
}

static void test_counted_bytes_are_resident_bytes(void **state) {
    struct shape s;
    struct net *n, *warm;
    struct plan *p;
    struct net_bytes b;
    long before, after, counted;

    (void)state;
    if (resident_kb() < 0)
        skip();
    /* the library's own tables are there before and after; other weights, or they would be shared */
    warm = open_text("Conv x=1x240x14x14 w=512x240x3x3; Conv $ v=496x512x3x3", &s);
    plan_unref(plan_for(warm, &s, 1));
    before = resident_kb();
    n = open_text("Conv x=1x256x14x14 w=512x256x3x3; Conv $ v=512x512x3x3", &s);
    p = plan_for(n, &s, 1);
    after = resident_kb();
    net_count_bytes(n, &b);
    /* the net is made here, not read from a file: its initialisers are counted with the graph */
    counted = (long)((b.packed + b.plans + b.mapped) >> 10);
    assert_true(labs(after - before - counted) < counted / 8);
    plan_unref(p);
    net_unref(n);
    net_unref(warm);
}

static void add_part(void *ctx, unsigned part) {
    unsigned *sum = ctx;

    __atomic_add_fetch(&sum[part % 4], part, __ATOMIC_RELAXED);
}

static void test_a_pool_runs_every_part_once(void **state) {
    struct pool *pool;

    (void)state;
    assert_int_equal(pool_new(3, &pool, NULL), 0);
    assert_int_equal(pool_size(pool), 3);
    for (int i = 0; i < 200; i++) {
        unsigned sum[4] = {0};

        pool_run(pool, 100, add_part, sum);
        assert_int_equal(sum[0] + sum[1] + sum[2] + sum[3], 4950);
    }
    pool_free(pool);
}

/* More than a million weights: enough to share the packing. */
#define WIDE_NET                                                                                             \
    "Conv x=1x64x9x9 w=320x64x3x3 b=320 pads=1,1,1,1; Relu $; Conv $ v=320x320x3x3 pads=1,1,1,1; Relu $; "   \
    "Conv $ u=64x320x1x1 b=64; MaxPool $ kernel_shape=3,3 strides=2,2; Flatten $; Gemm $ g=1024x10 b=10"

static unsigned four(void *asked) {
    ++*(int *)asked;
    return 4;
}

static struct net *open_sharing(const char *kernels, int *asked, struct shape *ret_input) {
    struct net_options o = {.kernels = kernels, .spare_threads = asked ? four : NULL, .spare_ctx = asked};
    struct net_text t = net_text_read(WIDE_NET);
    struct error err = {0};
    struct net *n = NULL;

    assert_int_equal(cpu_detect(NULL, &o.cpu, &err), 0);
    *ret_input = t.input[0];
    if (net_new(t.graph, &o, &n, &err) < 0)
        fail_msg("%s", err.text);
    return n;
}

static void test_threads_that_prepare_change_nothing(void **state) {
    static const char *const kernels[] = {NULL, "conv_f32_winograd4", "-conv_f32_onednn,-gemm_f32_onednn"};

    (void)state;
    for (size_t k = 0; k < sizeof(kernels) / sizeof(*kernels); k++) {
        struct shape s;
        int asked = 0;
        struct net *n[2] = {open_sharing(kernels[k], NULL, &s), open_sharing(kernels[k], &asked, &s)};
        struct plan *p[2] = {plan_for(n[0], &s, 1), plan_for(n[1], &s, 1)};
        float *x = calloc((size_t)count(&s), sizeof(float)), y[2][10];

        assert_non_null(x);
        assert_int_equal(asked, 1);
        for (int64_t i = 0; i < count(&s); i++)
            x[i] = (float)(i % 97) / 97 - 0.5f;
        assert_int_equal(plan_n_steps(p[0]), plan_n_steps(p[1]));
        for (size_t i = 0; i < plan_n_steps(p[0]); i++) {
            struct plan_step a, b;

            plan_get_step(p[0], i, &a);
            plan_get_step(p[1], i, &b);
            assert_string_equal(a.kernel, b.kernel);
            assert_int_equal(a.weight_bytes, b.weight_bytes);
            assert_int_equal(a.macs, b.macs);
        }
        assert_int_equal(plan_arena_size(p[0]), plan_arena_size(p[1]));
        for (int i = 0; i < 2; i++) {
            run(p[i], &s, x, y[i], NULL);
            plan_unref(p[i]);
            net_unref(n[i]);
        }
        assert_memory_equal(y[0], y[1], sizeof(y[0]));
        free(x);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_same_shapes_give_the_same_plan),
        cmocka_unit_test(test_the_least_recently_used_plan_goes),
        cmocka_unit_test(test_a_plan_outlives_the_handle_to_its_net),
        cmocka_unit_test(test_shapes_that_do_not_fit_are_named),
        cmocka_unit_test(test_the_arena_does_not_grow_with_depth),
        cmocka_unit_test(test_a_residual_is_added_in_place),
        cmocka_unit_test(test_a_size_beyond_the_budget_is_refused),
        cmocka_unit_test(test_a_batch_gives_the_answers_of_single_images),
        cmocka_unit_test(test_threads_change_no_bit),
        cmocka_unit_test(test_many_threads_run_one_plan),
        cmocka_unit_test(test_threads_that_prepare_change_nothing),
        cmocka_unit_test(test_counted_bytes_are_resident_bytes),
        cmocka_unit_test(test_unaligned_inputs_and_outputs_are_fine),
        cmocka_unit_test(test_a_pool_runs_every_part_once),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
