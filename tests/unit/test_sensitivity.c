/* Damage: what networks have in common is found and not computed again, and the numbers are those of a run
 * from the input. */
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "compress/graph_cut.h"
#include "compress/sensitivity.h"
#include "engine/ops.h"
#include "tests/unit/cmocka_all.h"
#include "tests/unit/net_text.h"

#define CHAIN                                                                                                \
    "Conv x=?x1x8x8 w=8x1x3x3 b=8 pads=1,1,1,1; Relu $; Conv $ w2=8x8x3x3 b2=8 pads=1,1,1,1; Relu $; "       \
    "Conv $ w3=8x8x3x3 b3=8 pads=1,1,1,1; Relu $; Flatten $; Gemm $ w4=512x5 b4=5"
/* y1 crosses every cut up to the Add. */
#define SKIP                                                                                                 \
    "Conv x=?x1x8x8 w=8x1x3x3 b=8 pads=1,1,1,1; Relu $; Conv $ w2=8x8x3x3 b2=8 pads=1,1,1,1; Relu $; "       \
    "Conv $ w3=8x8x3x3 b3=8 pads=1,1,1,1; Add $ y1; Relu $; Flatten $; Gemm $ w4=512x5 b4=5"
/* The first output comes before the second layer. */
#define TWO "Conv x=?x1x8x8 w=4x1x3x3 b=4 pads=1,1,1,1; Relu $; Conv $ w2=2x4x3x3 b2=2 pads=1,1,1,1"

#define N 40

static int read_samples(void *ctx, int64_t first, int64_t count, float *ret, struct error *err) {
    (void)ctx;
    (void)err;
    for (int64_t i = 0; i < count; i++)
        net_text_fill(ret + i * 64, 64, (uint32_t)(first + i + 1));
    return 0;
}

static const struct samples samples = {
    .n = N, .item = {.rank = 4, .dim = {1, 1, 8, 8}}, .read = read_samples};

/* A free batch: net_text's shapes are fixed. */
static struct graph *net(const char *text) {
    _cleanup_(freep) char *fixed = strdup(text);
    struct graph *g;

    *strchr(fixed, '?') = '1';
    g = net_text_read(fixed).graph;
    g->values[g->inputs[0]].shape.dim[0] = -1;
    assert_int_equal(graph_finish(g, NULL), 0);
    return g;
}

/* The weights of layer `index` times `factor`. */
static struct graph *scaled(const struct graph *g, int index, float factor) {
    struct graph *copy;

    assert_int_equal(graph_clone(g, &copy, NULL), 0);
    for (size_t i = 0; i < copy->n_nodes; i++) {
        struct tensor t;
        int64_t n;
        int value;

        if (copy->nodes[i].op->couple != OP_COUPLE_FREE || index-- > 0)
            continue;
        t = *copy->values[copy->nodes[i].in[1]].init;
        shape_count(&t.shape, &n);
        {
            _cleanup_(freep) float *w = malloc((size_t)n * sizeof(*w));

            memcpy(w, t.data, (size_t)n * sizeof(*w));
            for (int64_t k = 0; k < n; k++)
                w[k] *= factor;
            t.data = w;
            value = graph_add_init(copy, graph_unique_name(copy, "scaled"), &t, false);
        }
        copy->nodes[i].in[1] = value;
        break;
    }
    assert_int_equal(graph_finish(copy, NULL), 0);
    return copy;
}

/* ---- digests and cuts ---- */

static void test_values_before_the_change_are_the_same_and_none_after(void **state) {
    _cleanup_(graph_freep) struct graph *g = net(CHAIN), *changed = scaled(g, 1, 0.5f);
    _cleanup_(cut_digests_done) struct cut_digests a = {0}, b = {0};

    (void)state;
    assert_int_equal(cut_digests_new(g, NULL, &a, NULL), 0);
    assert_int_equal(cut_digests_new(changed, &a, &b, NULL), 0);
    for (size_t i = 0; i < changed->n_nodes; i++) {
        int v = changed->nodes[i].out[0], found = cut_digests_find(&a, &b.value[v]);

        assert_int_equal(found, i < 2 ? g->nodes[i].out[0] : -1);
    }
}

