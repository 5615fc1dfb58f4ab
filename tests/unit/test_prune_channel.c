/* Channels judged and removed: each criterion finds planted useless ones, constants of removed channels stay
 * in biases, budgets are met or refused, the dry run says what comes, the same from any number of threads. */
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "compress/prune.h"
#include "compress/recipe.h"
#include "compress/session.h"
#include "engine/summary.h"
#include "tests/unit/cmocka_all.h"
#include "tests/unit/net_text.h"
#include "tests/unit/rows_pack.h"

#define NET                                                                                                  \
    "Conv x=1x1x4x4 w=32x1x3x3 pads=1,1,1,1; BatchNormalization $ g=32 h=32 m=32 pv=32; Relu $; "            \
    "Conv $ w3=32x32x3x3 b3=32; Relu $; Flatten $; Gemm $ w6=128x3 b6=3"

/* ---- a network under one step ---- */

struct pruned {
    struct graph *graph;
    json_t *report, *steps;
    struct pack *pack;
    struct feed_source source;
    struct samples samples;
    struct work work;
    struct error err;
    int r;
};

static int read_samples(void *ctx, int64_t first, int64_t count, float *ret, struct error *err) {
    (void)ctx;
    (void)err;
    for (int64_t i = 0; i < count; i++)
        net_text_fill(ret + i * 16, 16, (uint32_t)(first + i + 1));
    return 0;
}

static json_t *steps_of(const char *options) {
    json_t *step = json_loads(options, 0, NULL), *steps = json_array();

    assert_non_null(step);
    json_object_set_new(step, "method", json_string("prune"));
    json_array_append_new(steps, step);
    return steps;
}

/* Takes the graph. */
static struct pruned prune(struct graph *g, const char *options, bool has_data, unsigned threads) {
    struct pruned p = {.graph = g, .pack = rows_pack(true), .steps = steps_of(options)};
    _cleanup_(recipe_freep) struct recipe *recipe = NULL;
    struct progress progress = {.threads = threads};

    p.source = (struct feed_source){.pack = p.pack};
    p.samples = (struct samples){
        .source = &p.source, .n = 64, .item = {.rank = 4, .dim = {1, 1, 4, 4}}, .read = read_samples};
    p.work = (struct work){
        .graph = p.graph, .samples = has_data ? &p.samples : NULL, .progress = &progress, .seed = 5};
    p.r = recipe_new(p.steps, &recipe, &p.err);
    if (p.r == 0)
        p.r = recipe_run(recipe, &p.work, NULL, &p.report, &p.err);
    p.work.progress = NULL;
    p.graph = p.work.graph;
    return p;
}

static void pruned_done(struct pruned *p) {
    graph_free(p->graph);
    json_decref(p->report);
    json_decref(p->steps);
    pack_free(p->pack);
}

static void must(const struct pruned *p, const char *what) {
    if (p->r < 0)
        fail_msg("%s: %s", what, p->err.text);
}

static const struct tensor *input_of(const struct graph *g, const char *id, int input) {
    int node = graph_find_node(g, id);

    assert_true(node >= 0);
    return g->values[g->nodes[node].in[input]].init;
}

/* ---- planted: every second channel is useless ---- */

static float *copy_of(struct graph *g, const char *id, int input, int64_t *ret_n) {
    int v = g->nodes[graph_find_node(g, id)].in[input];
    struct tensor t = *g->values[v].init;
    float *w;

    assert_true(shape_count(&t.shape, ret_n));
    w = graph_alloc(g, (size_t)*ret_n * sizeof(*w));
    memcpy(w, t.data, (size_t)*ret_n * sizeof(*w));
    t.data = w;
    assert_int_equal(graph_set_init(g, v, &t), 0);
    return w;
}

static const char *const ids[] = {"y0", "y1", "y3", "y6"};

/* Small weights, a small scale, and a shift that lets nothing through the ReLU. */
static struct graph *plant(void) {
    struct graph *g = net_text_read(NET).graph;
    float *w, *gamma, *beta, *mean;
    int64_t n;

