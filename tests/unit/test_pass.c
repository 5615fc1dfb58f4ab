/* ONNX-level passes: the network computes the same after each, and after being written and read. The oracle
 * is the operators' reference forward. */
#include "tests/unit/cmocka_all.h"

#include <errno.h>
#include <math.h>
#include <string.h>

#include "engine/net.h"
#include "engine/onnx_read.h"
#include "engine/pass.h"
#include "engine/shape_infer.h"
#include "tests/unit/model_file.h"

struct run {
    size_t n;
    struct tensor out[4];
};

static void run_done(struct run *r) {
    for (size_t i = 0; i < r->n; i++)
        free(r->out[i].data);
}

/* The same numbers for the same element, in [-1, 1). */
static void fill_input(float *x, int64_t n) {
    uint32_t s = 12345;

    for (int64_t i = 0; i < n; i++) {
        s = s * 1664525u + 1013904223u;
        x[i] = (float)(s >> 8) / (float)(1 << 23) - 1.0f;
    }
}

static void run_graph(const struct graph *g, int64_t batch, struct run *ret) {
    struct error e = {0};
    struct net_options o = {.reference = true};
    struct graph *copy = NULL;
    struct net *net = NULL;
    struct plan *plan = NULL;
    struct shape shape;
    struct tensor in = {.dtype = DT_F32};
    struct arena arena = {0};
    size_t size;
    int64_t n = 0;

    assert_int_equal(g->n_inputs, 1);
    shapes_sample(g, batch, 64, &shape);
    if (graph_clone(g, &copy, &e) < 0 || net_new(copy, &o, &net, &e) < 0 ||
        net_plan(net, &shape, 1, &plan, &e) < 0)
        fail_msg("%s", e.text);
    assert_true(shape_bytes(&shape, DT_F32, &size) && shape_count(&shape, &n));
    in.shape = shape;
    in.data = malloc(size + 1);
    assert_non_null(in.data);
    fill_input(in.data, n);
    ret->n = plan_n_outputs(plan);
    for (size_t i = 0; i < ret->n; i++) {
        ret->out[i] = *plan_output(plan, i);
        assert_true(shape_bytes(&ret->out[i].shape, ret->out[i].dtype, &size));
        ret->out[i].data = malloc(size + 1);
        assert_non_null(ret->out[i].data);
    }
    assert_int_equal(arena_reserve(&arena, plan_arena_size(plan), &e), 0);
    plan_run(plan, &arena, &in, ret->out, NULL, NULL);
    arena_done(&arena);
    plan_unref(plan);
    net_unref(net);
    free(in.data);
}

/* Largest difference relative to the largest output; both of the same shape. */
static double difference(const struct run *a, const struct run *b) {
    double worst = 0, largest = 1e-30;

    assert_int_equal(a->n, b->n);
    for (size_t i = 0; i < a->n; i++) {
        const float *x = a->out[i].data, *y = b->out[i].data;
        int64_t n;

        assert_true(shape_equal(&a->out[i].shape, &b->out[i].shape));
        assert_true(shape_count(&a->out[i].shape, &n));
        for (int64_t k = 0; k < n; k++) {
            worst = fmax(worst, fabs((double)x[k] - (double)y[k]));
            largest = fmax(largest, fabs((double)x[k]));
        }
    }
    return worst / largest;
}

static size_t count_ops(const struct graph *g, const char *op_type) {
    size_t n = 0;

    for (size_t i = 0; i < g->n_nodes; i++)
        n += strcmp(g->nodes[i].op_type, op_type) == 0;
    return n;
}

static struct graph *load(const char *path) {
    struct error e = {0};
    struct graph *g = NULL;
    int fd = open(path, O_RDONLY | O_CLOEXEC);

    if (fd < 0 || onnx_read_fd(fd, &g, &e) < 0)
        fail_msg("%s: %s", path, e.text);
    close(fd);
    return g;
}

static void check_same_after_writing(const struct graph *g, const struct run *want, int64_t batch) {
    struct error e = {0};
    struct graph *again = NULL;
    struct run got;
    size_t size = 0;
    uint8_t *file = written_bytes(g, &size, &e);

    assert_non_null(file);
    if (onnx_read(file, size, &again, &e) < 0)
        fail_msg("%s", e.text);
    assert_int_equal(again->n_nodes, g->n_nodes);
    for (size_t i = 0; i < g->n_nodes; i++)
        assert_string_equal(again->nodes[i].id, g->nodes[i].id);
    run_graph(again, batch, &got);
    assert_true(difference(want, &got) < 1e-5);
    run_done(&got);
    graph_free(again);
    free(file);
}

static void run_all_passes(struct graph *g) {
    static int (*const passes[])(struct graph *, struct error *) = {
        pass_remove_identities, pass_fold_constants, pass_merge_pads, pass_fold_batch_norm};

    for (size_t i = 0; i < sizeof(passes) / sizeof(passes[0]); i++) {
        struct error e = {0};

        if (passes[i](g, &e) < 0)
            fail_msg("pass %zu: %s", i, e.text);
    }
}

static const struct {
    const char *file;
    size_t n_nodes;           /* after all passes */
    const char *gone, *stays; /* operators */
} cases[] = {
    {"conv_pad_bn", 2, "Pad", "Conv"},
    {"transposed_bn", 1, "BatchNormalization", "ConvTranspose"},
    {"gemm_arithmetic", 1, "Sub", "Gemm"},
    {"shared_identity", 2, "Identity", "Conv"},
    {"pool_pad", 1, "Pad", "AveragePool"},
    {"shape_subgraph", 5, "Identity", "Reshape"},
    {"qdq", 4, "Identity", "DequantizeLinear"},
};

