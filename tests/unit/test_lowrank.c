/* Low-rank approximation: the parts are the layer, the ranks are what they say, samples help, and the dry run
 * tells the truth. */
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "compress/chance.h"
#include "compress/linalg.h"
#include "compress/lowrank_plan.h"
#include "compress/probe.h"
#include "compress/recipe.h"
#include "engine/summary.h"
#include "tests/unit/cmocka_all.h"
#include "tests/unit/net_text.h"
#include "tests/unit/outputs.h"

static void fill(double *x, int64_t n, uint64_t key) {
    for (int64_t i = 0; i < n; i++)
        x[i] = chance_between(chance_key(7, key, 0), (uint64_t)i, -1, 1);
}

/* About normal: twelve uniform numbers. */
static double normal(uint64_t key, int64_t i) {
    double sum = -6;

    for (uint64_t k = 0; k < 12; k++)
        sum += chance_unit(key, (uint64_t)i * 12 + k);
    return sum;
}

/* ---- samples and outputs ---- */

/* Channels that hang together, so that inputs have directions that matter more than others. */
static int read_samples(void *ctx, int64_t first, int64_t count, float *ret, struct error *err) {
    const struct shape *item = ctx;
    int64_t channels = item->dim[1], n = 1;

    (void)err;
    for (int i = 2; i < item->rank; i++)
        n *= item->dim[i];
    for (int64_t s = 0; s < count; s++)
        for (int64_t c = 0; c < channels; c++)
            for (int64_t i = 0; i < n; i++) {
                uint64_t key = chance_key(3, (uint64_t)(first + s), (uint64_t)i);

                *ret++ = (float)(chance_between(key, (uint64_t)(c % 3), -1, 1) * (1 + (double)(c % 3)) +
                                 0.1 * chance_between(key, (uint64_t)c + 50, -1, 1) + 0.5);
            }
    return 0;
}

static struct samples samples_of(struct shape *item, int64_t n) {
    item->dim[0] = 1;
    return (struct samples){.n = n, .item = *item, .read = read_samples, .ctx = item};
}

static struct graph *net_of(const char *text) {
    struct graph *g = net_text_read(text).graph;

    g->values[g->inputs[0]].shape.dim[0] = -1;
    return g;
}

/* The steps on a network of this text; *ret_report: of the first step. */
static struct graph *run_steps(
    const char *net, const char *steps, const struct samples *s, json_t **ret_report) {
    struct work work = {.graph = net_of(net), .samples = s, .seed = 5};
    json_auto_t *list = json_loads(steps, 0, NULL), *reports = NULL;
    _cleanup_(recipe_freep) struct recipe *recipe = NULL;
    struct error err = {0};

    assert_non_null(list);
    if (recipe_new(list, &recipe, &err) < 0 || recipe_run(recipe, &work, NULL, &reports, &err) < 0)
        fail_msg("%s", err.text);
    if (ret_report)
        *ret_report = json_incref(json_array_get(reports, 0));
    return work.graph;
}

static json_t *plan_steps(const char *net, const char *steps, bool has_data, struct error *err) {
    _cleanup_(graph_freep) struct graph *g = net_of(net);
    json_auto_t *list = json_loads(steps, 0, NULL);
    _cleanup_(recipe_freep) struct recipe *recipe = NULL;
    json_t *plan = NULL;

    assert_non_null(list);
    if (recipe_new(list, &recipe, err) < 0 || recipe_plan(recipe, g, has_data, &plan, err) < 0)
        return NULL;
    return plan;
}

static struct lowrank_layer layer_of(const struct graph *g) {
    struct shape in[NET_TEXT_MAX_INPUTS];
    struct shapes shapes;
    struct lowrank_layer l;
    const char *reason = NULL;

    shapes_sample(g, 1, 8, in);
    assert_int_equal(shapes_infer(g, in, &shapes, NULL), 0);
    assert_int_equal(lowrank_layer_read(g, 0, &shapes, &l, &reason, NULL), 0);
    shapes_done(&shapes);
    assert_null(reason);
    return l;
}

