/* Values whose size depends on data: NonMaxSuppression, NonZero and what comes behind them. */
#include "tests/unit/cmocka_all.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "engine/net.h"
#include "engine/shape_infer.h"
#include "engine/summary.h"
#include "tests/unit/net_text.h"

#define MAX_BYTES 4096

struct bench {
    struct net *net;
    struct plan *plan;
    struct arena arena;
    struct tensor out;
    _Alignas(64) char y[MAX_BYTES];
};

static void bench_open(struct bench *b, const char *text, bool reference) {
    struct net_text t = net_text_read(text);
    struct net_options o = {.reference = reference};
    struct error err = {0};

    memset(b, 0, sizeof(*b));
    assert_int_equal(cpu_detect(NULL, &o.cpu, &err), 0);
    if (net_new(t.graph, &o, &b->net, &err) < 0 || net_plan(b->net, t.input, 1, &b->plan, &err) < 0)
        fail_msg("%s", err.text);
    assert_int_equal(arena_reserve(&b->arena, plan_arena_size(b->plan), &err), 0);
}

static void bench_close(struct bench *b) {
    arena_done(&b->arena);
    plan_unref(b->plan);
    net_unref(b->net);
}

/* b->out has the answer; the room for it is guarded. */
static int run(struct bench *b, const float *x, const float *x2, struct error *err) {
    struct tensor in[2] = {{.data = (void *)(uintptr_t)x}, {.data = (void *)(uintptr_t)x2}};
    size_t size = 0;

    b->out = *plan_output(b->plan, 0);
    assert_true(shape_bytes(&b->out.shape, b->out.dtype, &size) && size < MAX_BYTES);
    memset(b->y, 0x55, sizeof(b->y));
    b->out.data = b->y;
    plan_run(b->plan, &b->arena, in, &b->out, NULL, NULL);
    for (size_t i = size; i < MAX_BYTES; i++)
        assert_int_equal(b->y[i], 0x55);
    return plan_check_outputs(b->plan, &b->out, err);
}

static void expect_shape(const struct bench *b, int rank, int64_t d0, int64_t d1) {
    assert_int_equal(b->out.shape.rank, rank);
    assert_int_equal(b->out.shape.dim[0], d0);
    if (rank > 1)
        assert_int_equal(b->out.shape.dim[1], d1);
}

/* The boxes that were chosen, doubled: what a detector's last nodes do. */
#define DETECTOR                                                                                             \
    "NonMaxSuppression x=1x4x4 xs=1x2x4 m:2i t:0.5 s:0.1; Gather $ k:2i axis=1; Reshape x r:4,4i; "          \
    "Gather $ y1 axis=0; Mul $ d:2; Reshape $ q:-1,2i; Reshape $ q:-1,4i; Relu $"

static const float boxes[16] = {0, 0, 1, 1, 0, 0.1f, 1, 1.1f, 0, 5, 1, 6, 0, 9, 1, 10};

static void test_a_detector_gives_what_it_found(void **state) {
    /* class 0: box 0 suppresses 1, then 3; class 1: box 2 only */
    static const float scores[8] = {0.9f, 0.8f, 0.05f, 0.3f, 0, 0, 0.7f, 0};
    static const int want[] = {0, 3, 2};

    (void)state;
    for (int reference = 0; reference < 2; reference++) {
        struct bench b;
        struct error err = {0};

        bench_open(&b, DETECTOR, reference);
        assert_int_equal(plan_output(b.plan, 0)->shape.dim[0], 4); /* two of each class at most */
        assert_int_equal(run(&b, boxes, scores, &err), 0);
        expect_shape(&b, 2, 3, 4);
        for (int i = 0; i < 3; i++)
            for (int k = 0; k < 4; k++)
                assert_true(((float *)(void *)b.y)[4 * i + k] == 2 * boxes[4 * want[i] + k]);
        bench_close(&b);
    }
}