    w = copy_of(g, ids[0], 1, &n);
    for (int64_t i = 0; i < n; i++)
        w[i] *= i / 9 % 2 ? 1 : 1e-3f;
    gamma = copy_of(g, ids[1], 1, &n);
    beta = copy_of(g, ids[1], 2, &n);
    mean = copy_of(g, ids[1], 3, &n);
    for (int64_t i = 0; i < n; i++) {
        gamma[i] = i % 2 ? 1 + 0.1f * gamma[i] : 1e-3f;
        beta[i] = i % 2 ? 0.2f : -1;
        mean[i] = 0.01f * mean[i];
    }
    return g;
}

static float *answer(const struct graph *g, int64_t *ret_n) {
    _cleanup_(session_done) struct session s = {0};
    struct tensor in = {.dtype = DT_F32, .shape = {.rank = 4, .dim = {1, 1, 4, 4}}};
    _cleanup_(freep) float *x = alloc_aligned(16 * sizeof(float));
    struct graph *copy = NULL;
    struct error err = {0};
    float *out;

    assert_int_equal(graph_clone(g, &copy, &err), 0);
    if (session_open_graph(copy, &s, &err) < 0 || session_plan(&s, &in.shape, 1, &err) < 0)
        fail_msg("%s", err.text);
    net_text_fill(x, 16, 7);
    in.data = x;
    session_run(&s, &in);
    assert_true(shape_count(&s.out[0].shape, ret_n));
    out = malloc((size_t)*ret_n * sizeof(float));
    memcpy(out, s.out[0].data, (size_t)*ret_n * sizeof(float));
    return out;
}

static void assert_same_answer(
    const struct graph *a, const struct graph *b, double within, const char *what) {
    int64_t n, m;
    _cleanup_(freep) float *x = answer(a, &n), *y = answer(b, &m);

    assert_int_equal(n, m);
    for (int64_t i = 0; i < n; i++)
        if (fabs((double)x[i] - (double)y[i]) > within * (1 + fabs((double)x[i])))
            fail_msg("%s: answer %lld is %g, it was %g", what, (long long)i, (double)y[i], (double)x[i]);
}

#define FIRST "\"layers\": {\"include\": [\"y0\"]}, \"sparsity\": 0.5"

static void test_each_criterion_finds_useless_channels(void **state) {
    static const char *const criteria[] = {"magnitude\", \"norm\": \"l1", "magnitude", "lamp", "bn_scale",
        "fpgm", "apoz", "taylor", "hessian", "thinet"};

    (void)state;
    for (size_t i = 0; i < sizeof(criteria) / sizeof(criteria[0]); i++) {
        _cleanup_(graph_freep) struct graph *before = plant();
        _cleanup_(pruned_done) struct pruned p = {0};
        const struct tensor *was = input_of(before, ids[0], 1), *now;
        char options[256];

        snprintf(options, sizeof(options), "{\"criterion\": \"%s\", " FIRST "}", criteria[i]);
        p = prune(plant(), options, true, 1);
        must(&p, criteria[i]);
        now = input_of(p.graph, ids[0], 1);
        assert_int_equal(now->shape.dim[0], 16);
        for (int64_t c = 0; c < 16; c++)
            if (memcmp((const float *)now->data + c * 9, (const float *)was->data + (2 * c + 1) * 9, 36) != 0)
                fail_msg("%s: channel %lld is not the useful one", criteria[i], (long long)c);
        assert_same_answer(before, p.graph, 1e-5, criteria[i]);
    }
}

static void test_random_is_drawn_from_the_seed(void **state) {
    _cleanup_(pruned_done) struct pruned a = {0}, b = {0};
    const struct tensor *x, *y;

    (void)state;
    a = prune(plant(), "{\"criterion\": \"random\", " FIRST "}", false, 1);
    b = prune(plant(), "{\"criterion\": \"random\", " FIRST "}", false, 1);
    must(&a, "random");
    must(&b, "random");
    x = input_of(a.graph, ids[0], 1);
    y = input_of(b.graph, ids[0], 1);
    assert_int_equal(x->shape.dim[0], 16);
    assert_memory_equal(x->data, y->data, 16 * 9 * sizeof(float));
}