/* ---- the parts are the layer ---- */

static const struct {
    const char *net;
    int decomposition;
    int64_t rank[2];
} chains[] = {
    {"Conv x=2x5x9x8 w=7x5x3x3 b=7 pads=1,1,1,1", LOWRANK_TUCKER2, {3, 4}},
    {"Conv x=2x5x9x8 w=7x5x3x3 b=7 pads=1,0,2,1 strides=2,1", LOWRANK_TUCKER2, {2, 3}},
    {"Conv x=2x5x12x9 w=7x5x3x3 dilations=2,3 pads=2,3,1,0", LOWRANK_TUCKER2, {2, 3}},
    {"Conv x=2x5x9x8 w=7x5x3x3 b=7 auto_pad=SAME_UPPER strides=2,2", LOWRANK_TUCKER2, {2, 3}},
    {"Conv x=2x5x9 w=7x5x3 b=7 pads=1,1", LOWRANK_TUCKER2, {2, 3}},
    {"Conv x=2x5x9x8 w=7x5x3x5 b=7 pads=1,0,2,1 strides=2,3", LOWRANK_SPATIAL, {4}},
    {"Conv x=2x5x12x9 w=7x5x3x3 dilations=2,3 pads=2,3,1,0", LOWRANK_SPATIAL, {4}},
    {"Conv x=2x5x9x8 w=7x5x3x3 auto_pad=SAME_LOWER strides=2,2", LOWRANK_SPATIAL, {4}},
    {"Conv x=2x5x9x8 w=7x5x3x2 b=7 auto_pad=VALID", LOWRANK_SPATIAL, {4}},
    {"Conv x=2x5x9x8 w=7x5x3x3 b=7 pads=1,0,2,1 strides=2,1", LOWRANK_CHANNEL, {4}},
    {"Conv x=2x5x9x8 w=7x5x3x5 b=7 pads=1,0,2,1 strides=2,3", LOWRANK_CP, {6}},
    {"Conv x=2x5x12x9 w=7x5x3x3 dilations=2,3 pads=2,3,1,0", LOWRANK_CP, {6}},
    {"Conv x=2x5x9x8 w=7x5x1x1 b=7 strides=2,2 pads=1,1,0,0", LOWRANK_SVD, {3}},
    {"Gemm x=4x6 w=9x6 b=9 transB=1 alpha=0.5 beta=2.0", LOWRANK_SVD, {3}},
    {"Gemm x=4x6 w=6x9 b=1x9 beta=0.5", LOWRANK_SVD, {3}},
    {"opset 9; Gemm x=4x6 w=6x9 b=9", LOWRANK_SVD, {3}},
    {"MatMul x=4x3x6 w=6x9", LOWRANK_SVD, {3}},
};

/* The weights that the factors stand for, in the layer; and the parts: two networks that must agree. */
static void check_chain(const char *net, const struct lowrank_choice *c) {
    struct net_text a = net_text_read(net), b = net_text_read(net);
    _cleanup_(graph_freep) struct graph *whole = a.graph, *parts = b.graph;
    _cleanup_(lowrank_factors_done) struct lowrank_factors f = {0};
    struct lowrank_layer l = layer_of(whole);
    struct lowrank_part part[LOWRANK_MAX_PARTS];
    _cleanup_(freep) double *w = linalg_new(l.outputs, l.inputs * l.taps);
    const struct node *n = &whole->nodes[0];
    bool is_turned = !l.is_conv && !node_attr_int(n, "transB", 0);
    double alpha = l.is_conv ? 1 : (double)node_attr_float(n, "alpha", 1);
    float *to = whole->values[n->in[1]].init->data;
    struct samples s = samples_of(&a.input[0], 3);
    struct error err = {0};

    assert_int_equal(lowrank_factors_init(&l, c, &f, &err), 0);
    for (int k = 0; k < lowrank_parts(&l, c, part); k++)
        fill(f.part[k], lowrank_part_params(&l, &part[k]), (uint64_t)k);
    assert_int_equal(lowrank_compose(&l, &f, w, &err), 0);
    for (int64_t o = 0; o < l.outputs; o++)
        for (int64_t i = 0; i < l.inputs * l.taps; i++)
            to[is_turned ? i * l.outputs + o : o * l.inputs * l.taps + i] =
                (float)(w[o * l.inputs * l.taps + i] / alpha);
    assert_int_equal(lowrank_replace(parts, &l, &f, NULL, &err), 0);
    if (graph_finish(parts, &err) < 0)
        fail_msg("%s: %s", net, err.text);
    whole->values[whole->inputs[0]].shape.dim[0] = parts->values[parts->inputs[0]].shape.dim[0] = -1;
    if (!(outputs_relative_distance(parts, whole, &s) < 2e-6))
        fail_msg("%s as %s: the parts are not the layer", net, lowrank_decompositions[c->decomposition]);
}

