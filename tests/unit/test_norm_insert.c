/* Batch norms put into a net and taken out: neither changes what it computes, training in between does. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "compress/norm_insert.h"
#include "compress/session.h"
#include "engine/train/trainer.h"
#include "tests/unit/cmocka_all.h"
#include "tests/unit/net_text.h"

#define N    24
#define ITEM (3 * 8 * 7)

/* y0 … y10; two convolutions share their weights, one has no bias, one ends in the graph's output. */
static const char net[] =
    "Conv x=1x3x8x7 w=6x3x3x3 b=6 pads=1,1,1,1; Relu $; Conv $ w2=6x6x3x3 pads=1,1,1,1; Relu $; "
    "Conv $ w2 b3=6 pads=1,1,1,1; Add $ y1; Relu $; Conv $ w4=6x1x3x3 b4=6 group=6; Clip $ m:0 s:6; "
    "GlobalAveragePool $; Conv $ w5=4x6x1x1 b5=4";

static int read_samples(void *ctx, int64_t first, int64_t count, float *ret, struct error *err) {
    (void)ctx;
    (void)err;
    for (int64_t i = 0; i < count; i++)
        net_text_fill(ret + i * ITEM, ITEM, 300 + (uint32_t)(first + i));
    return 0;
}

static const struct samples samples = {
    .n = N, .item = {.rank = 4, .dim = {1, 3, 8, 7}}, .read = read_samples};

static struct graph *make(const char *text) {
    struct net_text t = net_text_read(text);

    t.graph->values[t.graph->inputs[0]].shape.dim[0] = -1;
    return t.graph;
}

/* [N][n] outputs of the graph, which stays the caller's. */
static float *run(const struct graph *g, int64_t *ret_n) {
    _cleanup_(session_done) struct session s = {0};
    struct tensor in = {.dtype = DT_F32, .shape = {.rank = 4, .dim = {N, 3, 8, 7}}};
    _cleanup_(freep) float *x = alloc_aligned(N * ITEM * sizeof(float));
    struct graph *copy = NULL;
    struct error err = {0};
    float *out;

    assert_non_null(x);
    assert_int_equal(graph_clone(g, &copy, &err), 0);
    if (session_open_graph(copy, &s, &err) < 0 || session_plan(&s, &in.shape, 1, &err) < 0)
        fail_msg("%s", err.text);
    (void)read_samples(NULL, 0, N, x, NULL);
    in.data = x;
    session_run(&s, &in);
    assert_true(shape_count(&s.out[0].shape, ret_n));
    out = malloc((size_t)*ret_n * sizeof(float));
    assert_non_null(out);
    memcpy(out, s.out[0].data, (size_t)*ret_n * sizeof(float));
    return out;
}

/* Largest difference, as a share of the largest number. */
static double distance(const struct graph *a, const struct graph *b) {
    int64_t n = 0, m = 0;
    _cleanup_(freep) float *x = run(a, &n), *y = run(b, &m);
    double most = 0, largest = 0;

    assert_int_equal(n, m);
    for (int64_t i = 0; i < n; i++) {
        most = fmax(most, fabs((double)x[i] - (double)y[i]));
        largest = fmax(largest, fabs((double)x[i]));
    }
    assert_true(largest > 0.01);
    return most / largest;
}

static int count_norms(const struct graph *g) {
    int n = 0;

    for (size_t i = 0; i < g->n_nodes; i++)
        n += !strcmp(g->nodes[i].op_type, "BatchNormalization");
    return n;
}

static void test_what_is_inserted_changes_nothing(void **state) {
    _cleanup_(norm_insert_done) struct norm_insert n = {0};
    struct graph *g = make(net), *before = make(net);
    struct error err = {0};

    (void)state;
    assert_int_equal(norm_insert(g, &samples, NULL, NULL, &n, &err), 0);
    assert_int_equal(n.n, 4); /* not behind the last: it gives the output */
    assert_int_equal(count_norms(g), 4);
    assert_true(distance(before, g) < 1e-5);
    assert_int_equal(norm_insert_fold(&n, g, &err), 0);
    assert_int_equal(count_norms(g), 0);
    assert_int_equal(g->n_nodes, before->n_nodes);
    assert_true(distance(before, g) < 1e-5);
    for (size_t i = 0; i < g->n_nodes; i++) /* layers keep their names, and values theirs */
        assert_string_equal(g->nodes[i].id, before->nodes[i].id);
    graph_free(g);
    graph_free(before);
}

/* gamma is the deviation of the convolution's own numbers, beta their mean. */
static void test_what_is_inserted_was_measured(void **state) {
    _cleanup_(norm_insert_done) struct norm_insert n = {0};
    struct graph *g = make("Conv x=1x3x8x7 w=2x3x1x1 b=2; Relu $");
    double sum = 0, square = 0, count = N * 56;
    struct error err = {0};
    const float *w, *b;
    const struct node *norm;

    (void)state;
    w = g->values[graph_find_value(g, "w")].init->data;
    b = g->values[graph_find_value(g, "b")].init->data;
    for (int i = 0; i < N; i++) {
        float x[ITEM];

        (void)read_samples(NULL, i, 1, x, NULL);
        for (int k = 0; k < 56; k++) {
            double y = (double)b[1];

            for (int c = 0; c < 3; c++)
                y += (double)w[3 + c] * (double)x[c * 56 + k];
            sum += y / count;
            square += y * y / count;
        }
    }
    assert_int_equal(norm_insert(g, &samples, NULL, NULL, &n, &err), 0);
    norm = &g->nodes[graph_find_node(g, n.node[0])];
    assert_true(fabs(sum - (double)((const float *)g->values[norm->in[2]].init->data)[1]) < 1e-5);
    assert_true(fabs(sqrt(square - sum * sum + 1e-5) -
                     (double)((const float *)g->values[norm->in[1]].init->data)[1]) < 1e-5);
    graph_free(g);
}