static void test_the_same_from_any_number_of_threads(void **state) {
    static const char options[] =
        "{\"criterion\": \"taylor\", \"macs\": 0.6, \"recover\": {\"calibrate\": {}}}";
    _cleanup_(pruned_done) struct pruned a = {0}, b = {0};

    (void)state;
    a = prune(plant(), options, true, 1);
    b = prune(plant(), options, true, 3);
    must(&a, "one thread");
    must(&b, "three threads");
    for (int k = 0; k < 3; k += 2) {
        const struct tensor *x = input_of(a.graph, ids[k], 1), *y = input_of(b.graph, ids[k], 1);
        int64_t n;

        assert_true(shape_equal(&x->shape, &y->shape));
        assert_true(shape_count(&x->shape, &n));
        assert_memory_equal(x->data, y->data, (size_t)n * sizeof(float));
    }
}

/* ---- constants ---- */

/* Channels of no weights and a bias give the same everywhere: without them nothing changes, with and without
 * data, also where the reader is a grouped convolution, a matrix, or stands before a batch norm. */
static void test_constants_of_removed_channels_stay(void **state) {
    static const char *const nets[] = {
        "Conv x=1x1x4x4 w=32x1x3x3 b=32; Sigmoid $; Conv $ w2=32x32x1x1; Flatten $; Gemm $ w4=128x3 b4=3",
        "Conv x=1x1x4x4 w=32x1x3x3 b=32; Sigmoid $; Conv $ w2=32x32x1x1; BatchNormalization $ g=32 h=32 m=32 pv=32; Flatten $; Gemm $ w4=128x3 b4=3",
        "Conv x=1x1x4x4 w=32x1x3x3 b=32; Sigmoid $; Conv $ w2=32x16x1x1 group=2; Flatten $; Gemm $ w4=128x3 b4=3",
        "Conv x=1x1x4x4 w=32x1x3x3 b=32; Sigmoid $; Flatten $; MatMul $ w4=128x3; Add $ b4=3",
    };

    (void)state;
    for (size_t i = 0; i < sizeof(nets) / sizeof(nets[0]); i++)
        for (int has_data = 0; has_data < 2; has_data++) {
            struct graph *g = net_text_read(nets[i]).graph;
            _cleanup_(graph_freep) struct graph *before = NULL;
            _cleanup_(pruned_done) struct pruned p = {0};
            struct error err = {0};
            int64_t n;
            float *w = copy_of(g, ids[0], 1, &n);

            for (int64_t k = 0; k < n; k++)
                w[k] = k / 9 % 2 ? w[k] : 0;
            assert_int_equal(graph_clone(g, &before, &err), 0);
            p = prune(g, "{" FIRST "}", has_data, 1);
            must(&p, nets[i]);
            assert_int_equal(input_of(p.graph, ids[0], 1)->shape.dim[0], 16);
            assert_same_answer(before, p.graph, 1e-5, nets[i]);
        }
}