static void test_parts_compute_what_the_layer_would(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof(chains) / sizeof(chains[0]); i++)
        check_chain(chains[i].net,
            &(struct lowrank_choice){chains[i].decomposition, {chains[i].rank[0], chains[i].rank[1]}});
}

static void test_macs_of_parts_are_those_of_the_network(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof(chains) / sizeof(chains[0]); i++) {
        _cleanup_(graph_freep) struct graph *g = net_text_read(chains[i].net).graph;
        _cleanup_(lowrank_factors_done) struct lowrank_factors f = {0};
        _cleanup_(summary_freep) struct summary *before = NULL, *after = NULL;
        struct lowrank_choice c = {chains[i].decomposition, {chains[i].rank[0], chains[i].rank[1]}};
        struct lowrank_layer l = layer_of(g);
        int64_t params;

        assert_int_equal(summary_new(g, &before, NULL), 0);
        assert_int_equal(l.macs, before->macs);
        params = before->parameters - l.outputs * l.inputs * l.taps;
        assert_int_equal(lowrank_factors_init(&l, &c, &f, NULL), 0);
        assert_int_equal(lowrank_replace(g, &l, &f, NULL, NULL), 0);
        assert_int_equal(graph_finish(g, NULL), 0);
        assert_int_equal(summary_new(g, &after, NULL), 0);
        assert_int_equal(lowrank_macs(&l, &c), after->macs);
        if (g->opset >= 11) /* before it the first Gemm has a bias of zeros */
            assert_int_equal(params + lowrank_params(&l, &c), after->parameters);
    }
}

/* ---- decompositions of weights ---- */

static struct lowrank_layer box(int64_t outputs, int64_t inputs, int64_t kh, int64_t kw) {
    return (struct lowrank_layer){.id = "box",
        .is_conv = true,
        .outputs = outputs,
        .inputs = inputs,
        .taps = kh * kw,
        .n_dims = 2,
        .kernel = {kh, kw},
        .in_size = {8, 8},
        .out_size = {8, 8},
        .rows = 1,
        .macs = outputs * inputs * kh * kw * 64};
}

/* |gain (w - w')| / |gain w| */
static double error_of(const struct lowrank_input *in, const struct lowrank_choice *c) {
    _cleanup_(lowrank_factors_done) struct lowrank_factors f = {0};
    int64_t width = in->layer->inputs * in->layer->taps;
    _cleanup_(freep) double *made = linalg_new(in->layer->outputs, width);
    double sum = 0, all = 0;
    struct error err = {0};

    assert_int_equal(lowrank_factors_init(in->layer, c, &f, &err), 0);
    if (lowrank_decompose(in, &f, &err) < 0 || lowrank_compose(in->layer, &f, made, &err) < 0)
        fail_msg("%s", err.text);
    for (int64_t i = 0; i < in->layer->outputs * width; i++) {
        double gain = in->gain ? in->gain[i / width] : 1;

        sum += pow(gain * (in->w[i] - made[i]), 2);
        all += pow(gain * in->w[i], 2);
    }
    return sqrt(sum / all);
}

