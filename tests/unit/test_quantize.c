/* Rounding weights, by themselves and in whole nets. */
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "compress/adaround.h"
#include "compress/equalize.h"
#include "compress/fold.h"
#include "compress/probe.h"
#include "compress/quantize.h"
#include "engine/pass.h"
#include "engine/weight.h"
#include "tests/unit/cmocka_all.h"
#include "tests/unit/net_text.h"
#include "tests/unit/outputs.h"

#define N_SAMPLES 64

static const char small_net[] =
    "Conv x=1x3x8x8 w=8x3x3x3 b=8 pads=1,1,1,1; Relu $; Conv $ w2=8x1x3x3 b2=8 pads=1,1,1,1 group=8; Relu $; "
    "Conv $ w3=12x8x1x1 b3=12; Relu $; GlobalAveragePool $; Flatten $; Gemm $ w4=5x12 b4=5 .transB=1";

static int read_samples(void *ctx, int64_t first, int64_t count, float *ret, struct error *err) {
    const int64_t *item = ctx;

    (void)err;
    for (int64_t i = 0; i < count; i++)
        net_text_fill(ret + i * *item, *item, 77 + (uint32_t)(first + i));
    return 0;
}

/* A net, its parent, and samples for it. */
struct bench {
    struct graph *parent;
    struct work work;
    struct samples samples;
    int64_t item;
};

static void bench_start(struct bench *b, const char *net) {
    struct net_text text = net_text_read(net), other = net_text_read(net);

    *b = (struct bench){.parent = other.graph,
        .samples = {.n = N_SAMPLES, .item = text.input[0], .read = read_samples, .ctx = &b->item}};
    b->work = (struct work){.graph = text.graph, .samples = &b->samples, .seed = 1};
    shape_count(&b->samples.item, &b->item);
    b->parent->values[b->parent->inputs[0]].shape.dim[0] = -1;
    text.graph->values[text.graph->inputs[0]].shape.dim[0] = -1;
}

static void bench_done(struct bench *b) {
    graph_free(b->work.graph);
    graph_free(b->parent);
}

static struct quantize_options defaults(void) {
    struct quantize_options o = {0};

    assert_int_equal(param_defaults(&quantize_table, &o, NULL), 0);
    return o;
}

/* Runs the scheme; returns its report. */
static json_t *quantize(struct bench *b, const struct quantize_options *o) {
    json_t *report = json_object();
    struct error err = {0};
    int r = method_quantize.apply(&b->work, o, NULL, report, &err);

    if (r < 0)
        print_error("%s\n", err.text);
    assert_int_equal(r, 0);
    assert_true(graph_drop_unused(b->work.graph) >= 0);
    return report;
}

static void test_codes_of_all_bits_come_back_from_the_graph(void **state) {
    (void)state;
    for (int bits = 2; bits <= 8; bits++)
        for (int per_channel = 0; per_channel < 2; per_channel++) {
            struct net_text text = net_text_read("Conv x=1x3x8x8 w=6x3x3x3 b=6");
            struct graph *g = text.graph;
            struct node *n = &g->nodes[0];
            const float *w = g->values[n->in[1]].init->data;
            struct weight_rounding o = {.bits = bits, .per_channel = per_channel, .group = 1};
            struct quantized_weights q = {0};
            struct weight_rows rows;
            const struct weight *found = NULL;
            float back[6 * 27];
            double error = 0, all = 0;
            int value;

            assert_int_equal(weight_rows_of(g, n, &rows, NULL), 0);
            assert_int_equal(quantize_weights(w, &rows, &o, &q, NULL), 0);
            value = quantize_codes_emit(g, "w", &rows, &q, NULL);
            assert_true(value >= 0);
            n->in[1] = value;
            assert_int_equal(graph_finish(g, NULL), 0);
            assert_int_equal(weight_match(g, value, &found, NULL, NULL), 0);
            assert_non_null(found);
            assert_string_equal(weight_form_name(found), quantize_codes_form(bits));
            assert_int_equal(found->code->bits, bits);
            assert_int_equal(weight_check(found, NULL), 0);
            assert_int_equal(weight_decode(found, back, NULL), 0);
            for (int i = 0; i < 6 * 27; i++) {
                assert_true(q.q[i] >= quantized_least(bits) && q.q[i] <= quantized_most(bits));
                assert_true(back[i] == q.scale[per_channel ? i / 27 : 0] * (float)q.q[i]);
                error += (double)(w[i] - back[i]) * (double)(w[i] - back[i]);
                all += (double)w[i] * (double)w[i];
            }
            /* uniform numbers in [-1, 1): the error of steps of 2 / 2^bits is 1 / 4^bits of a third */
            assert_true(error / all < 2 / pow(4, bits));
            quantized_weights_done(&q);
            graph_free(g);
        }
}

