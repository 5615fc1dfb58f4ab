/* Pruning of weights: criteria on planted cases, budgets met exactly, schedules, what is stored. */
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "compress/prune_weight.h"
#include "compress/recipe.h"
#include "engine/ops.h"
#include "tests/unit/cmocka_all.h"
#include "tests/unit/net_text.h"
#include "tests/unit/rows_pack.h"

#define CONVS                                                                                                \
    "Conv x=1x1x4x4 w=8x1x3x3 b=8 pads=1,1,1,1; Relu $; Conv $ w2=16x8x3x3 b2=16 pads=1,1,1,1; Relu $; "     \
    "Flatten $; Gemm $ w3=256x3 b3=3"
#define HIDDEN "Flatten x=1x1x4x4; Gemm $ w=16x8 b=8; Tanh $; Gemm $ w2=8x3 b2=3"

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

/* The options of one step of pruning; or several steps, "[…]". */
static json_t *steps_of(const char *options) {
    json_t *step = json_loads(options, 0, NULL), *steps;

    assert_non_null(step);
    if (json_is_array(step))
        return step;
    steps = json_array();
    json_object_set_new(step, "method", json_string("prune"));
    json_array_append_new(steps, step);
    return steps;
}

/* `plant` (may be NULL) changes the network before. */
static struct pruned prune(
    const char *net, const char *options, void (*plant)(struct graph *g), unsigned threads) {
    struct pruned p = {
        .graph = net_text_read(net).graph, .pack = rows_pack(true), .steps = steps_of(options)};
    _cleanup_(recipe_freep) struct recipe *recipe = NULL;
    struct progress progress = {.threads = threads};

    if (plant)
        plant(p.graph);
    p.source = (struct feed_source){.pack = p.pack};
    p.samples = (struct samples){
        .source = &p.source, .n = 64, .item = {.rank = 4, .dim = {1, 1, 4, 4}}, .read = read_samples};
    p.work = (struct work){.graph = p.graph, .samples = &p.samples, .progress = &progress, .seed = 5};
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

static void must(const struct pruned *p) {
    if (p->r < 0)
        fail_msg("%s", p->err.text);
}

/* Weights of the `index`-th layer, decoded; their number. */
static int64_t weights_of(struct graph *g, size_t index, float **ret, const char **ret_form) {
    for (size_t i = 0; i < g->n_nodes; i++) {
        const struct node *n = &g->nodes[i];
        const struct weight *w = NULL;
        int64_t count;

        if (n->op->couple != OP_COUPLE_FREE || n->n_in < 2 || index-- > 0)
            continue;
        assert_int_equal(weight_match(g, n->in[1], &w, NULL, NULL), 0);
        assert_non_null(w);
        assert_true(shape_count(&w->shape, &count));
        *ret = calloc((size_t)count, sizeof(**ret));
        assert_int_equal(weight_decode(w, *ret, NULL), 0);
        if (ret_form)
            *ret_form = weight_form_name(w);
        return count;
    }
    return 0;
}

static int64_t count_zeros(struct graph *g, size_t index, int64_t *ret_n) {
    _cleanup_(freep) float *w = NULL;
    int64_t n = weights_of(g, index, &w, NULL), zeros = 0;

    for (int64_t i = 0; i < n; i++)
        zeros += w[i] == 0;
    *ret_n = n;
    return zeros;
}

static double sparsity_of(struct graph *g, size_t n_layers) {
    int64_t zeros = 0, all = 0;

    for (size_t i = 0; i < n_layers; i++) {
        int64_t n;

        zeros += count_zeros(g, i, &n);
        all += n;
    }
    return (double)zeros / (double)all;
}

static float *floats_of(struct graph *g, size_t node, int input, int64_t *ret_n) {
    const struct tensor *t = g->values[g->nodes[node].in[input]].init;

    assert_true(shape_count(&t->shape, ret_n));
    return t->data;
}

/* ---- budgets ---- */

static void test_global_budgets_are_met_to_the_weight(void **state) {
    static const char *const criteria[] = {"magnitude", "lamp", "random", "taylor", "hessian"};

    (void)state;
    for (int i = 0; i < 5; i++) {
        char options[128];
        int64_t all = 8 * 9 + 16 * 72 + 256 * 3;

        snprintf(options, sizeof(options),
            "{\"granularity\":\"weight\",\"criterion\":\"%s\",\"sparsity\":0.73}", criteria[i]);
        {
            _cleanup_(pruned_done) struct pruned p = prune(CONVS, options, NULL, 1);

            must(&p);
            assert_true(fabs(sparsity_of(p.graph, 3) * (double)all - nearbyint(0.73 * (double)all)) < 0.5);
        }
    }
}

static void test_the_same_share_of_each_layer_but_the_first_convolution(void **state) {
    _cleanup_(pruned_done) struct pruned p =
        prune(CONVS, "{\"granularity\":\"weight\",\"scope\":\"layer\",\"sparsity\":0.6}", NULL, 1);
    const json_t *layers;
    int64_t n;

    (void)state;
    must(&p);
    assert_int_equal(count_zeros(p.graph, 0, &n), 0);
    assert_int_equal(count_zeros(p.graph, 1, &n), 691);
    assert_int_equal(count_zeros(p.graph, 2, &n), 461);
    layers = json_object_get(json_array_get(p.report, 0), "layers");
    assert_string_equal(json_string_value(json_object_get(json_array_get(layers, 0), "action")), "skipped");
    assert_non_null(strstr(json_string_value(json_object_get(json_array_get(layers, 0), "reason")), "first"));
}

static void test_overrides_give_a_layer_its_own_share(void **state) {
    _cleanup_(pruned_done) struct pruned p = prune(CONVS,
        "{\"granularity\":\"weight\",\"sparsity\":0.5,\"overrides\":{\"y5\":{\"sparsity\":0.9}}}", NULL, 1);
    int64_t n, rest;

    (void)state;
    must(&p);
    assert_int_equal(count_zeros(p.graph, 2, &n), 691);
    rest = count_zeros(p.graph, 0, &n);
    rest += count_zeros(p.graph, 1, &n);
    assert_int_equal(rest, (72 + 1152) / 2);
}

static void test_sigmas_are_of_each_layer(void **state) {
    struct graph *was = net_text_read(CONVS).graph;
    _cleanup_(pruned_done) struct pruned p =
        prune(CONVS, "{\"granularity\":\"weight\",\"threshold_sigma\":0.8}", NULL, 1);

    (void)state;
    must(&p);
    for (size_t layer = 0; layer < 3; layer++) {
        _cleanup_(freep) float *w = NULL, *now = NULL;
        int64_t n = weights_of(was, layer, &w, NULL);
        double sum = 0;

        assert_int_equal(weights_of(p.graph, layer, &now, NULL), n);
        for (int64_t i = 0; i < n; i++)
            sum += (double)w[i] * (double)w[i];
        for (int64_t i = 0; i < n; i++)
            assert_int_equal(now[i] == 0, fabs((double)w[i]) < 0.8 * sqrt(sum / (double)n));
    }
    graph_free(was);
}

static void test_budgets_of_multiplications_are_met_or_say_what_can_be(void **state) {
    (void)state;
    for (int i = 0; i < 2; i++) {
        _cleanup_(pruned_done) struct pruned p = prune(CONVS,
            i ? "{\"granularity\":\"weight\",\"macs\":0.3,\"scope\":\"layer\"}"
              : "{\"granularity\":\"weight\",\"macs\":0.3}",
            NULL, 1);
        double kept;

        must(&p);
        kept = json_number_value(json_object_get(json_array_get(p.report, 0), "macs_kept"));
        assert_true(kept <= 0.3 && kept > 0.29);
    }
    {
        _cleanup_(pruned_done) struct pruned p = prune(
            CONVS, "{\"granularity\":\"weight\",\"macs\":0.3,\"layers\":{\"include\":[\"y5\"]}}", NULL, 1);

        assert_int_equal(p.r, -EBADMSG);
        assert_non_null(strstr(p.err.text, "steps[0].macs: 0.3"));
        assert_non_null(strstr(p.err.text, "the least is 0.9"));
    }
}

/* ---- patterns ---- */

static void test_two_of_four_stay_everywhere_and_they_are_the_largest(void **state) {
    struct graph *was = net_text_read(CONVS).graph;
    _cleanup_(pruned_done) struct pruned p = prune(CONVS, "{\"granularity\":\"nm\"}", NULL, 1);
    _cleanup_(freep) float *w = NULL, *now = NULL;
    const char *form;
    int64_t n = weights_of(was, 1, &w, NULL);

    (void)state;
    must(&p);
    assert_int_equal(weights_of(p.graph, 1, &now, &form), n);
    assert_string_equal(form, "nm");
    for (int64_t oc = 0; oc < 16; oc++)
        for (int64_t tap = 0; tap < 9; tap++)
            for (int64_t ic = 0; ic < 8; ic += 4) {
                float least_kept = INFINITY, most_gone = 0;
                int kept = 0;

                for (int64_t k = 0; k < 4; k++) {
                    int64_t at = (oc * 8 + ic + k) * 9 + tap;

                    if (now[at] != 0) {
                        assert_true(now[at] == w[at]);
                        kept++;
                        least_kept = fminf(least_kept, fabsf(w[at]));
                    } else
                        most_gone = fmaxf(most_gone, fabsf(w[at]));
                }
                assert_int_equal(kept, 2);
                assert_true(least_kept >= most_gone);
            }
    graph_free(was);
}

static void test_blocks_go_as_a_whole(void **state) {
    _cleanup_(pruned_done) struct pruned p = prune(
        CONVS, "{\"granularity\":\"block\",\"block\":[2,4],\"sparsity\":0.75,\"scope\":\"layer\"}", NULL, 1);
    _cleanup_(freep) float *now = NULL;
    const char *form;
    int64_t gone = 0;

    (void)state;
    must(&p);
    weights_of(p.graph, 1, &now, &form);
    assert_string_equal(form, "block");
    for (int64_t oc = 0; oc < 16; oc += 2)
        for (int64_t tap = 0; tap < 9; tap++)
            for (int64_t ic = 0; ic < 8; ic += 4) {
                int zeros = 0;

                for (int64_t k = 0; k < 8; k++)
                    zeros += now[((oc + k / 4) * 8 + ic + k % 4) * 9 + tap] == 0;
                assert_true(zeros == 0 || zeros == 8);
                gone += zeros == 8;
            }
    assert_int_equal(gone, 8 * 9 * 2 * 3 / 4);
}

/* ---- criteria ---- */

/* The Gemm's weights a hundred times smaller: one threshold over all magnitudes would take nearly all of
 * them. */
static void plant_small_layer(struct graph *g) {
    int64_t n;
    float *w = floats_of(g, 5, 1, &n);

    for (int64_t i = 0; i < n; i++)
        w[i] *= 0.01f;
}

static void test_lamp_shares_out_what_magnitude_takes_from_one_layer(void **state) {
    _cleanup_(pruned_done) struct pruned magnitude =
        prune(CONVS, "{\"granularity\":\"weight\",\"sparsity\":0.35}", plant_small_layer, 1);
    _cleanup_(pruned_done) struct pruned lamp = prune(
        CONVS, "{\"granularity\":\"weight\",\"criterion\":\"lamp\",\"sparsity\":0.35}", plant_small_layer, 1);
    int64_t n;

    (void)state;
    must(&magnitude);
    must(&lamp);
    assert_true(count_zeros(magnitude.graph, 2, &n) > 670); /* of 768: as good as all of it */
    assert_true(count_zeros(magnitude.graph, 2, &n) < n);   /* no layer is emptied */
    assert_true(count_zeros(lamp.graph, 2, &n) < 400);
    assert_true(count_zeros(lamp.graph, 1, &n) > 250);
}

/* Nobody listens to hidden unit 5, whose weights are the largest. */
static void plant_deaf_unit(struct graph *g) {
    int64_t n;
    float *w = floats_of(g, 1, 1, &n), *w2 = floats_of(g, 3, 1, &n);

    for (int i = 0; i < 16; i++)
        w[i * 8 + 5] = 2;
    memset(w2 + 5 * 3, 0, 3 * sizeof(*w2));
}

static void test_gradients_find_weights_that_nobody_listens_to(void **state) {
    static const char *const criteria[] = {"taylor", "hessian", "magnitude"};

    (void)state;
    for (int i = 0; i < 3; i++) {
        char options[160];

        snprintf(options, sizeof(options),
            "{\"granularity\":\"weight\",\"criterion\":\"%s\",\"scope\":\"layer\",\"sparsity\":0.25,\"layers\":{"
            "\"include\":[\"*\"]}}",
            criteria[i]);
        {
            _cleanup_(pruned_done) struct pruned p = prune(HIDDEN, options, plant_deaf_unit, 1);
            _cleanup_(freep) float *w = NULL;
            int gone = 0;

            must(&p);
            weights_of(p.graph, 0, &w, NULL);
            for (int k = 0; k < 16; k++)
                gone += w[k * 8 + 5] == 0;
            assert_int_equal(gone, i < 2 ? 16 : 0);
        }
    }
}

static void test_random_follows_the_seed_alone(void **state) {
    static const char options[] = "{\"granularity\":\"weight\",\"criterion\":\"random\",\"sparsity\":0.5}";
    _cleanup_(pruned_done) struct pruned a = prune(CONVS, options, NULL, 1),
                                         b = prune(CONVS, options, NULL, 3);
    _cleanup_(freep) float *x = NULL, *y = NULL;
    int64_t n = weights_of(a.graph, 1, &x, NULL);

    (void)state;
    must(&a);
    must(&b);
    weights_of(b.graph, 1, &y, NULL);
    assert_memory_equal(x, y, (size_t)n * sizeof(*x));
}

/* The second convolution's answers are multiplied by nearly nothing. */
static void plant_idle_layer(struct graph *g) {
    int64_t n;
    float *w = floats_of(g, 3, 1, &n);

    for (int64_t i = 0; i < n; i++)
        w[i] *= i < n / 2 ? 1 : 1e-6f;
}

#define DEEP                                                                                                 \
    "Flatten x=1x1x4x4; Gemm $ w=16x32 b=32; Tanh $; Gemm $ w2=32x32 b2=32; Tanh $; Gemm $ w3=32x3 b3=3"

static void test_layers_that_lose_less_lose_more(void **state) {
    _cleanup_(pruned_done) struct pruned p = prune(
        DEEP, "{\"granularity\":\"weight\",\"scope\":\"sensitivity\",\"sparsity\":0.5}", plant_idle_layer, 1);
    const json_t *curves;
    int64_t n, n2;
    double idle, busy;

    (void)state;
    must(&p);
    idle = (double)count_zeros(p.graph, 1, &n) / (double)n;
    busy = (double)count_zeros(p.graph, 0, &n) / (double)n;
    assert_true(idle > busy);
    assert_true(fabs(sparsity_of(p.graph, 3) - 0.5) < 0.01);
    curves = json_object_get(json_array_get(p.report, 0), "sensitivity");
    assert_int_equal(json_array_size(curves), 3);
    count_zeros(p.graph, 2, &n2);
    assert_int_equal(n2, 96);
}

/* ---- schedules ---- */

static void test_shares_follow_their_papers(void **state) {
    struct prune_options o = {.sparsity = 0.875, .schedule = {.rounds = 3}};

    (void)state;
    assert_true(prune_gradual_share(0) == 0);
    assert_true(prune_gradual_share(1) == 1);
    assert_true(fabs(prune_gradual_share(0.5) - 0.875) < 1e-12); /* 1 - (1 - t)³ */
    assert_true(fabs(prune_gradual_share(0.2) - 0.488) < 1e-12);
    /* of 1, half stays each time: 1/2, 1/4, 1/8 */
    for (int i = 0; i <= 3; i++)
        assert_true(fabs(1 - 0.875 * prune_round_share(&o, i) - pow(0.5, i)) < 1e-12);
}

#define FINETUNE "\"recover\":{\"finetune\":{\"epochs\":2,\"batch\":16,\"lr\":0.02}}"

static void test_gradual_ends_at_its_share_with_any_threads(void **state) {
    static const char options[] =
        "{\"granularity\":\"weight\",\"sparsity\":0.8,\"schedule\":{\"kind\":\"gradual\"}," FINETUNE "}";
    _cleanup_(pruned_done) struct pruned a = prune(CONVS, options, NULL, 1),
                                         b = prune(CONVS, options, NULL, 3);
    int64_t all = 8 * 9 + 16 * 72 + 256 * 3;

    (void)state;
    must(&a);
    must(&b);
    assert_true(fabs(sparsity_of(a.graph, 3) * (double)all - nearbyint(0.8 * (double)all)) < 0.5);
    for (size_t layer = 0; layer < 3; layer++) {
        _cleanup_(freep) float *x = NULL, *y = NULL;
        int64_t n = weights_of(a.graph, layer, &x, NULL);

        weights_of(b.graph, layer, &y, NULL);
        assert_memory_equal(x, y, (size_t)n * sizeof(*x));
    }
}

static void test_rounds_judge_remove_and_train(void **state) {
    _cleanup_(pruned_done) struct pruned p = prune(CONVS,
        "{\"granularity\":\"weight\",\"criterion\":\"taylor\",\"sparsity\":0.8,\"schedule\":{\"kind\":\"iterative\",\"rounds\":"
        "3,\"max_drop\":1}," FINETUNE "}",
        NULL, 1);
    const json_t *rounds;

    (void)state;
    must(&p);
    rounds = json_object_get(json_array_get(p.report, 0), "rounds");
    assert_int_equal(json_array_size(rounds), 3);
    for (size_t i = 0; i < 3; i++) {
        double want = 1 - pow(0.2, (double)(i + 1) / 3);
        double have = json_number_value(json_object_get(json_array_get(rounds, i), "sparsity"));

        assert_true(fabs(have - want) < 1e-3);
        assert_non_null(json_object_get(json_array_get(rounds, i), "accuracy"));
    }
    assert_true(fabs(sparsity_of(p.graph, 3) - 0.8) < 1e-3);
}

/* Trained in the first rounds, it learns next to nothing in the ones that take nearly all. */
static void test_a_round_that_costs_too_much_is_undone(void **state) {
    _cleanup_(pruned_done) struct pruned p = prune(CONVS,
        "{\"granularity\":\"weight\",\"criterion\":\"random\",\"sparsity\":0.995,\"schedule\":{\"kind\":\"iterative\",\"rounds\":"
        "4,\"max_drop\":0.02},\"recover\":{\"finetune\":{\"epochs\":4,\"batch\":16,\"lr\":0.02}}}",
        NULL, 1);
    const json_t *rounds, *step;
    size_t n;

    (void)state;
    must(&p);
    step = json_array_get(p.report, 0);
    rounds = json_object_get(step, "rounds");
    n = json_array_size(rounds);
    assert_true(n >= 2 && n <= 4);
    assert_string_equal(json_string_value(json_object_get(step, "stopped")), "accuracy fell");
    assert_true(fabs(json_number_value(json_object_get(step, "sparsity")) -
                     json_number_value(json_object_get(json_array_get(rounds, n - 2), "sparsity"))) < 1e-9);
    assert_true(fabs(sparsity_of(p.graph, 3) - json_number_value(json_object_get(step, "sparsity"))) < 1e-9);
}

/* ---- composition ---- */

/* Where the weights of two pruned networks are zero is the same, and the other weights are not. */
static void compare_zeros(struct graph *a, struct graph *b, bool others_differ) {
    for (size_t layer = 0; layer < 3; layer++) {
        _cleanup_(freep) float *x = NULL, *y = NULL;
        int64_t n = weights_of(a, layer, &x, NULL), n_same = 0;

        assert_int_equal(weights_of(b, layer, &y, NULL), n);
        for (int64_t i = 0; i < n; i++) {
            assert_int_equal(x[i] == 0, y[i] == 0);
            n_same += x[i] != 0 && x[i] == y[i];
        }
        assert_int_equal(n_same < n / 10, others_differ);
    }
}

static void test_zeros_stay_when_it_learns_afterwards(void **state) {
    static const char *const granularities[] = {"\"granularity\":\"weight\",\"sparsity\":0.7",
        "\"granularity\":\"block\",\"sparsity\":0.6", "\"granularity\":\"nm\""};

    (void)state;
    for (int i = 0; i < 3; i++) {
        char alone[200], recovered[300], followed[300];

        snprintf(alone, sizeof(alone), "{%s}", granularities[i]);
        snprintf(recovered, sizeof(recovered), "{%s," FINETUNE "}", granularities[i]);
        snprintf(followed, sizeof(followed),
            "[{\"method\":\"prune\",%s},{\"method\":\"finetune\",\"epochs\":2,\"batch\":16,\"lr\":0.02}]",
            granularities[i]);
        {
            _cleanup_(pruned_done) struct pruned a = prune(CONVS, alone, NULL, 1),
                                                 b = prune(CONVS, recovered, NULL, 1),
                                                 c = prune(CONVS, followed, NULL, 2);

            must(&a);
            must(&b);
            must(&c);
            compare_zeros(a.graph, b.graph, true);
            compare_zeros(a.graph, c.graph, true);
        }
    }
}

/* What an earlier step took out stays out, whatever the later one thinks of it. */
static void test_a_second_pruning_begins_where_the_first_ended(void **state) {
    _cleanup_(pruned_done) struct pruned a =
        prune(CONVS, "{\"granularity\":\"weight\",\"criterion\":\"random\",\"sparsity\":0.5}", NULL, 1);
    _cleanup_(pruned_done) struct pruned b = prune(CONVS,
        "[{\"method\":\"prune\",\"granularity\":\"weight\",\"criterion\":\"random\",\"sparsity\":0.5},"
        "{\"method\":\"prune\",\"granularity\":\"weight\",\"criterion\":\"taylor\",\"sparsity\":0.75,\"schedule\":{\"kind\":"
        "\"gradual\"}}]",
        NULL, 1);
    _cleanup_(pruned_done) struct pruned c = prune(CONVS,
        "[{\"method\":\"prune\",\"granularity\":\"weight\",\"criterion\":\"random\",\"sparsity\":0.5},"
        "{\"method\":\"prune\",\"granularity\":\"weight\",\"sparsity\":0.75,\"schedule\":{\"kind\":\"gradual\"}," FINETUNE
        "}]",
        NULL, 1);

    (void)state;
    assert_true(b.r < 0); /* gradual needs its training */
    must(&a);
    must(&c);
    assert_true(fabs(sparsity_of(c.graph, 3) - 0.75) < 1e-3);
    for (size_t layer = 0; layer < 3; layer++) {
        _cleanup_(freep) float *x = NULL, *y = NULL;
        int64_t n = weights_of(a.graph, layer, &x, NULL);

        weights_of(c.graph, layer, &y, NULL);
        for (int64_t i = 0; i < n; i++)
            assert_true(x[i] != 0 || y[i] == 0);
    }
}

/* ---- regularisers ---- */

static void test_regularisers_make_the_unimportant_small(void **state) {
    static const char *const kinds[] = {"l1", "group_lasso"};
    double mean[2];

    (void)state;
    for (int i = 0; i < 2; i++)
        for (int strong = 0; strong < 2; strong++) {
            char options[300];

            snprintf(options, sizeof(options),
                "{\"granularity\":\"weight\",\"sparsity\":0.01,\"regularize\":{\"kind\":\"%s\",\"strength\":%s,\"epochs\":4}," FINETUNE
                "}",
                kinds[i], strong ? "0.5" : "1e-9");
            {
                _cleanup_(pruned_done) struct pruned p = prune(CONVS, options, NULL, 1);
                _cleanup_(freep) float *w = NULL;
                int64_t n;

                must(&p);
                n = weights_of(p.graph, 1, &w, NULL);
                mean[strong] = 0;
                for (int64_t k = 0; k < n; k++)
                    mean[strong] += fabs((double)w[k]) / (double)n;
                if (strong)
                    assert_true(mean[1] < 0.9 * mean[0]);
            }
        }
}

/* ---- the dry run, refusals ---- */

static void test_the_dry_run_says_what_comes(void **state) {
    static const char *const options[] = {"{\"granularity\":\"weight\",\"sparsity\":0.8}",
        "{\"granularity\":\"block\",\"sparsity\":0.8}", "{\"granularity\":\"nm\"}"};

    (void)state;
    for (int i = 0; i < 3; i++) {
        _cleanup_(pruned_done) struct pruned p = prune(CONVS, options[i], NULL, 1);
        _cleanup_(recipe_freep) struct recipe *recipe = NULL;
        struct graph *g = net_text_read(CONVS).graph;
        const json_t *planned, *done;
        json_t *plan = NULL;

        must(&p);
        assert_int_equal(recipe_new(p.steps, &recipe, NULL), 0);
        assert_int_equal(recipe_plan(recipe, g, false, &plan, NULL), 0);
        planned = json_object_get(json_array_get(json_object_get(plan, "steps"), 0), "layers");
        done = json_object_get(json_array_get(p.report, 0), "layers");
        for (size_t k = 0; k < json_array_size(done); k++) {
            const json_t *row = json_array_get(done, k);

            for (size_t n = 0; n < json_array_size(planned); n++)
                if (json_equal(
                        json_object_get(json_array_get(planned, n), "id"), json_object_get(row, "id")) &&
                    json_object_get(row, "form"))
                    assert_true(json_equal(
                        json_object_get(json_array_get(planned, n), "bytes"), json_object_get(row, "bytes")));
        }
        json_decref(plan);
        graph_free(g);
    }
}

static void test_what_cannot_be_is_refused(void **state) {
    static const struct {
        const char *options, *text;
    } cases[] = {
        {"{\"granularity\":\"weight\"}", "one of sparsity, macs and threshold_sigma"},
        {"{\"granularity\":\"weight\",\"sparsity\":0.5,\"macs\":0.5}", "one of sparsity"},
        {"{\"granularity\":\"weight\",\"sparsity\":0.5,\"criterion\":\"thinet\"}", "steps[0].criterion"},
        {"{\"granularity\":\"weight\",\"sparsity\":0.5,\"schedule\":{\"kind\":\"gradual\"}}",
            "steps[0].schedule.kind: 'gradual' trains"},
        {"{\"granularity\":\"weight\",\"sparsity\":0.5,\"schedule\":{\"kind\":\"iterative\"}}",
            "recover.finetune"},
        {"{\"granularity\":\"weight\",\"sparsity\":0.5,\"criterion\":\"taylor\",\"schedule\":{\"kind\":\"gradual\"}," FINETUNE
         "}",
            "by magnitude, lamp or random"},
        {"{\"granularity\":\"nm\",\"nm\":[5,4]}", "steps[0].nm"},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        _cleanup_(pruned_done) struct pruned p = prune(CONVS, cases[i].options, NULL, 1);

        assert_true(p.r < 0);
        if (!strstr(p.err.text, cases[i].text))
            fail_msg("'%s' says: %s", cases[i].options, p.err.text);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_global_budgets_are_met_to_the_weight),
        cmocka_unit_test(test_the_same_share_of_each_layer_but_the_first_convolution),
        cmocka_unit_test(test_overrides_give_a_layer_its_own_share),
        cmocka_unit_test(test_sigmas_are_of_each_layer),
        cmocka_unit_test(test_budgets_of_multiplications_are_met_or_say_what_can_be),
        cmocka_unit_test(test_two_of_four_stay_everywhere_and_they_are_the_largest),
        cmocka_unit_test(test_blocks_go_as_a_whole),
        cmocka_unit_test(test_lamp_shares_out_what_magnitude_takes_from_one_layer),
        cmocka_unit_test(test_gradients_find_weights_that_nobody_listens_to),
        cmocka_unit_test(test_random_follows_the_seed_alone),
        cmocka_unit_test(test_layers_that_lose_less_lose_more),
        cmocka_unit_test(test_shares_follow_their_papers),
        cmocka_unit_test(test_gradual_ends_at_its_share_with_any_threads),
        cmocka_unit_test(test_rounds_judge_remove_and_train),
        cmocka_unit_test(test_a_round_that_costs_too_much_is_undone),
        cmocka_unit_test(test_zeros_stay_when_it_learns_afterwards),
        cmocka_unit_test(test_a_second_pruning_begins_where_the_first_ended),
        cmocka_unit_test(test_regularisers_make_the_unimportant_small),
        cmocka_unit_test(test_the_dry_run_says_what_comes),
        cmocka_unit_test(test_what_cannot_be_is_refused),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