static void test_full_ranks_lose_nothing(void **state) {
    struct lowrank_layer some[] = {box(6, 5, 3, 3), box(12, 2, 3, 2), box(3, 40, 3, 3), box(40, 3, 1, 3)};
    const int all[] = {LOWRANK_TUCKER2, LOWRANK_SPATIAL, LOWRANK_CHANNEL};

    (void)state;
    for (size_t i = 0; i < sizeof(some) / sizeof(some[0]); i++)
        for (size_t k = 0; k < 3; k++) {
            _cleanup_(freep) double *w = linalg_new(some[i].outputs, some[i].inputs * some[i].taps);
            struct lowrank_input in = {.layer = &some[i], .w = w, .sweeps = 2};
            struct lowrank_choice c = {.decomposition = all[k]};

            fill(w, some[i].outputs * some[i].inputs * some[i].taps, i);
            lowrank_full(&some[i], all[k], c.rank);
            assert_true(error_of(&in, &c) < 1e-12);
            c.rank[0]--;
            assert_true(error_of(&in, &c) > 1e-6);
        }
}

static void test_sweeps_of_hooi_never_lose(void **state) {
    struct lowrank_layer l = box(12, 10, 3, 3);
    _cleanup_(freep) double *w = linalg_new(12, 90);
    struct lowrank_choice c = {LOWRANK_TUCKER2, {4, 5}};
    double last = 2, first;

    (void)state;
    fill(w, 12 * 90, 4);
    first = error_of(&(struct lowrank_input){.layer = &l, .w = w}, &c);
    for (int sweeps = 0; sweeps < 5; sweeps++) {
        double e = error_of(&(struct lowrank_input){.layer = &l, .w = w, .sweeps = sweeps}, &c);

        assert_true(e <= last + 1e-12);
        last = e;
    }
    assert_true(last < first - 1e-4);
}

static void test_one_matrix_is_cut_as_well_as_can_be(void **state) {
    struct lowrank_layer l = box(8, 3, 2, 2);
    double w[8 * 12], gain[8], copy[8 * 12], u[64], s[8], vt[96], lost = 0, all = 0;
    struct lowrank_input in = {.layer = &l, .w = w, .gain = gain};

    (void)state;
    fill(w, 96, 1);
    for (int t = 0; t < 8; t++) {
        gain[t] = 0.5 + t;
        for (int i = 0; i < 12; i++)
            copy[t * 12 + i] = gain[t] * w[t * 12 + i];
    }
    assert_int_equal(linalg_svd(8, 12, copy, u, s, vt, NULL), 0);
    for (int k = 0; k < 8; k++) {
        lost += k >= 3 ? s[k] * s[k] : 0;
        all += s[k] * s[k];
    }
    assert_true(
        fabs(error_of(&in, &(struct lowrank_choice){LOWRANK_CHANNEL, {3}}) - sqrt(lost / all)) < 1e-9);
}