/* Means, deviations and least squares are those of the channels that stay. */
static void test_calibration_after_removal_comes_nearer(void **state) {
    static const char net[] =
        "Conv x=1x1x4x4 w=32x1x3x3 b=32 pads=1,1,1,1; Relu $; Conv $ w2=32x32x3x3 b2=32 "
        "pads=1,1,1,1; Relu $; Flatten $; Gemm $ w5=512x3 b5=3";
    static const char *const recover[] = {"", ", \"recover\": {\"calibrate\": {\"least_squares\": true}}"};
    _cleanup_(graph_freep) struct graph *before = net_text_read(net).graph;
    double error[2] = {0};

    (void)state;
    for (size_t i = 0; i < 2; i++) {
        _cleanup_(pruned_done) struct pruned p = {0};
        char options[256];
        int64_t n;
        _cleanup_(freep) float *x = answer(before, &n), *y = NULL;

        snprintf(options, sizeof(options), "{\"sparsity\": 0.5, \"scope\": \"layer\"%s}", recover[i]);
        p = prune(net_text_read(net).graph, options, true, 1);
        must(&p, options);
        assert_int_equal(input_of(p.graph, "y2", 1)->shape.dim[0], 16);
        y = answer(p.graph, &n);
        for (int64_t k = 0; k < n; k++)
            error[i] += fabs((double)x[k] - (double)y[k]);
    }
    if (!(error[1] < 0.7 * error[0]))
        fail_msg("least squares leave an error of %g, without them it is %g", error[1], error[0]);
}

/* ---- budgets ---- */

static int64_t macs_of(const struct graph *g) {
    _cleanup_(summary_freep) struct summary *s = NULL;
    struct error err = {0};

    if (summary_new(g, &s, &err) < 0)
        fail_msg("%s", err.text);
    return s->macs;
}

static void test_budgets_of_work_are_met(void **state) {
    static const char *const scopes[] = {"global", "layer", "sensitivity"};
    _cleanup_(graph_freep) struct graph *before = net_text_read(NET).graph;

    (void)state;
    for (size_t i = 0; i < 3; i++)
        for (int share = 3; share < 9; share += 2) {
            _cleanup_(pruned_done) struct pruned p = {0};
            char options[128];

            snprintf(options, sizeof(options), "{\"macs\": 0.%d, \"scope\": \"%s\"}", share, scopes[i]);
            p = prune(net_text_read(NET).graph, options, true, 1);
            must(&p, options);
            if ((double)macs_of(p.graph) > share / 10.0 * (double)macs_of(before))
                fail_msg("%s: %lld of %lld are left", options, (long long)macs_of(p.graph),
                    (long long)macs_of(before));
        }
}

/* Judged, removed and trained twice, after training that makes channels small; the goal is the whole step's.
 */
static void test_rounds_end_at_the_goal(void **state) {
    static const char *const kinds[] = {"l1", "group_lasso", "slimming"};
    _cleanup_(graph_freep) struct graph *before = net_text_read(NET).graph;

    (void)state;
    for (size_t i = 0; i < 3; i++) {
        _cleanup_(pruned_done) struct pruned p = {0};
        const json_t *rounds, *step;
        char options[512];

        snprintf(options, sizeof(options),
            "{\"macs\": 0.4, \"schedule\": {\"kind\": \"iterative\", \"rounds\": 2, \"max_drop\": 1}, "
            "\"regularize\": {\"kind\": \"%s\", \"strength\": 0.001, \"epochs\": 1}, "
            "\"recover\": {\"finetune\": {\"epochs\": 1, \"batch\": 32, \"lr\": 0.01}}}",
            kinds[i]);
        p = prune(net_text_read(NET).graph, options, true, 1);
        must(&p, options);
        step = json_array_get(p.report, 0);
        rounds = json_object_get(step, "rounds");
        assert_int_equal(json_array_size(rounds), 2);
        assert_true((double)macs_of(p.graph) <= 0.4 * (double)macs_of(before));
        assert_true(json_number_value(json_object_get(json_array_get(rounds, 0), "macs_kept")) <= 0.6325);
        assert_non_null(json_object_get(step, "regularize"));
    }
}

/* One layer has a share of its own; the other is not touched by it. */
static void test_a_layer_may_have_its_own_share(void **state) {
    _cleanup_(pruned_done) struct pruned p = prune(net_text_read(NET).graph,
        "{\"sparsity\": 0.01, \"scope\": \"layer\", \"overrides\": {\"y3\": {\"sparsity\": 0.5}}}", true, 1);

    (void)state;
    must(&p, "overrides");
    assert_int_equal(input_of(p.graph, ids[0], 1)->shape.dim[0], 32);
    assert_int_equal(input_of(p.graph, ids[2], 1)->shape.dim[0], 16);
}

