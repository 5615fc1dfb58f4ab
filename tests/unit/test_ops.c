/* Walks the operator table: sorted, every field there, a recorded ONNX case for every row. */
#include "engine/ops.h"

#include <dirent.h>
#include <fcntl.h>
#include <math.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "engine/onnx.h"
#include "tests/unit/cmocka_all.h"
#include "tests/unit/net_text.h"

#define MAX_ROWS 512

static void test_table_is_sorted(void **state) {
    (void)state;
    for (size_t i = 1; i < op_table_size; i++)
        if (strcmp(op_table[i - 1]->name, op_table[i]->name) >= 0)
            fail_msg("%s stands before %s", op_table[i - 1]->name, op_table[i]->name);
}

static void test_every_row_is_found(void **state) {
    (void)state;
    for (size_t i = 0; i < op_table_size; i++)
        assert_ptr_equal(op_find(op_table[i]->domain, op_table[i]->name), op_table[i]);
    assert_null(op_find("", "Aaa"));
    assert_null(op_find("", "Zzz"));
    assert_null(op_find("com.example", "Relu"));
}

static void test_every_row_is_whole(void **state) {
    (void)state;
    for (size_t i = 0; i < op_table_size; i++) {
        const struct op *op = op_table[i];

        if (!op->shape || !op->forward || !op->cost)
            fail_msg("%s lacks shape, forward or cost", op->name);
        if (op->since < 1 || op->since > op->until || op->until < 9)
            fail_msg("%s has the opsets %d to %d", op->name, op->since, op->until);
        if (op->min_in > op->max_in || op->min_out < 1 || op->min_out > op->max_out)
            fail_msg("%s takes %d to %d inputs, gives %d to %d outputs", op->name, op->min_in, op->max_in,
                op->min_out, op->max_out);
        if (op->is_clamp && !op->is_unary)
            fail_msg("%s is a clamp and not unary", op->name);
        if (op->is_unary && (op->layouts != OP_LAYOUT_ANY || op->couple != OP_COUPLE_SAME))
            fail_msg("%s is unary, yet not of any layout or ties other channels", op->name);
    }
}

static size_t row_of(const struct op *op) {
    for (size_t i = 0; i < op_table_size; i++)
        if (op_table[i] == op)
            return i;
    fail_msg("no row of %s", op->name);
    return 0;
}

static void mark_operators(const char *path, bool *has_case) {
    _cleanup_(graph_freep) struct graph *g = NULL;
    _cleanup_(closep) int fd = open(path, O_RDONLY | O_CLOEXEC);
    struct error err = {0};

    assert_true(fd >= 0);
    if (onnx_read_fd(fd, &g, &err) < 0)
        fail_msg("%s: %s", path, err.text);
    for (size_t i = 0; i < g->n_nodes; i++)
        has_case[row_of(g->nodes[i].op)] = true;
}

/* Operators ONNX has no case of with its own node: see test_absolute_values_are_summed. */
static bool is_tested_here(const char *name) {
    return !strcmp(name, "ReduceL1");
}

static void test_every_row_has_a_case(void **state) {
    bool has_case[MAX_ROWS] = {false};
    DIR *folder = opendir(TEST_DATA "/onnx");
    const struct dirent *e;

    (void)state;
    assert_non_null(folder);
    assert_true(op_table_size <= MAX_ROWS);
    while ((e = readdir(folder))) {
        char path[1024];

        if (strncmp(e->d_name, "test_", 5) != 0)
            continue;
        snprintf(path, sizeof(path), TEST_DATA "/onnx/%s/model.onnx", e->d_name);
        mark_operators(path, has_case);
    }
    closedir(folder);
    for (size_t i = 0; i < op_table_size; i++)
        if (!has_case[i] && !is_tested_here(op_table[i]->name))
            fail_msg("%s has no case under tests/data/onnx", op_table[i]->name);
}

static void test_absolute_values_are_summed(void **state) {
    struct net_text text = net_text_read("ReduceL1 x=2x3x1 axes=0,1 keepdims=0");
    const struct node *n = &text.graph->nodes[0];
    float x[6] = {1, -2, 3, -4, 5, -6}, y[1];
    double scratch[1];
    struct tensor in = {.dtype = DT_F32, .shape = {3, {2, 3, 1}}, .data = x}, out = {.data = y};
    const struct tensor *inputs[] = {&in};
    struct error err = {0};

    (void)state;
    assert_int_equal(n->op->shape(n, inputs, &out, &err), 0);
    assert_int_equal(out.shape.rank, 1);
    n->op->forward(n, inputs, &out, scratch);
    assert_float_equal(y[0], 21, 0);
    graph_free(text.graph);
}