/* A sum of terms that is one is found again; and terms do not grow where there is no best sum. */
static void test_cp_finds_terms_and_keeps_them_small(void **state) {
    struct lowrank_layer l = box(9, 8, 3, 3);
    _cleanup_(freep) double *w = linalg_new(9, 72);
    _cleanup_(lowrank_factors_done) struct lowrank_factors made = {0}, f = {0};
    struct lowrank_choice c = {LOWRANK_CP, {4}}, more = {LOWRANK_CP, {6}};
    double term = 0, norm = 0;

    (void)state;
    assert_int_equal(lowrank_factors_init(&l, &c, &made, NULL), 0);
    for (int k = 0; k < 4; k++)
        fill(made.part[k], 4 * (k == 0 ? 8 : k == 3 ? 9 : 3), (uint64_t)k + 20);
    assert_int_equal(lowrank_compose(&l, &made, w, NULL), 0);
    assert_true(error_of(&(struct lowrank_input){.layer = &l, .w = w, .seed = 3}, &more) < 0.02);

    fill(w, 9 * 72, 8);
    assert_int_equal(lowrank_factors_init(&l, &more, &f, NULL), 0);
    assert_int_equal(lowrank_decompose(&(struct lowrank_input){.layer = &l, .w = w, .seed = 3}, &f, NULL), 0);
    for (int r = 0; r < 6; r++) {
        double square[4] = {0};

        for (int i = 0; i < 8; i++)
            square[0] += pow(f.part[0][r * 8 + i], 2);
        for (int i = 0; i < 3; i++) {
            square[1] += pow(f.part[1][r * 3 + i], 2);
            square[2] += pow(f.part[2][r * 3 + i], 2);
        }
        for (int i = 0; i < 9; i++)
            square[3] += pow(f.part[3][i * 6 + r], 2);
        term = fmax(term, sqrt(square[0] * square[1] * square[2] * square[3]));
    }
    for (int i = 0; i < 9 * 72; i++)
        norm += w[i] * w[i];
    assert_true(term < 3 * sqrt(norm));
}

/* ---- ranks ---- */

static void check_evbmf(int64_t n, int64_t cols, int64_t rank, double noise) {
    _cleanup_(freep) double *a = linalg_new(n, rank), *b = linalg_new(rank, cols), *m = linalg_new(n, cols),
                            *gram = linalg_new(n, n), *values = linalg_new(n, 1);

    for (int64_t i = 0; i < n * rank; i++)
        a[i] = normal(11, i);
    for (int64_t i = 0; i < rank * cols; i++)
        b[i] = normal(12, i);
    linalg_multiply(n, cols, rank, a, false, b, false, m);
    for (int64_t i = 0; i < n * cols; i++)
        m[i] += noise * normal(13, i);
    linalg_gram(n, cols, m, false, gram);
    assert_int_equal(linalg_eigenvalues(n, gram, values, NULL), 0);
    assert_int_equal(lowrank_evbmf(values, n, cols), rank);
}

static void test_evbmf_finds_the_rank_in_the_noise(void **state) {
    (void)state;
    check_evbmf(40, 200, 5, 0.5);
    check_evbmf(64, 576, 12, 1);
    check_evbmf(50, 50, 3, 0.1);
    check_evbmf(32, 64, 1, 0.3);
    check_evbmf(30, 90, 0, 1);
}

static void test_energy_is_what_is_kept(void **state) {
    struct lowrank_layer l = box(10, 6, 3, 3);
    _cleanup_(freep) double *w = linalg_new(10, 54);
    const int all[] = {LOWRANK_TUCKER2, LOWRANK_SPATIAL, LOWRANK_CHANNEL};

    (void)state;
    fill(w, 540, 6);
    for (size_t k = 0; k < 3; k++) {
        _cleanup_(lowrank_spectrum_done) struct lowrank_spectrum s = {0};
        struct lowrank_choice c = {.decomposition = all[k]};
        double lost;

        assert_int_equal(lowrank_spectrum_new(&l, all[k], w, &s, NULL), 0);
        for (int side = 0; side < s.n_sides; side++)
            c.rank[side] = lowrank_rank_of_energy(&s, side, 0.7);
        lost = pow(error_of(&(struct lowrank_input){.layer = &l, .w = w}, &c), 2);
        if (s.n_sides == 1)
            assert_true(fabs(1 - lost - lowrank_energy(&s, c.rank)) < 1e-9);
        else
            assert_true(1 - lost >= lowrank_energy(&s, c.rank) - 1e-9);
        c.rank[0]--;
        assert_true(lowrank_energy(&s, c.rank) < 0.7);
    }
}

/* ---- the method ---- */

#define NET                                                                                                   \
    "Conv x=1x8x10x10 w=16x8x3x3 b=16 pads=1,1,1,1; Relu $; Conv $ w2=16x16x3x3 b2=16 pads=1,1,1,1; Relu $; " \
    "Conv $ w3=32x16x1x1 strides=2,2; Relu $; GlobalAveragePool $; Flatten $; Gemm $ w4=32x40 b4=40"