static void test_digests_see_attributes(void **state) {
    _cleanup_(graph_freep) struct graph *g = net(CHAIN), *changed = NULL;
    _cleanup_(cut_digests_done) struct cut_digests a = {0}, b = {0};

    (void)state;
    assert_int_equal(graph_clone(g, &changed, NULL), 0);
    assert_int_equal(graph_set_attr_ints(changed, &changed->nodes[0], "pads", (int64_t[]){2, 2, 0, 0}, 4), 0);
    assert_int_equal(graph_finish(changed, NULL), 0);
    assert_int_equal(cut_digests_new(g, NULL, &a, NULL), 0);
    assert_int_equal(cut_digests_new(changed, &a, &b, NULL), 0);
    assert_int_equal(cut_digests_find(&a, &b.value[changed->nodes[0].out[0]]), -1);
    assert_true(cut_digests_find(&a, &b.value[changed->nodes[0].in[1]]) >= 0);
}

/* ---- damage ---- */

static struct sensitivity *open_on(const struct graph *g, const struct sensitivity_options *o) {
    struct sensitivity *s = NULL;
    struct error err = {0};

    if (sensitivity_open(g, &samples, o, &s, &err) < 0)
        fail_msg("%s", err.text);
    return s;
}

static struct sensitivity_damage judge(struct sensitivity *s, const struct graph *g) {
    struct sensitivity_damage d = {0};
    struct error err = {0};

    if (sensitivity_judge(s, 0, g, &d, &err) < 0)
        fail_msg("%s", err.text);
    return d;
}

static void test_an_unchanged_network_has_no_damage_and_is_not_run(void **state) {
    _cleanup_(graph_freep) struct graph *g = net(CHAIN);
    _cleanup_(sensitivity_freep) struct sensitivity *s = open_on(g, NULL);
    uint64_t before = sensitivity_facts(s)->layers_run;
    _cleanup_(sensitivity_damage_done) struct sensitivity_damage d = judge(s, g);

    (void)state;
    assert_true(d.is_same);
    assert_true(d.damage == 0 && d.kl == 0 && d.agreement == 1 && d.relative_l2[0] == 0);
    assert_int_equal(sensitivity_facts(s)->layers_run, before);
    assert_int_equal(sensitivity_facts(s)->n_classes, 5);
}

/* KL of the softmax of logits, by its definition, from the answers themselves. */
static void test_kl_is_as_defined(void **state) {
    _cleanup_(graph_freep) struct graph *g = net(CHAIN), *changed = scaled(g, 3, 0.25f);
    _cleanup_(sensitivity_freep) struct sensitivity *s = open_on(g, NULL), *t = open_on(changed, NULL);
    _cleanup_(sensitivity_damage_done) struct sensitivity_damage d = judge(s, changed);
    int64_t n;
    const float *before = sensitivity_answers(s, 0, &n), *after = sensitivity_answers(t, 0, &n);
    double all = 0, error = 0, size = 0;

    (void)state;
    assert_int_equal(n, 5 * N);
    for (int64_t i = 0; i < N; i++) {
        double p = 0, q = 0, kl = 0;

        for (int k = 0; k < 5; k++) {
            p += exp((double)before[5 * i + k]);
            q += exp((double)after[5 * i + k]);
            error += pow((double)after[5 * i + k] - (double)before[5 * i + k], 2);
            size += pow((double)before[5 * i + k], 2);
        }
        for (int k = 0; k < 5; k++) {
            double a = exp((double)before[5 * i + k]) / p, b = exp((double)after[5 * i + k]) / q;

            kl += a * log(a / b);
        }
        assert_true(fabs(d.sample[i] - kl) < 1e-6);
        all += kl;
    }
    assert_true(d.kl > 1e-4);
    assert_true(fabs(d.kl - all / N) < 1e-6);
    assert_true(fabs(d.relative_l2[0] - sqrt(error / size)) < 1e-5);
}