static void test_what_cannot_be_is_refused_with_a_reason(void **state) {
    static const struct {
        const char *options, *complaint;
        bool has_data;
    } cases[] = {
        {"{\"macs\": 0.01}", "the least that channel pruning can leave is", true},
        {"{\"sparsity\": 0.99}", "the most that can go is", true},
        {"{\"macs\": 0.5, \"criterion\": \"taylor\"}", "needs a data set", false},
        {"{\"macs\": 0.5, \"scope\": \"sensitivity\"}", "needs a data set", false},
        {"{}", "one of sparsity, macs and threshold_sigma is required", true},
        {"{\"macs\": 0.5, \"sparsity\": 0.5}", "one of sparsity, macs and threshold_sigma is required", true},
        {"{\"macs\": 0.5, \"schedule\": {\"kind\": \"gradual\"}}", "in rounds", true},
        {"{\"macs\": 0.5, \"schedule\": {\"kind\": \"iterative\"}}", "recover.finetune", true},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        _cleanup_(pruned_done) struct pruned p =
            prune(net_text_read(NET).graph, cases[i].options, cases[i].has_data, 1);

        assert_true(p.r < 0);
        if (!strstr(p.err.text, cases[i].complaint))
            fail_msg("%s: '%s' does not say '%s'", cases[i].options, p.err.text, cases[i].complaint);
    }
}

static void test_bn_scale_without_norms_is_refused(void **state) {
    _cleanup_(pruned_done) struct pruned p =
        prune(net_text_read("Conv x=1x1x4x4 w=32x1x3x3; Relu $; Flatten $; Gemm $ w3=128x3 b3=3").graph,
            "{\"macs\": 0.7, \"criterion\": \"bn_scale\"}", true, 1);

    (void)state;
    assert_true(p.r < 0);
    assert_non_null(strstr(p.err.text, "bn_scale"));
}

/* ---- the dry run ---- */

static void test_the_dry_run_says_what_comes(void **state) {
    _cleanup_(pruned_done) struct pruned p = {0};
    _cleanup_(recipe_freep) struct recipe *recipe = NULL;
    struct graph *g = net_text_read(NET).graph;
    struct error err = {0};
    json_t *plan = NULL, *row;
    size_t i;

    (void)state;
    p = prune(net_text_read(NET).graph, "{\"macs\": 0.5}", true, 1);
    must(&p, "prune");
    assert_int_equal(recipe_new(p.steps, &recipe, &err), 0);
    if (recipe_plan(recipe, g, true, &plan, &err) < 0)
        fail_msg("%s", err.text);
    json_array_foreach(json_object_get(plan, "layers"), i, row) {
        const char *id = json_string_value(json_object_get(row, "id"));
        int64_t n;

        assert_true(shape_count(&input_of(p.graph, id, 1)->shape, &n));
        assert_int_equal(json_integer_value(json_object_get(row, "bytes")), 4 * n);
    }
    assert_int_equal(i, 3);
    json_decref(plan);
    graph_free(g);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_each_criterion_finds_useless_channels),
        cmocka_unit_test(test_random_is_drawn_from_the_seed),
        cmocka_unit_test(test_the_same_from_any_number_of_threads),
        cmocka_unit_test(test_constants_of_removed_channels_stay),
        cmocka_unit_test(test_calibration_after_removal_comes_nearer),
        cmocka_unit_test(test_budgets_of_work_are_met),
        cmocka_unit_test(test_rounds_end_at_the_goal),
        cmocka_unit_test(test_a_layer_may_have_its_own_share),
        cmocka_unit_test(test_what_cannot_be_is_refused_with_a_reason),
        cmocka_unit_test(test_bn_scale_without_norms_is_refused),
        cmocka_unit_test(test_the_dry_run_says_what_comes),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
