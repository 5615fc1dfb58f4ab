/* A factor and a shift of each output channel, folded into a layer. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "compress/affine.h"
#include "compress/session.h"
#include "tests/unit/cmocka_all.h"
#include "tests/unit/net_text.h"

#define CHANNELS 5

static const char *const nets[] = {
    "Conv x=1x3x4x6 w=5x3x3x3",
    "Conv x=1x3x4x6 w=5x3x2x2 b=5",
    "Gemm x=2x7 w=7x5 b=5",
    "Gemm x=2x7 w=5x7 transB=1",
};

static float *run(const struct graph *g, const struct shape *shape, int64_t *ret_n) {
    _cleanup_(session_done) struct session s = {0};
    struct tensor in = {.dtype = DT_F32, .shape = *shape};
    struct graph *copy = NULL;
    struct error err = {0};
    int64_t n = 0;
    float *out;

    assert_true(shape_count(shape, &n));
    _cleanup_(freep) float *x = alloc_aligned((size_t)n * sizeof(float));
    assert_non_null(x);
    net_text_fill(x, n, 9);
    in.data = x;
    assert_int_equal(graph_clone(g, &copy, &err), 0);
    if (session_open_graph(copy, &s, &err) < 0 || session_plan(&s, &in.shape, 1, &err) < 0)
        fail_msg("%s", err.text);
    session_run(&s, &in);
    assert_true(shape_count(&s.out[0].shape, ret_n));
    out = malloc((size_t)*ret_n * sizeof(float));
    assert_non_null(out);
    memcpy(out, s.out[0].data, (size_t)*ret_n * sizeof(float));
    return out;
}

static void test_what_is_folded_is_what_was_asked(void **state) {
    static const float mul[CHANNELS] = {0.5f, -1, 2, 1, 3}, add[CHANNELS] = {1, 0, -2, 0.25f, 5};

    (void)state;
    for (size_t i = 0; i < sizeof(nets) / sizeof(nets[0]); i++) {
        struct net_text t = net_text_read(nets[i]);
        int64_t n = 0, m = 0, plane = t.input[0].rank == 4 ? 0 : 1;
        _cleanup_(freep) float *before = run(t.graph, &t.input[0], &n), *after = NULL;
        struct error err = {0};

        plane = plane ? 1 : n / CHANNELS;
        assert_true(affine_can_fold(t.graph, 0));
        assert_int_equal(affine_fold(t.graph, 0, mul, add, CHANNELS, &err), 0);
        assert_int_equal(graph_finish(t.graph, &err), 0);
        after = run(t.graph, &t.input[0], &m);
        assert_int_equal(n, m);
        for (int64_t k = 0; k < n; k++) {
            int64_t c = k / plane % CHANNELS;

            assert_true(fabsf(after[k] - (mul[c] * before[k] + add[c])) < 1e-4f);
        }
        graph_free(t.graph);
    }
}

/* Its output channels are the second dimension of the weights, and the first is longer here. */
static void test_transposed_convolutions_are_left_alone(void **state) {
    struct net_text t = net_text_read("ConvTranspose x=1x8x3x3 w=8x2x2x2 b=2");

    (void)state;
    assert_false(affine_can_fold(t.graph, 0));
    graph_free(t.graph);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_what_is_folded_is_what_was_asked),
        cmocka_unit_test(test_transposed_convolutions_are_left_alone),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
