/* Editing graphs, layer ids, clones, summaries. */
#include "tests/unit/cmocka_all.h"

#include <errno.h>
#include <string.h>

#include "engine/nonzero.h"
#include "engine/onnx.h"
#include "engine/onnx_read.h"
#include "engine/summary.h"
#include "tests/unit/model_file.h"

static struct graph *load(const char *name) {
    struct error e = {0};
    struct graph *g = NULL;
    char path[512];
    int fd;

    snprintf(path, sizeof(path), "%s/models/%s.onnx", TEST_DATA, name);
    fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0 || onnx_read_fd(fd, &g, &e) < 0)
        fail_msg("%s: %s", path, e.text);
    close(fd);
    return g;
}

static struct graph *write_and_read(const struct graph *g, uint8_t **ret_file) {
    struct error e = {0};
    struct graph *again = NULL;
    size_t size = 0;

    *ret_file = written_bytes(g, &size, &e);
    assert_non_null(*ret_file);
    if (onnx_read(*ret_file, size, &again, &e) < 0)
        fail_msg("%s", e.text);
    return again;
}

/* A graph made from nothing: x → Relu → Mul by a constant → y. */
static struct graph *make(int64_t ir) {
    struct graph *g = graph_new();
    struct shape s = {.rank = 2, .dim = {-1, 3}}, one = {.rank = 1, .dim = {3}};
    const float k[3] = {1, 2, 3};
    struct tensor t = tensor_view(DT_F32, &one, k);
    struct error e = {0};
    int x, y, r, w;

    assert_non_null(g);
    g->ir_version = ir;
    g->opset = 13;
    x = graph_add_value(g, "x", DT_F32, &s);
    y = graph_add_value(g, "y", DT_F32, &s);
    r = graph_add_value(g, "r", DT_F32, &s);
    w = graph_add_init(g, "k", &t, /* data_lives= */ false);
    assert_true(x >= 0 && y >= 0 && r >= 0 && w >= 0);
    assert_int_equal(graph_add_input(g, x), 0);
    assert_int_equal(graph_add_output(g, y), 0);
    /* in the wrong order: graph_finish sorts */
    assert_true(graph_insert_node(g, 0, "Mul", "", (const int[]){r, w}, 2, &y, 1) >= 0);
    assert_true(graph_insert_node(g, 1, "Relu", "act", &x, 1, &r, 1) >= 0);
    if (graph_finish(g, &e) < 0)
        fail_msg("%s", e.text);
    return g;
}

static void test_a_graph_made_from_nothing_is_sorted_and_reads_back(void **state) {
    static const int64_t irs[] = {3, 7, 10};

    (void)state;
    for (size_t i = 0; i < sizeof(irs) / sizeof(irs[0]); i++) {
        struct graph *g = make(irs[i]), *again;
        uint8_t *file;

        assert_string_equal(g->nodes[0].id, "act");
        assert_string_equal(g->nodes[1].id, "Mul_y");
        again = write_and_read(g, &file);
        assert_int_equal(again->n_inputs, 1);
        assert_int_equal(again->n_nodes, 2);
        assert_int_equal(again->values[again->inputs[0]].shape.dim[0], -1);
        assert_memory_equal(
            again->values[graph_find_value(again, "k")].init->data, ((const float[]){1, 2, 3}), 12);
        graph_free(again);
        free(file);
        graph_free(g);
    }
}

/* The id stays when the name, the output or the place changes, in the file too. */
static void test_layer_ids_survive_edits_and_the_file(void **state) {
    static const int64_t irs[] = {7, 10};

    (void)state;
    for (size_t i = 0; i < sizeof(irs) / sizeof(irs[0]); i++) {
        struct graph *g = make(irs[i]), *again, *third;
        struct error e = {0};
        uint8_t *file, *file2;
        int z = graph_add_value(g, "z", DT_F32, NULL);

        /* Mul makes z now, a new Relu makes y */
        g->nodes[1].out[0] = z;
        assert_true(graph_insert_node(g, 2, "Relu", "last", &z, 1, &g->outputs[0], 1) >= 0);
        assert_int_equal(graph_finish(g, &e), 0);
        assert_string_equal(g->nodes[1].id, "Mul_y");
        again = write_and_read(g, &file);
        assert_string_equal(again->nodes[1].id, "Mul_y");
        assert_string_equal(again->nodes[2].id, "last");
        /* ours is no property of the user's */
        assert_int_equal(again->n_props, 0);
        third = write_and_read(again, &file2);
        assert_string_equal(third->nodes[1].id, "Mul_y");
        graph_free(third);
        free(file2);
        graph_free(again);
        free(file);
        graph_free(g);
    }
}