static void test_blocks_of_a_matrix_have_scales_of_their_own(void **state) {
    static const char *const nets[] = {"Gemm x=1x64 w=6x64 b=6 .transB=1", "MatMul x=1x64 w=64x6"};

    (void)state;
    for (int i = 0; i < 2; i++) {
        struct bench b;
        struct quantize_options o = defaults();
        const struct weight *found = NULL;
        json_t *report;

        o.scheme = QUANTIZE_INT4;
        bench_start(&b, nets[i]);
        report = quantize(&b, &o);
        assert_int_equal(b.work.graph->opset, 21);
        assert_int_equal(weight_match(b.work.graph, b.work.graph->nodes[b.work.graph->n_nodes - 1].in[1],
                             &found, NULL, NULL),
            0);
        assert_non_null(found);
        assert_int_equal(found->group, 32);
        assert_int_equal(found->codes->dtype, DT_S4);
        assert_true(outputs_relative_distance(b.work.graph, b.parent, &b.samples) < 0.1);
        json_decref(report);
        bench_done(&b);
    }
}

static void test_fewer_bits_are_further_from_the_parent(void **state) {
    double before = 0;

    (void)state;
    for (int bits = 8; bits >= 2; bits -= 2) {
        struct bench b;
        struct quantize_options o = defaults();
        double d;

        o.scheme = QUANTIZE_FIXED;
        o.bits = bits;
        bench_start(&b, small_net);
        json_decref(quantize(&b, &o));
        d = outputs_relative_distance(b.work.graph, b.parent, &b.samples);
        assert_true(d > before);
        assert_true(d < 0.6);
        before = d;
        bench_done(&b);
    }
}

/* Inputs that hang together, as pixels do: x_i = common + own. */
static void test_rounding_up_or_down_beats_the_nearest(void **state) {
    enum { ROWS = 4, K = 48 };
    float w[ROWS * K], s[ROWS * K], g[K * K], c[ROWS * K] = {0};
    struct adaround_problem p = {
        .rows = ROWS, .k = K, .least = -8, .most = 7, .w = w, .s = s, .g = g, .c = c, .iterations = 500};
    double before, after, wanted = 0;
    int8_t q[ROWS * K];

    (void)state;
    net_text_fill(w, ROWS * K, 5);
    for (int i = 0; i < K * K; i++)
        g[i] = 1 + (i / K == i % K);
    for (int i = 0; i < ROWS * K; i++) {
        s[i] = 1.0f / 7;
        q[i] = (int8_t)nearbyintf(w[i] / s[i]);
        for (int k = 0; k < K; k++)
            c[i] += w[i / K * K + k] * g[k * K + i % K];
    }
    for (int i = 0; i < ROWS * K; i++)
        wanted += (double)w[i] * (double)c[i];
    assert_int_equal(adaround_solve(&p, q, &before, &after, NULL), 0);
    /* errors are without the outputs' own moment */
    assert_true(before + wanted > 0);
    assert_true(after + wanted < 0.75 * (before + wanted));
    for (int i = 0; i < ROWS * K; i++)
        assert_true(fabsf((float)q[i] - w[i] / s[i]) <= 1.001f && q[i] >= -8 && q[i] <= 7);
}

static void test_adaround_is_nearer_to_the_parent_with_the_same_bits(void **state) {
    double d[2];

    (void)state;
    for (int i = 0; i < 2; i++) {
        struct bench b;
        struct quantize_options o = defaults();
        json_t *report, *rows;

        o.scheme = QUANTIZE_FIXED;
        o.bits = 3;
        o.adaround = i;
        o.activations = ACTIVATIONS_FLOAT;
        bench_start(&b, small_net);
        report = quantize(&b, &o);
        rows = json_object_get(report, "adaround");
        assert_int_equal(json_array_size(rows), i ? 4 : 0);
        for (size_t k = 0; k < json_array_size(rows); k++) {
            const json_t *row = json_array_get(rows, k);

            assert_null(json_object_get(row, "reason"));
            assert_true(json_real_value(json_object_get(row, "error")) <=
                        json_real_value(json_object_get(row, "error_nearest")));
        }
        d[i] = outputs_relative_distance(b.work.graph, b.parent, &b.samples);
        json_decref(report);
        bench_done(&b);
    }
    assert_true(d[1] < 0.8 * d[0]);
}

