/* Least squares by themselves, and as the repair of a layer towards its parent. */
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "compress/least_squares.h"
#include "compress/probe.h"
#include "compress/recover.h"
#include "tests/unit/cmocka_all.h"
#include "tests/unit/net_text.h"
#include "tests/unit/outputs.h"

static double noise(int i) {
    return sin(12.9898 * i) * 0.7 + cos(4.1414 * i * i) * 0.3;
}

static void test_what_was_made_is_found(void **state) {
    enum { K = 7, N = 3, ROWS = 60 };
    double x[ROWS * K], e[ROWS * N] = {0}, want[K * N], got[K * N];
    bool keeps[K * N];
    struct error err = {0};

    (void)state;
    for (int i = 0; i < ROWS * K; i++)
        x[i] = noise(i + 1);
    for (int masked = 0; masked < 2; masked++) {
        _cleanup_(least_squares_done) struct least_squares s = {0};

        for (int i = 0; i < K * N; i++) {
            keeps[i] = i % 3 != 1;
            want[i] = masked && !keeps[i] ? 0 : noise(1000 + i);
        }
        for (int r = 0; r < ROWS; r++)
            for (int c = 0; c < N; c++) {
                e[r * N + c] = 0;
                for (int k = 0; k < K; k++)
                    e[r * N + c] += x[r * K + k] * want[k * N + c];
            }
        assert_int_equal(least_squares_init(&s, K, N, &err), 0);
        least_squares_add(&s, ROWS / 2, x, e);
        least_squares_add(&s, ROWS / 2, x + ROWS / 2 * K, e + ROWS / 2 * N);
        assert_int_equal(least_squares_solve(&s, 1e-12, masked ? keeps : NULL, got, &err), 0);
        for (int i = 0; i < K * N; i++)
            assert_true(fabs(got[i] - want[i]) < 1e-6);
    }
}

static void test_what_has_no_one_solution_is_told(void **state) {
    _cleanup_(least_squares_done) struct least_squares s = {0}, large = {0};
    const double x[4] = {1, 1, 2, 2}, e[2] = {1, 2};
    double got[2];
    struct error err = {0};

    (void)state;
    assert_int_equal(least_squares_init(&s, 2, 1, &err), 0);
    least_squares_add(&s, 2, x, e);
    assert_int_equal(least_squares_solve(&s, 0, NULL, got, &err), -EDOM);
    assert_int_equal(least_squares_solve(&s, 0.01, NULL, got, NULL), 0);
    assert_true(least_squares_init(&large, LEAST_SQUARES_MAX + 1, 1, NULL) < 0);
}

static int read_samples(void *ctx, int64_t first, int64_t count, float *ret, struct error *err) {
    const int64_t *item = ctx;

    (void)err;
    for (int64_t i = 0; i < count; i++)
        net_text_fill(ret + i * *item, *item, 77 + (uint32_t)(first + i));
    return 0;
}

/* Spoils the first layer; the second is to make up for it as far as it can. */
static void check_repair(const char *net, bool is_sparse) {
    struct net_text text = net_text_read(net), other = net_text_read(net);
    struct graph *parent = text.graph, *g = other.graph;
    struct samples s = {.n = 64, .item = text.input[0], .read = read_samples};
    struct work work = {.graph = g, .samples = &s};
    struct recover_calibrate o = {.is_wanted = true, .samples = 64, .bias = true, .least_squares = true};
    const int last = (int)g->n_nodes - 1;
    struct error err = {0};
    int64_t item, n, zeros = 0;
    double before;
    float *w;

    shape_count(&s.item, &item);
    s.ctx = &item;
    parent->values[parent->inputs[0]].shape.dim[0] = g->values[g->inputs[0]].shape.dim[0] = -1;
    for (int k = 0; k <= last; k += last) {
        const struct tensor *t = g->values[g->nodes[k].in[1]].init;

        shape_count(&t->shape, &n);
        w = t->data;
        for (int64_t i = 0; i < n; i++)
            w[i] = k == 0 ? w[i] * (i % 3 ? 0.5f : 1.3f) : is_sparse && i % 2 ? 0 : w[i];
    }
    before = outputs_distance(g, parent, &s);
    if (recover_calibrate(&work, parent, &o, &err) < 0)
        fail_msg("%s", err.text);
    /* half of the weights gone cannot be made up for; a spoilt layer of as many as before can */
    assert_true(outputs_distance(g, parent, &s) < (is_sparse ? 0.9 : 0.01) * before);
    w = g->values[g->nodes[last].in[1]].init->data;
    for (int64_t i = 0; i < n; i++)
        zeros += w[i] == 0;
    assert_int_equal(zeros, is_sparse ? n / 2 : 0);
    graph_free(parent);
    graph_free(g);
}

static void test_layers_come_near_to_their_parents(void **state) {
    (void)state;
    for (int is_sparse = 0; is_sparse < 2; is_sparse++) {
        check_repair(
            "Conv x=1x2x8x9 w=6x2x3x3 b=6 pads=1,0,1,2; Relu $; Conv $ w2=5x6x3x2 b2=5 strides=2,1 dilations=1,2",
            is_sparse);
        check_repair("Gemm x=1x9 w=9x12 b=12; Relu $; Gemm $ w2=4x12 b2=4 transB=1", is_sparse);
        check_repair("Gemm x=1x9 w=9x12 b=12; Tanh $; Gemm $ w2=12x4 b2=4", is_sparse);
    }
}

/* Pixels folded into the batch: more rows than samples. The layer stays, and no memory but its own is
 * written. */
static void test_rows_that_are_no_samples_are_left_alone(void **state) {
    static const char net[] = "Conv x=1x2x4x4 w=3x2x1x1 b=3; Reshape $ s:-1,12i; Gemm $ w2=12x4 b2=4";
    struct net_text text = net_text_read(net), other = net_text_read(net);
    struct graph *parent = text.graph, *g = other.graph;
    struct samples s = {.n = 16, .item = text.input[0], .read = read_samples};
    struct work work = {.graph = g, .samples = &s};
    int64_t item, n;
    struct error err = {0};
    float first, *w;

    (void)state;
    shape_count(&s.item, &item);
    s.ctx = &item;
    parent->values[parent->inputs[0]].shape.dim[0] = g->values[g->inputs[0]].shape.dim[0] = -1;
    w = g->values[g->nodes[2].in[1]].init->data;
    shape_count(&g->values[g->nodes[2].in[1]].init->shape, &n);
    for (int64_t i = 0; i < n; i++)
        w[i] *= 0.5f;
    first = w[0];
    if (recover_squares(&work, parent, 2, parent->nodes[2].out[0], NULL, &s, &err) < 0)
        fail_msg("%s", err.text);
    assert_float_equal(((float *)g->values[g->nodes[2].in[1]].init->data)[0], first, 0);
    graph_free(parent);
    graph_free(g);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_what_was_made_is_found),
        cmocka_unit_test(test_what_has_no_one_solution_is_told),
        cmocka_unit_test(test_layers_come_near_to_their_parents),
        cmocka_unit_test(test_rows_that_are_no_samples_are_left_alone),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