static void test_equal_names_give_ids_by_output(void **state) {
    struct graph *g = make(7);
    struct error e = {0};
    struct shape s = {.rank = 2, .dim = {-1, 3}};
    int p = graph_add_value(g, "p", DT_F32, &s), q = graph_add_value(g, "q", DT_F32, &s);

    (void)state;
    assert_true(graph_insert_node(g, 2, "Relu", "same", &g->inputs[0], 1, &p, 1) >= 0);
    assert_true(graph_insert_node(g, 3, "Relu", "same", &g->inputs[0], 1, &q, 1) >= 0);
    assert_int_equal(graph_finish(g, &e), 0);
    assert_true(graph_find_node(g, "Relu_p") >= 0);
    assert_true(graph_find_node(g, "Relu_q") >= 0);
    assert_int_equal(graph_find_node(g, "same"), -1);
    graph_free(g);
}

static void test_a_clone_is_edited_alone_and_outlives_its_origin(void **state) {
    struct graph *g = load("conv_pad_bn"), *c = NULL;
    struct error e = {0};
    size_t n_nodes = g->n_nodes;
    int w;

    (void)state;
    assert_int_equal(graph_clone(g, &c, &e), 0);
    graph_remove_node(c, 0);
    assert_int_equal(graph_set_attr_int(c, &c->nodes[0], "group", 7), 0);
    assert_int_equal(g->n_nodes, n_nodes);
    assert_int_equal(node_attr_int(&g->nodes[1], "group", 1), 1);
    w = graph_find_value(g, "w");
    assert_ptr_equal(g->values[w].init, c->values[w].init);
    graph_free(g);
    /* the file is still mapped */
    assert_int_equal(c->values[w].init->dtype, DT_F32);
    assert_true(((const uint8_t *)c->values[w].init->data)[0] + 1 > 0);
    assert_string_equal(c->nodes[0].op_type, "Conv");
    graph_free(c);
}

static void test_unused_nodes_and_initialisers_go(void **state) {
    struct graph *g = make(7);
    struct shape s = {.rank = 1, .dim = {3}};
    struct error e = {0};
    int p = graph_add_value(g, "p", DT_F32, &s), k = graph_find_value(g, "k");

    (void)state;
    assert_true(graph_insert_node(g, 0, "Relu", "idle", &k, 1, &p, 1) >= 0);
    assert_int_equal(graph_drop_unused(g), 0);
    assert_int_equal(graph_finish(g, &e), 0);
    assert_int_equal(g->n_nodes, 2);
    assert_non_null(g->values[k].init);
    /* the output is the input now: nothing is needed */
    graph_replace_value(g, g->outputs[0], g->inputs[0]);
    assert_int_equal(graph_drop_unused(g), 0);
    assert_int_equal(g->n_nodes, 0);
    assert_null(g->values[k].init);
    graph_free(g);
}

static void test_the_summary_counts_what_is_there(void **state) {
    struct graph *g = load("mnist-8");
    struct summary *s = NULL;
    struct error e = {0};
    char text[SHAPE_TEXT_MAX];
    int n_found = 0;

    (void)state;
    if (summary_new(g, &s, &e) < 0)
        fail_msg("%s", e.text);
    assert_int_equal(s->n_inputs, 1);
    assert_string_equal(s->inputs[0].name, "Input3");
    assert_string_equal(shape_text(&s->outputs[0].shape, text), "[1,10]");
    assert_string_equal(s->ops[0].op_type, "Add");
    assert_int_equal(s->ops[0].count, 3);
    /* 8*1*5*5 + 8 + 16*8*5*5 + 16 + 256*10 + 10 */
    assert_int_equal(s->parameters, 5994);
    assert_int_equal(s->nonzero, 5994);
    for (size_t i = 0; i < s->n_layers; i++)
        if (strcmp(s->layers[i].id, "Convolution110") == 0) {
            assert_string_equal(s->layers[i].op_type, "Conv");
            assert_int_equal(s->layers[i].macs, 14 * 14 * 16 * 200);
            assert_int_equal(s->layers[i].params, 16 * 8 * 5 * 5);
            assert_int_equal(s->layers[i].bytes, 4 * 16 * 8 * 5 * 5);
            n_found++;
        }
    assert_int_equal(n_found, 1);
    summary_free(s);
    graph_free(g);
}