#define ALL  "\"layers\":{\"include\":[\"y*\"]},\"break_even\":\"macs\",\"multiple\":2"
#define STEP "[{\"method\":\"lowrank\"," ALL ","

static struct samples net_samples(const char *net, struct shape *item) {
    struct net_text text = net_text_read(net);

    *item = text.input[0];
    graph_free(text.graph);
    return samples_of(item, 64);
}

static const struct {
    const char *decomposition, *rank;
} ways[] = {
    {"tucker2", "{\"ratio\":0.4}"},
    {"spatial", "{\"ratio\":0.4}"},
    {"channel", "{\"ratio\":0.4}"},
    {"cp", "{\"ratio\":0.4}"},
    {"svd", "{\"ratio\":0.6}"},
    {"tucker2", "{\"macs\":0.5}"},
};

static void test_samples_help_the_outputs(void **state) {
    _cleanup_(graph_freep) struct graph *parent = net_of(NET);
    struct shape item;
    struct samples s = net_samples(NET, &item);

    (void)state;
    for (size_t i = 0; i < sizeof(ways) / sizeof(ways[0]); i++) {
        double error[2];

        for (int aware = 0; aware < 2; aware++) {
            _cleanup_(graph_freep) struct graph *g = NULL;
            char steps[600];

            snprintf(steps, sizeof(steps), STEP "\"decomposition\":\"%s\",\"rank\":%s,\"data_aware\":%s}]",
                ways[i].decomposition, ways[i].rank, aware ? "true" : "false");
            g = run_steps(NET, steps, &s, NULL);
            error[aware] = outputs_relative_distance(g, parent, &s);
        }
        if (!(error[1] < 0.8 * error[0] && error[0] > 0))
            fail_msg("%s: %g with samples, %g without", ways[i].decomposition, error[1], error[0]);
    }
}

static void test_the_dry_run_tells_the_macs(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof(ways) / sizeof(ways[0]); i++) {
        _cleanup_(graph_freep) struct graph *g = NULL;
        _cleanup_(summary_freep) struct summary *now = NULL;
        json_auto_t *plan = NULL, *report = NULL;
        char steps[600];

        snprintf(steps, sizeof(steps), STEP "\"decomposition\":\"%s\",\"rank\":%s}]", ways[i].decomposition,
            ways[i].rank);
        plan = plan_steps(NET, steps, false, NULL);
        assert_non_null(plan);
        g = run_steps(NET, steps, NULL, &report);
        assert_int_equal(summary_new(g, &now, NULL), 0);
        assert_int_equal(json_integer_value(json_object_get(plan, "macs")), now->macs);
        assert_int_equal(json_integer_value(json_object_get(report, "macs")), now->macs);
        assert_true(now->macs < json_integer_value(json_object_get(plan, "macs_before")));
        if (strstr(ways[i].rank, "macs"))
            assert_true(now->macs * 2 <= json_integer_value(json_object_get(plan, "macs_before")));
    }
}

/* The step after sees the parts, under names that the layer's pattern matches. */
static void test_later_steps_are_planned_on_the_parts(void **state) {
    json_auto_t *plan = plan_steps(NET,
        STEP "\"rank\":{\"layers\":{\"y2\":[6,8]}}},"
             "{\"method\":\"encode\",\"layers\":{\"include\":[\"y2\"]},\"activations\":\"float\"}]",
        false, NULL);
    const json_t *affected = json_object_get(json_array_get(json_object_get(plan, "steps"), 1), "affected");
    static const char *const want[] = {"y2/v", "y2/core", "y2/u"};

    (void)state;
    assert_int_equal(json_array_size(affected), 3);
    for (size_t i = 0; i < 3; i++)
        assert_string_equal(json_string_value(json_array_get(affected, i)), want[i]);
}

