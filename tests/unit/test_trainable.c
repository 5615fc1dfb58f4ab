/* Compressed networks opened for training and closed again: without a step between, every form says what it
 * said; with one, it stays what it is. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "compress/recode.h"
#include "compress/trainable.h"
#include "engine/onnx.h"
#include "tests/unit/cmocka_all.h"
#include "tests/unit/net_text.h"
#include "tests/unit/weight_sample.h"

/* A net of one layer whose weights are the sample's. */
static struct graph *net_of(const struct sample *s, const struct sample_kind *k, int *ret_node) {
    bool is_conv = k->shape.rank > 2;
    struct graph *g = graph_new();
    struct shape in = {.rank = k->shape.rank, .dim = {1, 1, 6, 6}};
    int x, w, y, ins[2];

    assert_non_null(g);
    g->opset = 21;
    g->ir_version = 10;
    in.dim[is_conv ? 1 : in.rank - 1] = k->axis == 0 ? k->shape.dim[1] : k->shape.dim[0];
    x = graph_add_value(g, "x", DT_F32, &in);
    y = graph_add_value(g, "y", DT_F32, NULL);
    w = weight_emit(g, 0, "layer", &s->w);
    assert_true(x >= 0 && y >= 0 && w >= 0);
    ins[0] = x;
    ins[1] = w;
    assert_int_equal(graph_add_input(g, x), 0);
    assert_int_equal(graph_add_output(g, y), 0);
    *ret_node = graph_insert_node(g, g->n_nodes, is_conv ? "Conv" : "MatMul", "layer", ins, 2, &y, 1);
    assert_true(*ret_node >= 0);
    assert_int_equal(graph_finish(g, NULL), 0);
    *ret_node = graph_find_node(g, "layer");
    return g;
}

/* Symmetric codes have no lowest number: -8 of four bits is -7 afterwards. */
static bool is_lowest(const struct sample_kind *k, float want, float have) {
    float most = !strcmp(k->code->name, "s4") ? 7 : !strcmp(k->code->name, "s8") ? 127 : 0;

    return most > 0 && fabsf(have * (most + 1) - want * most) <= 0.005f * fabsf(want * most);
}

static void check_same(struct graph *a, struct graph *b, const struct sample_kind *k) {
    const struct weight *wa = NULL, *wb = NULL;
    float want[SAMPLE_MAX], have[SAMPLE_MAX];

    assert_int_equal(weight_match(a, a->nodes[graph_find_node(a, "layer")].in[1], &wa, NULL, NULL), 0);
    assert_int_equal(weight_match(b, b->nodes[graph_find_node(b, "layer")].in[1], &wb, NULL, NULL), 0);
    assert_non_null(wa);
    assert_non_null(wb);
    assert_ptr_equal(wa->structure, wb->structure);
    assert_ptr_equal(wa->code, wb->code);
    assert_ptr_equal(wa->scales, wb->scales);
    assert_int_equal(weight_count_stored(wa), weight_count_stored(wb));
    assert_int_equal(weight_decode(wa, want, NULL), 0);
    assert_int_equal(weight_decode(wb, have, NULL), 0);
    for (int64_t i = 0; i < wa->rows * wa->cols; i++)
        if (fabsf(want[i] - have[i]) > 0.005f * fabsf(want[i]) && !is_lowest(k, want[i], have[i]))
            fail_msg("%s %s %s: weight %lld was %g and is %g", k->structure->name, k->code->name,
                k->scales->name, (long long)i, (double)want[i], (double)have[i]);
}

static int n_closed;

/* The operator's channels are those of the scales in whatever a method writes. */
static bool is_usual(const struct sample_kind *k) {
    bool is_conv = k->shape.rank > 2;

    return k->shape.rank >= 2 && k->shape.rank <= 4 && k->shape.rank != 3 && k->axis == (is_conv ? 0 : 1);
}