static void test_each_pattern_folds_and_computes_the_same(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        char path[512];
        struct graph *g;
        struct run before, after;

        snprintf(path, sizeof(path), "%s/models/%s.onnx", TEST_DATA, cases[i].file);
        g = load(path);
        run_graph(g, 2, &before);
        run_all_passes(g);
        run_graph(g, 2, &after);
        if (difference(&before, &after) > 1e-5 || g->n_nodes != cases[i].n_nodes ||
            count_ops(g, cases[i].gone) || !count_ops(g, cases[i].stays))
            fail_msg("%s: %zu nodes, difference %g", path, g->n_nodes, difference(&before, &after));
        check_same_after_writing(g, &before, 2);
        run_done(&before);
        run_done(&after);
        graph_free(g);
    }
}

static void test_a_real_network_computes_the_same_after_all_passes(void **state) {
    struct graph *g = load(TEST_DATA "/models/mnist-8.onnx");
    struct run before, after;

    (void)state;
    run_graph(g, 1, &before);
    run_all_passes(g);
    /* the biases are in the convolutions, the weights' Reshape is done */
    assert_int_equal(count_ops(g, "Add"), 1);
    assert_int_equal(count_ops(g, "Reshape"), 1);
    run_graph(g, 1, &after);
    assert_true(difference(&before, &after) < 1e-5);
    check_same_after_writing(g, &before, 1);
    run_done(&before);
    run_done(&after);
    graph_free(g);
}

/* Somebody else's folding of the same network: as few nodes, the same answers. */
static void test_ultraface_folds_to_what_others_folded(void **state) {
    const char *shared = getenv("BONSAI_SHARED");
    char path[4096];
    struct graph *g, *simplified;
    struct run a, b;

    (void)state;
    if (!shared)
        skip();
    snprintf(path, sizeof(path), "%s/models/public/ultraface-RFB-320.onnx", shared);
    g = load(path);
    snprintf(path, sizeof(path), "%s/models/public/ultraface-RFB-320-simplified.onnx", shared);
    simplified = load(path);
    run_all_passes(g);
    assert_int_equal(count_ops(g, "BatchNormalization"), 0);
    assert_int_equal(count_ops(g, "Conv"), count_ops(simplified, "Conv"));
    for (size_t i = 0; i < g->n_nodes; i++)
        assert_true(strcmp(g->nodes[i].op_type, "Shape") != 0 && strcmp(g->nodes[i].op_type, "Gather") != 0);
    run_graph(g, 1, &a);
    run_graph(simplified, 1, &b);
    /* the simplified file leaves the boxes undecoded: scores are output 0 of both */
    b.n = a.n = 1;
    assert_true(difference(&a, &b) < 1e-4);
    a.n = b.n = 2;
    run_done(&a);
    run_done(&b);
    graph_free(g);
    graph_free(simplified);
}

/* All the real networks, with and without the passes. */
static void test_every_shared_model_computes_the_same_after_all_passes(void **state) {
    static const char *const names[] = {"public/nsfwjs-mobilenetv2", "public/ppocr-cls", "public/ppocrv4-det",
        "public/super-resolution-10", "public/ultraface-RFB-320", "user/lenet5_fashion",
        "user/resnet20_cifar10"};
    const char *shared = getenv("BONSAI_SHARED");

    (void)state;
    if (!shared)
        skip();
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        char path[4096];
        struct run before, after;
        struct graph *g;

        snprintf(path, sizeof(path), "%s/models/%s.onnx", shared, names[i]);
        g = load(path);
        run_graph(g, 1, &before);
        run_all_passes(g);
        assert_int_equal(count_ops(g, "BatchNormalization"), 0);
        run_graph(g, 1, &after);
        if (difference(&before, &after) > 1e-4)
            fail_msg("%s: difference %g", names[i], difference(&before, &after));
        check_same_after_writing(g, &after, 1);
        run_done(&before);
        run_done(&after);
        graph_free(g);
    }
}

/* The expanded network computes in float what the quantised one rounds: within a few steps of its scales. */
static void test_a_quantised_network_expands_to_floats(void **state) {
    struct run quantised, expanded;
    struct error err = {0};
    struct graph *g;

    (void)state;
    g = load(TEST_DATA "/models/qdq.onnx");
    run_graph(g, 1, &quantised);
    assert_true(count_ops(g, "DequantizeLinear") > 0);
    assert_int_equal(pass_expand(g, &err), 0);
    assert_int_equal(count_ops(g, "DequantizeLinear") + count_ops(g, "QuantizeLinear"), 0);
    run_graph(g, 1, &expanded);
    assert_true(difference(&quantised, &expanded) < 0.1);
    check_same_after_writing(g, &expanded, 1);
    run_done(&quantised);
    run_done(&expanded);
    graph_free(g);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_each_pattern_folds_and_computes_the_same),
        cmocka_unit_test(test_a_quantised_network_expands_to_floats),
        cmocka_unit_test(test_a_real_network_computes_the_same_after_all_passes),
        cmocka_unit_test(test_ultraface_folds_to_what_others_folded),
        cmocka_unit_test(test_every_shared_model_computes_the_same_after_all_passes),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