/* One plan, one arena, other counts each time; nothing is found, too. */
static void test_each_run_has_its_own_count(void **state) {
    struct bench b;
    struct error err = {0};

    (void)state;
    bench_open(&b, DETECTOR, false);
    for (int n = 0; n <= 2; n++) {
        float scores[8] = {0};

        for (int i = 0; i < n; i++)
            scores[2 + i] = 0.5f;
        assert_int_equal(run(&b, boxes, scores, &err), 0);
        expect_shape(&b, 2, n, 4);
    }
    bench_close(&b);
}

/* The planned shape is the largest; Shape must say the real one. */
static void test_the_shape_of_what_is_counted_is_not_folded(void **state) {
    static const float x[12] = {0, 1, 0, 0, 2, 0, 0, 0, 3, 0, 0, 0};
    struct bench b;
    struct error err = {0};

    (void)state;
    bench_open(&b, "NonZero x=3x4; Transpose $ perm=1,0; Shape $", false);
    assert_int_equal(run(&b, x, NULL, &err), 0);
    expect_shape(&b, 1, 2, 0);
    assert_int_equal(((int64_t *)(void *)b.y)[0], 3);
    assert_int_equal(((int64_t *)(void *)b.y)[1], 2);
    bench_close(&b);
}

static void test_counts_of_constants_are_known(void **state) {
    struct bench b;
    struct error err = {0};
    static const float x[1] = {1};

    (void)state;
    bench_open(&b, "Mul x=1x1 w:2; NonZero z=4x8; Gather $ k:0i axis=0", false);
    assert_true(plan_output(b.plan, 0)->shape.dim[0] < 16); /* nine tenths of z are 0 */
    assert_int_equal(run(&b, x, NULL, &err), 0);
    bench_close(&b);
}

static void test_counts_that_do_not_fit_are_an_error(void **state) {
    static const float three[4] = {1, 1, 1, 0}, two[4] = {0, 1, 1, 0};
    struct bench b;
    struct error err = {0};

    (void)state;
    bench_open(&b, "NonZero x=4; NonZero xb=4; Add y0 y1; Neg $", false);
    assert_int_equal(run(&b, three, three, &err), 0);
    expect_shape(&b, 2, 1, 3);
    assert_int_equal(run(&b, three, two, &err), -EINVAL);
    assert_string_equal(err.code, "shape_mismatch");
    error_clear(&err);
    assert_int_equal(run(&b, two, two, &err), 0);
    expect_shape(&b, 2, 1, 2);
    bench_close(&b);
}

static void test_shapes_that_need_a_count_are_refused(void **state) {
    struct net_text t = net_text_read("NonZero x=4; Shape $; ConstantOfShape $");
    struct net_options o = {0};
    struct error err = {0};
    struct net *n = NULL;
    struct plan *p;

    (void)state;
    assert_int_equal(cpu_detect(NULL, &o.cpu, &err), 0);
    assert_int_equal(net_new(t.graph, &o, &n, &err), 0);
    assert_true(net_plan(n, t.input, 1, &p, &err) < 0);
    assert_string_equal(err.code, "invalid_model");
    net_unref(n);
}

static void test_the_summary_says_that_a_size_is_free(void **state) {
    struct net_text t = net_text_read(DETECTOR);
    struct summary *s = NULL;
    struct error err = {0};

    (void)state;
    assert_int_equal(summary_new(t.graph, &s, &err), 0);
    assert_int_equal(s->outputs[0].shape.dim[0], -1);
    summary_free(s);
    graph_free(t.graph);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_detector_gives_what_it_found),
        cmocka_unit_test(test_each_run_has_its_own_count),
        cmocka_unit_test(test_the_shape_of_what_is_counted_is_not_folded),
        cmocka_unit_test(test_counts_of_constants_are_known),
        cmocka_unit_test(test_counts_that_do_not_fit_are_an_error),
        cmocka_unit_test(test_shapes_that_need_a_count_are_refused),
        cmocka_unit_test(test_the_summary_says_that_a_size_is_free),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