static void open_and_close(struct sample *s, const struct sample_kind *k) {
    _cleanup_(trainable_freep) struct trainable *t = NULL;
    _cleanup_(graph_freep) struct graph *g = NULL, *closed = NULL;
    struct error err = {0};
    int node, r;

    if (!is_usual(k) || !weight_is_encoded(&s->w))
        return;
    g = net_of(s, k, &node);
    r = trainable_open(g, NULL, &t, &err);
    if (r < 0) { /* said by name, and nothing else */
        assert_string_equal(err.code, "method_not_applicable");
        assert_non_null(strstr(err.text, "layer"));
        return;
    }
    if (!trainable_is_encoded(t))
        fail_msg("%s %s %s of rank %d is not seen", k->structure->name, k->code->name, k->scales->name,
            k->shape.rank);
    /* transforms make of decoded weights what the form says: codes outside their range are none of ours */
    r = trainable_close(t, trainable_graph(t), &closed, &err);
    if (r < 0)
        fail_msg("%s %s %s: %s", k->structure->name, k->code->name, k->scales->name, err.text);
    n_closed++;
    check_same(g, closed, k);
}

static void test_forms_come_back_as_they_were(void **state) {
    (void)state;
    n_closed = 0;
    sample_each(open_and_close);
    assert_true(n_closed > 20);
}

static void test_zeros_of_a_pruned_layer_are_a_mask(void **state) {
    _cleanup_(trainable_freep) struct trainable *t = NULL, *dense = NULL;
    struct graph *g = net_text_read("Flatten x=1x1x4x4; Gemm $ w=16x3 b=3").graph;
    struct learn_run run = {0};
    float *w = NULL;

    (void)state;
    assert_int_equal(trainable_open(g, NULL, &dense, NULL), 0);
    trainable_run(dense, &run);
    assert_int_equal(run.n_weights, 0);
    for (size_t v = 0; v < g->n_values; v++)
        if (g->values[v].init && g->values[v].init->shape.rank == 2 && g->values[v].init->dtype == DT_F32)
            w = g->values[v].init->data;
    assert_non_null(w);
    for (int i = 0; i < 12; i++)
        w[4 * i] = 0;
    assert_int_equal(trainable_open(g, NULL, &t, NULL), 0);
    trainable_run(t, &run);
    assert_int_equal(run.n_weights, 1);
    assert_ptr_equal(run.weights[0].row, transform_find("mask"));
    assert_false(trainable_is_encoded(t));
    graph_free(g);
}

static void test_books_take_their_entries_and_ints_their_scales(void **state) {
    struct sample s;
    const struct sample_kind k = {weight_structure_find("dense"), weight_code_find("lut2"),
        weight_scales_find("channel"), {.rank = 2, .dim = {8, 4}}, 1, false};
    float entries[4] = {-2, 0, 1, 254}, have[32];
    const struct weight *w = NULL;
    struct graph *g;
    float *scale = NULL;
    int64_t n = 0;
    int node;

    (void)state;
    assert_true(sample_init(&s, &k));
    g = net_of(&s, &k, &node);
    assert_int_equal(
        recode_layer(g, node, &s.w, NULL, &(struct recode_options){.entries = entries}, &scale, &n, NULL), 0);
    assert_int_equal(n, 4);
    assert_int_equal(graph_finish(g, NULL), 0);
    assert_int_equal(weight_match(g, g->nodes[graph_find_node(g, "layer")].in[1], &w, NULL, NULL), 0);
    assert_int_equal(weight_decode(w, have, NULL), 0);
    for (int i = 0; i < 32; i++) { /* 254 is 127 steps of 2: the others are rounded to such steps */
        float code = s.want[i] / s.scale[i % 4], is = have[i] / s.scale[i % 4];

        (void)code;
        assert_true(fabsf(is - 254) < 1e-3f || fabsf(is + 2) < 1e-3f || fabsf(is) < 1e-3f);
        assert_true(fabsf(scale[i % 4] - 2 * s.scale[i % 4]) < 1e-6f);
    }
    free(scale);
    graph_free(g);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_forms_come_back_as_they_were),
        cmocka_unit_test(test_zeros_of_a_pruned_layer_are_a_mask),
        cmocka_unit_test(test_books_take_their_entries_and_ints_their_scales),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