static void test_a_trained_net_is_folded_as_it_is(void **state) {
    struct trainer_options o = {.batch = N, .lanes = 4, .uses_batch_stats = true};
    _cleanup_(norm_insert_done) struct norm_insert n = {0};
    struct loss loss = {.kind = loss_find("cross_entropy")};
    struct optim_param p = optim_defaults();
    struct graph *g = make(net), *before = make(net), *trained = NULL;
    struct trainer *t = NULL;
    float targets[N * 4] = {0};
    struct error err = {0};
    double first = 0, last = 0;
    struct optim optim;

    (void)state;
    assert_int_equal(norm_insert(g, &samples, NULL, NULL, &n, &err), 0);
    assert_int_equal(trainer_new(g, &samples.item, &o, &t, &err), 0);
    assert_int_equal(optim_init(&optim, optim_find("adam"), &p, trainer_n_gradients(t), &err), 0);
    for (int64_t i = 0; i < N; i++) {
        (void)read_samples(NULL, i, 1, trainer_input(t, i), NULL);
        targets[i * 4 + i % 4] = 1;
    }
    for (int i = 0; i < 40; i++) {
        last = trainer_gradients(t, NULL, &loss, targets);
        first = i ? first : last;
        assert_true(trainer_move(t, NULL, &optim, 0.01f));
    }
    assert_true(last < 0.9 * first);
    assert_int_equal(trainer_save(t, g, &err), 0);
    assert_int_equal(graph_clone(g, &trained, &err), 0);
    assert_int_equal(norm_insert_fold(&n, g, &err), 0);
    assert_int_equal(count_norms(g), 0);
    assert_true(distance(trained, g) < 1e-5);
    assert_true(distance(before, g) > 0.01);
    optim_done(&optim);
    trainer_free(t);
    graph_free(trained);
    graph_free(before);
    graph_free(g);
}

static void test_undoing_gives_the_graph_as_it_was(void **state) {
    _cleanup_(norm_insert_done) struct norm_insert n = {0};
    struct graph *g = make(net);
    size_t n_nodes = g->n_nodes, n_values = g->n_values;
    const void *w = g->values[graph_find_value(g, "w")].init->data;
    struct error err = {0};

    (void)state;
    assert_int_equal(norm_insert(g, NULL, NULL, NULL, &n, &err), 0);
    assert_int_equal(count_norms(g), 4);
    norm_insert_undo(&n, g);
    norm_insert_done(&n);
    assert_int_equal(g->n_nodes, n_nodes);
    assert_int_equal(g->n_values, n_values);
    assert_ptr_equal(g->values[graph_find_value(g, "w")].init->data, w);
    assert_int_equal(graph_finish(g, &err), 0);
    norm_insert_undo(&n, g); /* nothing was inserted: nothing happens */
    assert_int_equal(g->n_nodes, n_nodes);
    graph_free(g);
}

static void test_frozen_layers_and_those_with_a_norm_get_none(void **state) {
    _cleanup_(norm_insert_done) struct norm_insert n = {0};
    struct graph *g =
        make("Conv x=1x3x8x7 w=6x3x3x3; BatchNormalization $ s=6 b=6 m=6 p=6; Relu $; Conv $ w2=6x6x3x3; "
             "Relu $; Conv $ w3=6x6x1x1 b3=6; Relu $");
    int value = graph_find_value(g, "w2");
    struct frozen frozen = {.value = &value, .n = 1};
    struct error err = {0};

    (void)state;
    assert_int_equal(norm_insert(g, &samples, &frozen, NULL, &n, &err), 0);
    assert_int_equal(n.n, 1);
    assert_int_equal(norm_insert_fold(&n, g, &err), 0);
    assert_int_equal(count_norms(g), 1); /* the net's own stays */
    graph_free(g);
}

static void expect_due(const char *text, bool is_due) {
    struct graph *g = make(text);

    assert_int_equal(norm_insert_is_due(g), is_due);
    graph_free(g);
}

static void test_deep_nets_without_norms_are_due(void **state) {
    char deep[2048] = "Conv x=1x3x8x7 w=3x3x1x1", with[2100];

    (void)state;
    expect_due(net, false); /* five convolutions */
    for (int i = 0; i < 9; i++)
        strcat(deep, "; Conv $ w");
    expect_due(deep, true);
    snprintf(with, sizeof(with), "%s; BatchNormalization $ s=3 b=3 m=3 p=3", deep);
    expect_due(with, false);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_what_is_inserted_changes_nothing),
        cmocka_unit_test(test_what_is_inserted_was_measured),
        cmocka_unit_test(test_a_trained_net_is_folded_as_it_is),
        cmocka_unit_test(test_undoing_gives_the_graph_as_it_was),
        cmocka_unit_test(test_frozen_layers_and_those_with_a_norm_get_none),
        cmocka_unit_test(test_deep_nets_without_norms_are_due),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