/* All layers, in order, with three caches: one that holds everything, one that holds nothing, none. */
static void compare_caches(const char *text, int n_layers) {
    _cleanup_(graph_freep) struct graph *g = net(text);
    const struct sensitivity_options o[] = {{0}, {.cache_bytes = 1}, {.is_uncached = true}};
    struct sensitivity *s[3];
    uint64_t run[3];

    for (int c = 0; c < 3; c++) {
        s[c] = open_on(g, &o[c]);
        run[c] = sensitivity_facts(s[c])->layers_run;
    }
    for (int i = 0; i < n_layers; i++) {
        _cleanup_(graph_freep) struct graph *changed = scaled(g, i, 0.9f);
        struct sensitivity_damage d[3];

        for (int c = 0; c < 3; c++)
            d[c] = judge(s[c], changed);
        assert_true(d[2].damage > 1e-6 && !d[2].is_same && !d[0].is_same);
        /* cut is cut, kept or not: the same numbers */
        assert_true(d[0].damage == d[1].damage);
        assert_true(fabs(d[0].damage - d[2].damage) < 1e-4 * d[2].damage + 1e-7);
        assert_memory_equal(d[0].sample, d[1].sample, N * sizeof(double));
        for (int c = 0; c < 3; c++)
            sensitivity_damage_done(&d[c]);
    }
    for (int c = 0; c < 3; c++)
        run[c] = (sensitivity_facts(s[c])->layers_run - run[c]) / N;
    assert_int_equal(run[2], n_layers * n_layers);
    /* tails of n, n-1, … layers; the head goes on by one layer each time */
    assert_int_equal(run[0], n_layers * (n_layers + 1) / 2 + n_layers - 1);
    assert_int_equal(sensitivity_facts(s[0])->layers_whole, sensitivity_facts(s[2])->layers_whole);
    for (int c = 0; c < 3; c++)
        sensitivity_free(s[c]);
}

static void test_the_cut_gives_the_same_damage_and_saves_layers(void **state) {
    (void)state;
    compare_caches(CHAIN, 4);
    compare_caches(SKIP, 4);
}

static void test_several_changes_of_one_layer_share_the_cut(void **state) {
    _cleanup_(graph_freep) struct graph *g = net(CHAIN);
    _cleanup_(sensitivity_freep) struct sensitivity *s = open_on(g, NULL);
    uint64_t before = sensitivity_facts(s)->layers_run;

    (void)state;
    for (int i = 0; i < 10; i++) {
        _cleanup_(graph_freep) struct graph *changed = scaled(g, 3, 1 - 0.05f * (float)(i + 1));
        _cleanup_(sensitivity_damage_done) struct sensitivity_damage d = judge(s, changed);

        assert_true(d.kl > 0);
    }
    assert_int_equal((sensitivity_facts(s)->layers_run - before) / N, 3 + 10);
}

static void test_a_base_may_be_the_compressed_network(void **state) {
    _cleanup_(graph_freep) struct graph *g = net(CHAIN), *a = scaled(g, 0, 0.5f), *b = scaled(a, 3, 0.5f);
    _cleanup_(sensitivity_freep) struct sensitivity *s = open_on(g, NULL);
    _cleanup_(sensitivity_damage_done) struct sensitivity_damage one = {0}, two = {0};
    size_t base = 9, again = 9;

    (void)state;
    assert_int_equal(sensitivity_add_base(s, a, &base, NULL), 0);
    assert_int_equal(base, 1);
    assert_int_equal(sensitivity_add_base(s, a, &again, NULL), 0);
    assert_int_equal(again, 1);
    assert_int_equal(sensitivity_judge(s, 1, b, &one, NULL), 0);
    assert_int_equal(sensitivity_judge(s, 0, b, &two, NULL), 0);
    assert_true(one.damage > 0);
    assert_true(fabs(one.damage - two.damage) < 1e-6);
    /* of the base itself: its own answers, though nothing is run */
    sensitivity_damage_done(&two);
    assert_int_equal(sensitivity_judge(s, 1, a, &two, NULL), 0);
    assert_true(two.damage > 0);
}