/* Channels of very different ranges, in a chain with a depthwise convolution, pools and a Flatten. */
static void test_an_equalised_network_computes_the_same(void **state) {
    static const char *const nets[] = {small_net,
        "Conv x=1x3x8x8 w=8x3x3x3 b=8; PRelu $ s=8x1x1; MaxPool $ kernel_shape=2,2 strides=2,2; Flatten $; "
        "Gemm $ w2=6x72 b2=6 .transB=1; LeakyRelu $ alpha=0.1; Gemm $ w3=6x4 b3=4"};

    (void)state;
    for (int i = 0; i < 2; i++) {
        struct bench b;
        struct error err = {0};
        json_t *report = json_object();
        float *w, least = INFINITY, most = 0;
        int last;

        bench_start(&b, nets[i]);
        /* one channel of the first layer is a thousand times larger than the others, its bias with it */
        for (int k = 0; k < 2; k++) {
            struct graph *g = k ? b.parent : b.work.graph;

            w = g->values[g->nodes[0].in[1]].init->data;
            for (int c = 0; c < 27; c++)
                w[27 + c] *= 1000;
        }
        assert_int_equal(fold_infer_shapes(b.work.graph, &b.samples.item, NULL), 0);
        assert_int_equal(equalize(b.work.graph, &b.samples, report, &err), 0);
        last = (int)json_array_size(json_object_get(report, "equalized"));
        assert_int_equal(last, i ? 2 : 3);
        assert_true(outputs_relative_distance(b.work.graph, b.parent, &b.samples) < 1e-5);
        w = b.work.graph->values[b.work.graph->nodes[0].in[1]].init->data;
        for (int c = 0; c < 8; c++) {
            float largest = 0;

            for (int k = 0; k < 27; k++)
                largest = fmaxf(largest, fabsf(w[c * 27 + k]));
            least = fminf(least, largest);
            most = fmaxf(most, largest);
        }
        assert_true(most / least < 200); /* it was a thousand and more */
        json_decref(report);
        bench_done(&b);
    }
}

/* 0 to 6 lets no factor through, unless it clips nothing that is seen. */
static void test_relu6_is_equalised_only_where_it_clips_nothing(void **state) {
    static const char *const nets[] = {
        "Conv x=1x3x8x8 w=4x3x3x3; Clip $ low:0 high:6; Conv $ w2=4x4x1x1",
        "Conv x=1x3x8x8 w=4x3x3x3; Clip $ low:0 high:0.01; Conv $ w2=4x4x1x1",
    };

    (void)state;
    for (int i = 0; i < 2; i++) {
        struct bench b;
        json_t *report = json_object();

        bench_start(&b, nets[i]);
        assert_int_equal(fold_infer_shapes(b.work.graph, &b.samples.item, NULL), 0);
        assert_int_equal(equalize(b.work.graph, &b.samples, report, NULL), 0);
        assert_int_equal(json_array_size(json_object_get(report, "equalized")), i ? 0 : 1);
        assert_true(outputs_relative_distance(b.work.graph, b.parent, &b.samples) < 1e-5);
        json_decref(report);
        bench_done(&b);
    }
}

/* 432, 9,216, 4,096 and 320 weights, and 149 scales of 4 bytes; tables of packed codes take 512 or 1,024. */
static const char larger_net[] =
    "Conv x=1x3x8x8 w=16x3x3x3 b=16 pads=1,1,1,1; Relu $; Conv $ w2=64x16x3x3 b2=64 pads=1,1,1,1; Relu $; "
    "Conv $ w3=64x64x1x1 b3=64; Relu $; GlobalAveragePool $; Flatten $; Gemm $ w4=5x64 b4=5 .transB=1";

#define LARGER_WEIGHTS 14064

static void test_mixed_bits_meet_the_bytes(void **state) {
    static const double budgets[] = {0.25, 0.2, 0.12};
    double before = 0;

    (void)state;
    for (int i = 0; i < 3; i++) {
        struct bench b;
        struct quantize_options o = defaults();
        json_t *report;
        json_int_t bytes;
        double d;

        o.scheme = QUANTIZE_MIXED;
        o.has_budget = true;
        o.budget.bytes = budgets[i];
        o.activations = ACTIVATIONS_FLOAT;
        bench_start(&b, larger_net);
        report = quantize(&b, &o);
        bytes = json_integer_value(json_object_get(report, "weight_bytes"));
        assert_int_equal(
            json_integer_value(json_object_get(report, "weight_bytes_before")), 4 * LARGER_WEIGHTS);
        assert_true(bytes <= (json_int_t)(budgets[i] * 4 * LARGER_WEIGHTS));
        d = outputs_relative_distance(b.work.graph, b.parent, &b.samples);
        assert_true(d >= before && d < 1);
        before = d;
        json_decref(report);
        bench_done(&b);
    }
}