/* -0 and, of integers, the zero point are zeros; what would have to be computed is not known. */
static void test_the_summary_counts_what_is_not_zero(void **state) {
    float floats[6] = {0, -0.0f, 1e-45f, -3, 0, 7};
    uint8_t bytes[4] = {128, 0, 127, 128}, zeros[2] = {128, 128};
    struct tensor f = {.dtype = DT_F32, .shape = {.rank = 2, .dim = {2, 3}}, .data = floats},
                  q = {.dtype = DT_U8, .shape = {.rank = 1, .dim = {4}}, .data = bytes},
                  z = {.dtype = DT_U8, .shape = {.rank = 1, .dim = {2}}, .data = (void *)(uintptr_t)zeros};
    struct value values[] = {{.init = &f, .producer = -1}, {.init = &q, .producer = -1},
        {.init = &z, .producer = -1}, {.producer = 0}, {.producer = 1}, {.producer = 2}};
    int quantised[] = {1, -1, 2}, plain[] = {1, -1}, other[] = {0};
    struct node nodes[] = {{.op_type = "DequantizeLinear", .in = quantised, .n_in = 3},
        {.op_type = "DequantizeLinear", .in = plain, .n_in = 2},
        {.op_type = "Transpose", .in = other, .n_in = 1}};
    struct graph g = {.values = values, .n_values = 6, .nodes = nodes, .n_nodes = 3};

    (void)state;
    assert_int_equal(nonzero_count(&g, 0), 3);
    assert_int_equal(nonzero_count(&g, 3), 2);
    assert_int_equal(nonzero_count(&g, 4), 3);
    assert_int_equal(nonzero_count(&g, 5), -1);
    zeros[1] = 127;
    assert_int_equal(nonzero_count(&g, 3), -1);
}

static void test_the_summary_finds_free_dimensions(void **state) {
    struct graph *g = load("shape_subgraph");
    struct summary *s = NULL;
    struct error e = {0};
    char text[SHAPE_TEXT_MAX];

    (void)state;
    if (summary_new(g, &s, &e) < 0)
        fail_msg("%s", e.text);
    assert_string_equal(shape_text(&s->inputs[0].shape, text), "[?,3,4,4]");
    assert_string_equal(shape_text(&s->outputs[0].shape, text), "[?,48]");
    summary_free(s);
    graph_free(g);
}

/* Blocks that fill memory of the arena to its last byte: none of them is alone there, so none may go. */
static void test_small_constants_stay_when_big_ones_go(void **state) {
    enum { N = 256, SIZE = 1024 };
    struct graph *g = graph_new();
    static const uint8_t zeros[N * SIZE];
    void *small[N];
    struct tensor t;
    int big;

    (void)state;
    assert_non_null(g);
    for (int i = 0; i < N; i++)
        assert_non_null(small[i] = graph_alloc(g, SIZE));
    for (int i = 0; i < N; i++) {
        t = (struct tensor){.dtype = DT_F32, .shape = {.rank = 1, .dim = {SIZE / 4}}, .data = small[i]};
        assert_true(graph_add_init(g, graph_unique_name(g, "small"), &t, true) >= 0);
    }
    t = (struct tensor){
        .dtype = DT_F32, .shape = {.rank = 1, .dim = {SIZE * N / 4}}, .data = (void *)(uintptr_t)zeros};
    big = graph_add_init(g, "big", &t, false);
    assert_true(big >= 0);
    graph_drop_constants(g);
    for (size_t i = 0; i < g->n_values; i++)
        assert_int_equal(g->values[i].init != NULL, (int)i != big);
    graph_free(g);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_graph_made_from_nothing_is_sorted_and_reads_back),
        cmocka_unit_test(test_layer_ids_survive_edits_and_the_file),
        cmocka_unit_test(test_equal_names_give_ids_by_output),
        cmocka_unit_test(test_a_clone_is_edited_alone_and_outlives_its_origin),
        cmocka_unit_test(test_unused_nodes_and_initialisers_go),
        cmocka_unit_test(test_the_summary_counts_what_is_there),
        cmocka_unit_test(test_the_summary_counts_what_is_not_zero),
        cmocka_unit_test(test_the_summary_finds_free_dimensions),
        cmocka_unit_test(test_small_constants_stay_when_big_ones_go),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