static void test_networks_of_several_outputs_are_judged_by_the_worst(void **state) {
    _cleanup_(graph_freep) struct graph *g = net(TWO), *changed = NULL;
    _cleanup_(sensitivity_freep) struct sensitivity *s = NULL;
    _cleanup_(sensitivity_damage_done) struct sensitivity_damage d = {0};

    (void)state;
    assert_int_equal(graph_add_output(g, g->nodes[1].out[0]), 0);
    changed = scaled(g, 1, 0.5f);
    s = open_on(g, NULL);
    assert_int_equal(sensitivity_facts(s)->n_classes, 0);
    assert_int_equal(sensitivity_judge(s, 0, changed, &d, NULL), 0);
    assert_true(d.relative_l2[0] > 0.3 && d.relative_l2[1] == 0);
    assert_true(d.damage == d.relative_l2[0]);
    assert_true(isnan(d.kl) && !d.answer);
}

struct half {
    int layer;
};

static int make_half(void *ctx, const struct graph *parent, struct graph **ret, struct error *err) {
    const struct half *h = ctx;

    if (h->layer < 0)
        return error_set(err, -EINVAL, "no layer");
    *ret = scaled(parent, h->layer, 0.5f);
    return 0;
}

static void test_all_asks_are_answered_or_none(void **state) {
    _cleanup_(graph_freep) struct graph *g = net(CHAIN);
    struct half half[] = {{0}, {2}, {3}};
    struct sensitivity_ask asks[] = {{make_half, &half[0]}, {make_half, &half[1]}, {make_half, &half[2]}};
    struct sensitivity_damage d[3] = {{0}};
    struct error err = {0};

    (void)state;
    assert_int_equal(sensitivity_measure(g, &samples, NULL, asks, 3, d, &err), 0);
    for (int i = 0; i < 3; i++) {
        assert_true(d[i].kl > 0);
        sensitivity_damage_done(&d[i]);
    }
    half[2].layer = -1;
    assert_int_equal(sensitivity_measure(g, &samples, NULL, asks, 3, d, &err), -EINVAL);
    assert_null(d[0].sample);
}

static bool always(void *ctx) {
    (void)ctx;
    return true;
}

static void test_it_can_be_cancelled(void **state) {
    _cleanup_(graph_freep) struct graph *g = net(CHAIN);
    struct progress p = {.is_cancelled = always};
    struct sensitivity *s = NULL;

    (void)state;
    assert_int_equal(
        sensitivity_open(g, &samples, &(struct sensitivity_options){.progress = &p}, &s, NULL), -ECANCELED);
    assert_null(s);
}

static void test_networks_of_two_inputs_are_refused(void **state) {
    _cleanup_(graph_freep) struct graph *g = net_text_read("Add x=1x1x8x8 x2=1x1x8x8").graph;
    struct sensitivity *s = NULL;
    struct error err = {0};

    (void)state;
    assert_int_equal(sensitivity_open(g, &samples, NULL, &s, &err), -EBADMSG);
    assert_string_equal(err.code, "method_not_applicable");
    assert_non_null(strstr(err.text, "2 inputs"));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_values_before_the_change_are_the_same_and_none_after),
        cmocka_unit_test(test_digests_see_attributes),
        cmocka_unit_test(test_an_unchanged_network_has_no_damage_and_is_not_run),
        cmocka_unit_test(test_kl_is_as_defined),
        cmocka_unit_test(test_the_cut_gives_the_same_damage_and_saves_layers),
        cmocka_unit_test(test_several_changes_of_one_layer_share_the_cut),
        cmocka_unit_test(test_a_base_may_be_the_compressed_network),
        cmocka_unit_test(test_networks_of_several_outputs_are_judged_by_the_worst),
        cmocka_unit_test(test_all_asks_are_answered_or_none),
        cmocka_unit_test(test_it_can_be_cancelled),
        cmocka_unit_test(test_networks_of_two_inputs_are_refused),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