static void test_bytes_do_not_depend_on_when(void **state) {
    struct shape item;
    struct samples s = net_samples(NET, &item);
    const char *steps = STEP "\"decomposition\":\"cp\",\"rank\":{\"ratio\":0.5}}]";
    _cleanup_(graph_freep) struct graph *a = run_steps(NET, steps, &s, NULL),
                                        *b = run_steps(NET, steps, &s, NULL);

    (void)state;
    assert_true(outputs_relative_distance(a, b, &s) == 0);
}

static const json_t *row_of(const json_t *report, size_t i) {
    return json_array_get(json_object_get(report, "layers"), i);
}

#define TIMES                                                                                                \
    "[{\"method\":\"lowrank\",\"layers\":{\"include\":[\"y*\"]},"                                            \
    "\"rank\":{\"layers\":{\"y*\":[2,4]}},\"latencies\":["                                                   \
    "{\"layer\":\"y0\",\"decomposition\":\"tucker2\",\"ranks\":[2,4],\"dense_us\":5,"                        \
    "\"factors_us\":%s},"                                                                                    \
    "{\"layer\":\"y2\",\"decomposition\":\"tucker2\",\"ranks\":[2,4],\"dense_us\":5,"                        \
    "\"factors_us\":4}]}]"

/* Times of an earlier job decide, not the machine's. */
static void test_given_times_decide(void **state) {
    const char *net = "Conv x=1x8x10x10 w=16x8x3x3 b=16; Relu $; Conv $ w2=16x16x3x3";

    (void)state;
    for (int slow = 0; slow < 2; slow++) {
        _cleanup_(graph_freep) struct graph *g = NULL;
        json_auto_t *report = NULL, *plan = NULL;
        char text[1000];

        snprintf(text, sizeof(text), TIMES, slow ? "5.5" : "4");
        g = run_steps(net, text, NULL, &report);
        assert_string_equal(
            json_string_value(json_object_get(row_of(report, 0), "action")), slow ? "skipped" : "factorised");
        assert_string_equal(json_string_value(json_object_get(row_of(report, 1), "action")), "factorised");
        assert_int_equal(json_array_size(json_object_get(report, "latencies")), 2);
        plan = plan_steps(net, text, false, NULL);
        assert_int_equal(json_array_size(json_object_get(plan, "affected")), slow ? 1 : 2);
    }
}

static void test_single_layers_have_their_own_options(void **state) {
    _cleanup_(graph_freep) struct graph *g = NULL;
    json_auto_t *report = NULL;

    (void)state;
    g = run_steps(NET,
        STEP "\"rank\":{\"macs\":0.6},\"overrides\":{\"y2\":{\"decomposition\":\"spatial\",\"rank\":"
             "{\"layers\":{\"y2\":[5]}}},\"y8\":{\"rank\":{\"energy\":0.5}}}}]",
        NULL, &report);
    assert_string_equal(json_string_value(json_object_get(row_of(report, 1), "decomposition")), "spatial");
    assert_int_equal(json_integer_value(json_array_get(json_object_get(row_of(report, 1), "ranks"), 0)), 5);
    assert_int_equal(graph_find_node(g, "y2"), -1);
    assert_true(graph_find_node(g, "y2/v") >= 0 && graph_find_node(g, "y2/u") >= 0);
    assert_string_equal(json_string_value(json_object_get(row_of(report, 3), "decomposition")), "svd");
}

/* A batch norm stays behind the layer, and calibration finds the parent's means through it. */
static void test_batch_norm_stays(void **state) {
    static const char net[] = "Conv x=1x8x10x10 w=16x8x3x3 b=16 pads=1,1,1,1; "
                              "BatchNormalization $ p1=16 s1=16 m1=16 p2=16; Relu $; Conv $ w2=16x16x3x3";
    _cleanup_(graph_freep) struct graph *parent = net_of(net), *plain = NULL, *better = NULL;
    struct shape item;
    struct samples s = net_samples(net, &item);

    (void)state;
    plain = run_steps(net, STEP "\"rank\":{\"ratio\":0.4},\"data_aware\":false}]", &s, NULL);
    better = run_steps(net,
        STEP "\"rank\":{\"ratio\":0.4},\"data_aware\":false,\"recover\":{\"calibrate\":{\"samples\":64}}}]",
        &s, NULL);
    assert_true(graph_find_node(plain, "y1") >= 0);
    assert_true(
        outputs_relative_distance(better, parent, &s) < 0.9 * outputs_relative_distance(plain, parent, &s));
}