static void test_a_budget_that_cannot_be_met_says_what_can(void **state) {
    struct bench b;
    struct quantize_options o = defaults();
    struct error err = {0};
    json_t *report = json_object();

    (void)state;
    o.scheme = QUANTIZE_MIXED;
    o.has_budget = true;
    o.budget.bytes = 0.05;
    bench_start(&b, larger_net);
    assert_true(method_quantize.apply(&b.work, &o, NULL, report, &err) < 0);
    assert_string_equal(err.code, "requirement_not_met");
    /* 432 and 320 of 8 bits, 2,304 and 1,024 of 2 bits with their tables, 596 of scales */
    assert_non_null(strstr(err.text, "the least is 6724 ("));
    json_decref(report);
    bench_done(&b);
    o.budget.bytes = 0;
    assert_true(method_quantize.check(&o, &err) < 0);
}

static void test_the_same_seed_gives_the_same_weights(void **state) {
    (void)state;
    for (int scheme = 0; scheme < 2; scheme++) {
        struct bench b[2];

        for (int i = 0; i < 2; i++) {
            struct quantize_options o = defaults();

            o.scheme = scheme ? QUANTIZE_MIXED : QUANTIZE_FIXED;
            o.adaround = o.equalize = true;
            o.has_budget = true;
            o.budget.bytes = 0.2;
            bench_start(&b[i], larger_net);
            json_decref(quantize(&b[i], &o));
        }
        assert_true(outputs_relative_distance(b[0].work.graph, b[1].work.graph, &b[0].samples) == 0);
        assert_int_equal(b[0].work.graph->n_values, b[1].work.graph->n_values);
        for (size_t v = 0; v < b[0].work.graph->n_values; v++) {
            const struct tensor *x = b[0].work.graph->values[v].init, *y = b[1].work.graph->values[v].init;
            size_t size;

            assert_int_equal(!x, !y);
            if (x && shape_bytes(&x->shape, x->dtype, &size))
                assert_memory_equal(x->data, y->data, size);
        }
        bench_done(&b[0]);
        bench_done(&b[1]);
    }
}

static int read_grey(void *ctx, int64_t first, int64_t count, float *ret, struct error *err) {
    const int64_t *item = ctx;

    (void)err;
    for (int64_t i = 0; i < count * *item; i++)
        ret[i] = (float)(first + i / *item % count) + 0.5f;
    return 0;
}

static void test_data_that_cannot_tell_are_warned_of(void **state) {
    static const struct {
        bool is_grey, is_free;
        const char *warnings;
    } cases[] = {{false, false, "[]"}, {true, false, "[\"calibrated_on_one_colour\"]"},
        {false, true, "[\"other_sizes_not_calibrated\"]"},
        {true, true, "[\"calibrated_on_one_colour\", \"other_sizes_not_calibrated\"]"}};

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct bench b;
        struct quantize_options o = defaults();
        json_t *report;
        char *text;

        bench_start(&b, small_net);
        if (cases[i].is_grey)
            b.samples.read = read_grey;
        for (int k = 2; cases[i].is_free && k < 4; k++)
            b.work.graph->values[b.work.graph->inputs[0]].shape.dim[k] = -1;
        report = quantize(&b, &o);
        text = json_dumps(json_object_get(report, "warnings"), 0);
        assert_string_equal(text, cases[i].warnings);
        free(text);
        json_decref(report);
        bench_done(&b);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_codes_of_all_bits_come_back_from_the_graph),
        cmocka_unit_test(test_blocks_of_a_matrix_have_scales_of_their_own),
        cmocka_unit_test(test_fewer_bits_are_further_from_the_parent),
        cmocka_unit_test(test_rounding_up_or_down_beats_the_nearest),
        cmocka_unit_test(test_data_that_cannot_tell_are_warned_of),
        cmocka_unit_test(test_an_equalised_network_computes_the_same),
        cmocka_unit_test(test_relu6_is_equalised_only_where_it_clips_nothing),
        cmocka_unit_test(test_mixed_bits_meet_the_bytes),
        cmocka_unit_test(test_a_budget_that_cannot_be_met_says_what_can),
        cmocka_unit_test(test_the_same_seed_gives_the_same_weights),
        cmocka_unit_test(test_adaround_is_nearer_to_the_parent_with_the_same_bits),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
