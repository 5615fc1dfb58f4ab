/* Walks the operator table: sorted, every field there, a recorded ONNX case for every row. */
#include "engine/ops.h"

#include <dirent.h>
#include <fcntl.h>
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

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_table_is_sorted),
        cmocka_unit_test(test_every_row_is_found),
        cmocka_unit_test(test_every_row_is_whole),
        cmocka_unit_test(test_every_row_has_a_case),
        cmocka_unit_test(test_absolute_values_are_summed),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