static const struct {
    const char *net, *steps, *text;
} refusals[] = {
    {NET, STEP "\"rank\":{\"macs\":0.01}}]",
        "steps[0].rank.macs: 0.01 of the network's MACs cannot be reached"},
    {NET, STEP "\"rank\":{\"layers\":{\"y2\":[4,17]}}}]",
        "steps[0].rank.layers.y2: rank 17 is larger than the matrix of layer 'y2' allows"},
    {NET, STEP "\"rank\":{\"layers\":{\"y2\":[4]}}}]",
        "steps[0].rank.layers.y2: tucker2 takes two ranks, [in, out]"},
    {NET, STEP "\"rank\":{\"layers\":{\"z2\":[4]}}}]",
        "steps[0].rank.layers: 'z2' matches no layer; the nearest are 'y2'"},
    {NET, STEP "\"rank\":{\"layers\":{\"y2\":[0]}}}]", "steps[0].rank.layers.y2[0] is not a rank"},
    {NET, STEP "\"rank\":{\"macs\":0.5,\"energy\":0.5}}]",
        "steps[0].rank: one of energy, ratio, macs and layers"},
    {NET, STEP "\"rank\":\"none\"}]", "steps[0].rank: 'none' is not one of auto"},
    {NET, STEP "\"data_aware\":1}]", "steps[0].data_aware is not true or false"},
    {NET, STEP "\"data_aware\":true}]", "steps[0]: method 'lowrank' needs a data set"},
    {"Conv x=1x8x6x6 w=8x1x3x3 group=8; Relu $", STEP "\"rank\":{\"ratio\":0.5}}]",
        "its convolution is depthwise or grouped"},
    {"ConvTranspose x=1x8x6x6 w=8x8x3x3; Relu $", STEP "\"rank\":{\"ratio\":0.5}}]",
        "transposed convolutions are not factorised"},
    {"Conv x=1x8x6x6 w=8x8x3x3; Relu $", STEP "\"decomposition\":\"svd\"}]",
        "svd is for 1x1 convolutions and fully connected layers"},
};

static void test_refusals_say_what_and_where(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof(refusals) / sizeof(refusals[0]); i++) {
        struct error err = {0};

        assert_null(plan_steps(refusals[i].net, refusals[i].steps, false, &err));
        if (!strstr(err.text, refusals[i].text))
            fail_msg("'%s' is not in '%s'", refusals[i].text, err.text);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_parts_compute_what_the_layer_would),
        cmocka_unit_test(test_macs_of_parts_are_those_of_the_network),
        cmocka_unit_test(test_full_ranks_lose_nothing),
        cmocka_unit_test(test_sweeps_of_hooi_never_lose),
        cmocka_unit_test(test_one_matrix_is_cut_as_well_as_can_be),
        cmocka_unit_test(test_cp_finds_terms_and_keeps_them_small),
        cmocka_unit_test(test_evbmf_finds_the_rank_in_the_noise),
        cmocka_unit_test(test_energy_is_what_is_kept),
        cmocka_unit_test(test_samples_help_the_outputs),
        cmocka_unit_test(test_the_dry_run_tells_the_macs),
        cmocka_unit_test(test_later_steps_are_planned_on_the_parts),
        cmocka_unit_test(test_bytes_do_not_depend_on_when),
        cmocka_unit_test(test_given_times_decide),
        cmocka_unit_test(test_single_layers_have_their_own_options),
        cmocka_unit_test(test_batch_norm_stays),
        cmocka_unit_test(test_refusals_say_what_and_where),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