/* Shapes and constants that no forward could take, and what the sentence says of them. */
static const struct {
    const char *net, *says;
} refused[] = {
    {"CumSum x=3x2 n:4i", "axis 4 of a tensor of rank 2"},
    {"DepthToSpace x=1x6x2x2 blocksize=2", "blocks of 2 do not divide"},
    {"InstanceNormalization x=1x4x2x2 s=3 b=4", "input 1 has 3 values, 4 are needed"},
    {"LpPool x=1x2x3x3 kernel_shape=5,5", "does not fit"},
    {"Resize x=1x1x4x4 _ s:1,1,2,0", "the scale of dimension 3 is 0"},
    {"Resize x=1x1x4x4 _ _ n:1,1,0,3i", "dimension 2 cannot become 0"},
    {"Resize x=1x1x4x4 _ _ n:2,3i axes=2,-2", "axis 2 is given twice"},
    {"Resize x=1x1x4x4 _ s:1,1,2,2 coordinate_transformation_mode=tf_crop_and_resize",
        "the roi is not 8 floats"},
    {"ScatterElements x=3x2 n=1x2 u=1x2", "not int64 or int32"},
    {"SpaceToDepth x=1x2x3x4 blocksize=2", "blocks of 2 do not divide"},
    {"Tile x=2x3 n:2,3,4i", "3 repeats for an input of rank 2"},
    {"Tile x=2x3 n:2,-3i", "repeated -3 times"},
    {"TopK x=3x4 n:5i", "K is 5, the axis has 4"},
};

static void test_what_cannot_be_run_is_refused_with_a_sentence(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof(refused) / sizeof(refused[0]); i++) {
        struct net_text text = net_text_read(refused[i].net);
        struct net_options o = {.reference = true};
        struct error err = {0};
        struct net *net;
        struct plan *plan;

        assert_int_equal(net_new(text.graph, &o, &net, &err), 0);
        if (net_plan(net, text.input, 1, &plan, &err) == 0)
            fail_msg("%s was planned", refused[i].net);
        if (!strstr(err.text, refused[i].says) || !strstr(err.text, "node '"))
            fail_msg("%s: '%s'", refused[i].net, err.text);
        net_unref(net);
    }
}

/* An empty tensor has no element, yet sums over one axis need room for each of the others. */
static void test_empty_shapes_are_bounded(void **state) {
    struct shape s = {2, {0, (int64_t)1 << 61}};
    int64_t n = -1;

    (void)state;
    assert_false(shape_count(&s, &n));
    s = (struct shape){3, {(int64_t)1 << 40, 0, (int64_t)1 << 40}};
    assert_false(shape_count(&s, &n));
    s = (struct shape){3, {5, 0, 7}};
    assert_true(shape_count(&s, &n));
    assert_int_equal(n, 0);
    s.dim[1] = (int64_t)1 << 40; /* not empty: only what cannot be counted is refused */
    assert_true(shape_count(&s, &n));
}

/* A range that is no number gives codes, not whatever the machine converts it to. */
static void test_infinite_ranges_are_quantised(void **state) {
    struct net_text text = net_text_read("DynamicQuantizeLinear x=2 >3");
    const struct node *n = &text.graph->nodes[0];
    float x[2] = {-HUGE_VALF, HUGE_VALF}, scale;
    uint8_t y[2] = {1, 1}, zero = 1;
    struct tensor in = {.dtype = DT_F32, .shape = {1, {2}}, .data = x};
    struct tensor out[3] = {{0}, {0}, {0}};
    const struct tensor *inputs[] = {&in};
    struct error err = {0};

    (void)state;
    assert_int_equal(n->op->shape(n, inputs, out, &err), 0);
    out[0].data = y;
    out[1].data = &scale;
    out[2].data = &zero;
    n->op->forward(n, inputs, out, NULL);
    assert_int_equal(zero, 0);
    assert_int_equal(y[0], 0);
    assert_int_equal(y[1], 0);
    graph_free(text.graph);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_table_is_sorted),
        cmocka_unit_test(test_every_row_is_found),
        cmocka_unit_test(test_every_row_is_whole),
        cmocka_unit_test(test_every_row_has_a_case),
        cmocka_unit_test(test_absolute_values_are_summed),
        cmocka_unit_test(test_what_cannot_be_run_is_refused_with_a_sentence),
        cmocka_unit_test(test_empty_shapes_are_bounded),
        cmocka_unit_test(test_infinite_ranges_are_quantised),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
