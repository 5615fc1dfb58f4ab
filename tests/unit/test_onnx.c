/* The reader and the writer on good and bad files. */
#include "tests/unit/cmocka_all.h"

#include <errno.h>
#include <glob.h>
#include <string.h>

#include "engine/onnx.h"
#include "engine/onnx_read.h"
#include "tests/unit/model_file.h"
#include "tests/unit/proto.h"

#define MNIST TEST_DATA "/models/mnist-8.onnx"

static void test_reads_a_real_model_with_its_types_and_shapes(void **state) {
    struct error e = {0};
    struct graph *g = NULL;
    size_t size = 0;
    uint8_t *file = data_bytes(MNIST, &size);
    const struct value *v;
    char text[SHAPE_TEXT_MAX];

    (void)state;
    assert_non_null(file);
    assert_int_equal(onnx_parse(file, size, &g, &e), 0);
    assert_int_equal(g->ir_version, 3);
    assert_int_equal(g->opset, 8);
    assert_int_equal(g->n_nodes, 12);
    assert_string_equal(g->producer, "CNTK 2.5.1");
    /* IR 3 lists initialisers as inputs: only the picture is one */
    assert_int_equal(g->n_inputs, 1);
    v = &g->values[g->inputs[0]];
    assert_string_equal(v->name, "Input3");
    assert_int_equal(v->dtype, DT_F32);
    assert_string_equal(shape_text(&v->shape, text), "[1,1,28,28]");
    v = &g->values[graph_find_value(g, "Parameter5")];
    assert_string_equal(shape_text(&v->init->shape, text), "[8,1,5,5]");
    /* zero-copy: the bytes are the file's */
    assert_true((uint8_t *)v->init->data >= file && (uint8_t *)v->init->data < file + size);
    graph_free(g);
    free(file);
}

static void check_same_constants(const struct graph *a, const struct graph *b) {
    assert_int_equal(a->n_values, b->n_values);
    for (size_t i = 0; i < a->n_values; i++) {
        const struct tensor *x = a->values[i].init, *y = NULL;
        int id = graph_find_value(b, a->values[i].name);
        size_t size;

        assert_true(id >= 0);
        y = b->values[id].init;
        assert_int_equal(x != NULL, y != NULL);
        if (!x)
            continue;
        assert_true(x->dtype == y->dtype && shape_equal(&x->shape, &y->shape));
        assert_true(shape_bytes(&x->shape, x->dtype, &size));
        assert_memory_equal(x->data, y->data, size);
    }
}

/* Read, written and read again: the same constants; written once more: the same bytes. Only fields that are
 * there but empty are left out. */
static void check_round_trip(const char *path) {
    struct error e = {0};
    struct graph *g = NULL, *again = NULL;
    size_t size = 0, first_size = 0, second_size = 0;
    uint8_t *file = data_bytes(path, &size), *first, *second;

    assert_non_null(file);
    assert_int_equal(onnx_parse(file, size, &g, &e), 0);
    first = written_bytes(g, &first_size, &e);
    assert_non_null(first);
    assert_true(first_size <= size && first_size + 4 * g->n_nodes >= size);
    assert_int_equal(onnx_parse(first, first_size, &again, &e), 0);
    check_same_constants(g, again);
    second = written_bytes(again, &second_size, &e);
    assert_non_null(second);
    assert_int_equal(first_size, second_size);
    assert_memory_equal(first, second, first_size);
    free(second);
    free(first);
    graph_free(again);
    graph_free(g);
    free(file);
}

static void test_what_was_read_is_written_again(void **state) {
    (void)state;
    check_round_trip(MNIST);
    check_round_trip(TEST_DATA "/../../clients/demo/lenet5_fashion.onnx");
}

/* The larger set of real networks, when it is there. */
static void test_every_shared_model_is_written_again(void **state) {
    const char *shared = getenv("BONSAI_SHARED");
    char pattern[4096];
    glob_t files;

    (void)state;
    if (!shared)
        skip();
    snprintf(pattern, sizeof(pattern), "%s/models/[pu]*/*.onnx", shared);
    assert_int_equal(glob(pattern, 0, NULL, &files), 0);
    for (size_t i = 0; i < files.gl_pathc; i++)
        check_round_trip(files.gl_pathv[i]);
    globfree(&files);
}

static void test_refuses_a_file_cut_off_at_any_byte(void **state) {
    size_t size = 0;
    uint8_t *file = data_bytes(MNIST, &size);

    (void)state;
    assert_non_null(file);
    for (size_t cut = 0; cut < size; cut++) {
        struct error e = {0};
        struct graph *g = NULL;
        /* its own block: a read past the end is found by the sanitiser */
        uint8_t *part = malloc(cut ? cut : 1);
        int r;

        assert_non_null(part);
        memcpy(part, file, cut);
        r = onnx_read(part, cut, &g, &e);
        assert_true(r < 0);
        assert_true(e.text[0]);
        assert_true(strcmp(e.code, "bad_request") == 0 || strcmp(e.code, "invalid_model") == 0);
        assert_null(g);
        free(part);
    }
    free(file);
}

/* A float initialiser "w" of the given dimensions with `n_raw` bytes of raw data. */
static struct buf make_init(const uint64_t *dims, size_t n_dims, size_t n_raw) {
    static const uint8_t zeros[64];
    struct buf t = PROTO;

    for (size_t i = 0; i < n_dims; i++)
        proto_int(&t, 1, dims[i]);
    proto_int(&t, 2, 1);
    proto_string(&t, 8, "w");
    proto_bytes(&t, 9, zeros, n_raw);
    return t;
}

static struct buf relu_graph(void) {
    struct buf g = PROTO, n = proto_node("Relu", "r", "x", "y");

    proto_message(&g, 1, &n);
    return g;
}

static struct buf with_init(struct buf init) {
    struct buf g = relu_graph();

    proto_message(&g, 5, &init);
    return proto_model(&g);
}

static struct buf make_claimed_2_to_60(void) {
    return with_init(make_init((const uint64_t[]){(uint64_t)1 << 60}, 1, 16));
}

static struct buf make_claimed_overflow(void) {
    return with_init(make_init((const uint64_t[]){(uint64_t)1 << 40, (uint64_t)1 << 40}, 2, 16));
}

static struct buf make_negative_dim(void) {
    return with_init(make_init((const uint64_t[]){UINT64_MAX}, 1, 16));
}

static struct buf make_rank_9(void) {
    return with_init(make_init((const uint64_t[]){1, 1, 1, 1, 1, 1, 1, 1, 1}, 9, 4));
}

static struct buf make_too_few_bytes(void) {
    return with_init(make_init((const uint64_t[]){2, 3}, 2, 20));
}

static struct buf make_external(void) {
    struct buf t = PROTO, entry = PROTO;

    proto_int(&t, 1, 4);
    proto_int(&t, 2, 1);
    proto_string(&t, 8, "w");
    proto_string(&entry, 1, "location");
    proto_string(&entry, 2, "../secret");
    proto_message(&t, 13, &entry);
    proto_int(&t, 14, 1);
    return with_init(t);
}

static struct buf make_nameless_init(void) {
    struct buf t = PROTO;

    return with_init(t);
}

static struct buf make_cycle(void) {
    struct buf g = PROTO, a = proto_node("Relu", "a", "q", "p"), b = proto_node("Relu", "b", "p", "q"),
               c = proto_node("Relu", "c", "p", "y");

    proto_message(&g, 1, &c);
    proto_message(&g, 1, &a);
    proto_message(&g, 1, &b);
    return proto_model(&g);
}

static struct buf make_missing_init(void) {
    struct buf g = PROTO, n = proto_node("Relu", "r", "w", "y");

    proto_message(&g, 1, &n);
    return proto_model(&g);
}

static struct buf make_unknown_operator(void) {
    struct buf g = PROTO, n = proto_node("Frobnicate", "f", "x", "y");

    proto_message(&g, 1, &n);
    return proto_model(&g);
}

static struct buf make_unknown_domain(void) {
    struct buf g = PROTO, n = proto_node("Relu", "f", "x", "y");

    proto_string(&n, 7, "com.example");
    proto_message(&g, 1, &n);
    return proto_model(&g);
}

static struct buf make_twice_defined(void) {
    struct buf g = relu_graph(), n = proto_node("Relu", "second", "x", "y");

    proto_message(&g, 1, &n);
    return proto_model(&g);
}

static struct buf make_no_output(void) {
    struct buf g = PROTO, n = proto_node("Relu", "r", "x", "z");

    proto_message(&g, 1, &n);
    return proto_model(&g);
}

/* The length of a node inside the graph reaches past the graph's end. */
static struct buf make_offset_past_end(void) {
    struct buf g = PROTO, m = PROTO;

    proto_varint(&g, 1 << 3 | 2);
    proto_varint(&g, 1000);
    buf_append(&g, "abc", 3);
    proto_int(&m, 1, 8);
    proto_message(&m, 7, &g);
    return m;
}

static struct buf make_zero_in_name(void) {
    struct buf g = relu_graph(), n = proto_node("Relu", "zero", "", "z");

    proto_bytes(&n, 1, "x\0x", 3);
    proto_message(&g, 1, &n);
    return proto_model(&g);
}

static struct buf make_text(void) {
    struct buf b = PROTO;

    buf_puts(&b, "hello, this is no model at all\n");
    return b;
}

static struct buf make_empty(void) {
    struct buf b = PROTO;

    buf_puts(&b, "");
    return b;
}

/* Field 7, the graph, as a number. */
static struct buf make_number_for_graph(void) {
    struct buf m = PROTO;

    proto_int(&m, 1, 8);
    proto_int(&m, 7, 0);
    return m;
}

static struct buf make_ir_99(void) {
    struct buf m = PROTO, g = PROTO;

    proto_int(&m, 1, 99);
    proto_message(&m, 7, &g);
    return m;
}

static const struct {
    struct buf (*make)(void);
    const char *code, *text;
} bad_files[] = {
    {make_empty, "bad_request", "not protobuf: the file is empty"},
    {make_text, "bad_request", "not protobuf: byte 2: unknown wire type"},
    {make_number_for_graph, "bad_request", "not protobuf: byte 2: a field is of the wrong wire type"},
    {make_offset_past_end, "invalid_model", "claims 1000 bytes, 3 are left"},
    {make_claimed_2_to_60, "invalid_model",
        "initialiser 'w': shape [1152921504606846976] needs 4611686018427387904 bytes, the file has 16"},
    {make_claimed_overflow, "invalid_model", "has more elements than can be counted"},
    {make_negative_dim, "invalid_model", "initialiser 'w': dimension 0 is negative"},
    {make_rank_9, "invalid_model", "initialiser 'w': more than 8 dimensions"},
    {make_too_few_bytes, "invalid_model", "initialiser 'w': shape [2,3] needs 24 bytes, the file has 20"},
    {make_external, "invalid_model", "initialiser 'w': external data is not accepted"},
    {make_nameless_init, "invalid_model", "has no name"},
    {make_cycle, "invalid_model", "is part of a cycle"},
    {make_missing_init, "invalid_model", "node 'r': input 'w' is neither"},
    {make_unknown_operator, "unsupported_operator",
        "node 'f': operator 'Frobnicate' of domain 'ai.onnx' is not supported"},
    {make_unknown_domain, "unsupported_operator",
        "node 'f': operator 'Relu' of domain 'com.example' is not supported"},
    {make_twice_defined, "invalid_model", "node 'second': output 'y' is defined twice"},
    {make_no_output, "invalid_model", "graph output 'y' is neither"},
    {make_zero_in_name, "invalid_model", "is not valid UTF-8 without zeros"},
    {make_ir_99, "invalid_model", "IR version 99"},
};

static void test_bad_files_get_their_code_and_a_sentence(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof(bad_files) / sizeof(bad_files[0]); i++) {
        struct buf file = bad_files[i].make();
        struct error e = {0};
        struct graph *g = NULL;

        assert_true(onnx_read(file.data, file.size, &g, &e) < 0);
        assert_non_null(e.code);
        if (!strstr(e.text, bad_files[i].text))
            fail_msg("case %zu: '%s' instead of '%s'", i, e.text, bad_files[i].text);
        assert_string_equal(e.code, bad_files[i].code);
        assert_null(g);
        buf_done(&file);
    }
}

/* 234 KB of graphs inside graphs overflow the stack of a recursive reader; ours does not descend. */
static void test_deep_nesting_costs_nothing(void **state) {
    struct buf inner = PROTO, g, m;
    struct error e = {0};
    struct graph *graph = NULL;

    (void)state;
    for (int depth = 0; depth < 12000 && inner.size < 234000; depth++) {
        struct buf attr = PROTO, node = PROTO, sub = PROTO;

        proto_string(&attr, 1, "b");
        proto_message(&attr, 6, &inner);
        proto_message(&node, 5, &attr);
        proto_message(&sub, 1, &node);
        inner = sub;
    }
    g = relu_graph();
    {
        struct buf n = proto_node("Relu", "deep", "x", "z"), attr = PROTO;

        proto_string(&attr, 1, "body");
        proto_message(&attr, 6, &inner);
        proto_int(&attr, 20, 5);
        proto_message(&n, 5, &attr);
        proto_message(&g, 1, &n);
    }
    m = proto_model(&g);
    assert_int_equal(onnx_parse(m.data, m.size, &graph, &e), 0);
    assert_int_equal(node_attr(&graph->nodes[1], "body")->type, ATTR_GRAPH);
    graph_free(graph);
    buf_done(&m);
}

/* Millions of tiny initialisers: refused at the first without a name, or at a count. */
static void test_a_flood_of_initialisers_is_refused_early(void **state) {
    struct buf g = relu_graph(), m;
    struct error e = {0};
    struct graph *graph = NULL;

    (void)state;
    for (unsigned i = 0; i < GRAPH_MAX_COUNT + 10; i++) {
        struct buf t = PROTO;
        char name[16];

        snprintf(name, sizeof(name), "%x", i);
        proto_string(&t, 8, name);
        proto_message(&g, 5, &t);
    }
    m = proto_model(&g);
    assert_true(onnx_parse(m.data, m.size, &graph, &e) < 0);
    assert_string_equal(e.code, "invalid_model");
    buf_done(&m);
}

/* Elements of each type in the field the format gives them. */
static void test_typed_data_become_dense_elements(void **state) {
    struct error e = {0};
    struct graph *g = graph_new();
    struct buf t = PROTO, packed = PROTO;
    struct tensor tensor;
    const char *name;
    uint32_t bits[2];
    const float floats[2] = {1.5f, -2};

    (void)state;
    /* int8, unpacked: negative numbers are ten-byte varints */
    proto_int(&t, 1, 2);
    proto_int(&t, 2, DT_S8);
    proto_int(&t, 5, (uint64_t)-3);
    proto_int(&t, 5, 7);
    assert_int_equal(onnx_read_tensor(g, t.data, t.size, &name, &tensor, &e), 0);
    assert_int_equal(((int8_t *)tensor.data)[0], -3);
    assert_int_equal(((int8_t *)tensor.data)[1], 7);
    buf_done(&t);
    /* int64, packed */
    t = PROTO;
    proto_int(&t, 1, 2);
    proto_int(&t, 2, DT_S64);
    proto_varint(&packed, (uint64_t)-1);
    proto_varint(&packed, 300);
    proto_message(&t, 7, &packed);
    assert_int_equal(onnx_read_tensor(g, t.data, t.size, &name, &tensor, &e), 0);
    assert_true(((int64_t *)tensor.data)[0] == -1 && ((int64_t *)tensor.data)[1] == 300);
    buf_done(&t);
    /* float, packed: used where it lies */
    t = PROTO;
    proto_int(&t, 1, 2);
    proto_int(&t, 2, DT_F32);
    proto_bytes(&t, 4, floats, sizeof(floats));
    assert_int_equal(onnx_read_tensor(g, t.data, t.size, &name, &tensor, &e), 0);
    memcpy(bits, tensor.data, sizeof(bits));
    assert_memory_equal(bits, floats, sizeof(bits));
    assert_true((char *)tensor.data > t.data && (char *)tensor.data < t.data + t.size);
    buf_done(&t);
    /* float in the integers' field is refused */
    t = PROTO;
    proto_int(&t, 1, 1);
    proto_int(&t, 2, DT_F32);
    proto_int(&t, 5, 1);
    assert_true(onnx_read_tensor(g, t.data, t.size, &name, &tensor, &e) < 0);
    assert_string_equal(e.code, "invalid_model");
    buf_done(&t);
    graph_free(g);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_reads_a_real_model_with_its_types_and_shapes),
        cmocka_unit_test(test_what_was_read_is_written_again),
        cmocka_unit_test(test_every_shared_model_is_written_again),
        cmocka_unit_test(test_refuses_a_file_cut_off_at_any_byte),
        cmocka_unit_test(test_bad_files_get_their_code_and_a_sentence),
        cmocka_unit_test(test_deep_nesting_costs_nothing),
        cmocka_unit_test(test_a_flood_of_initialisers_is_refused_early),
        cmocka_unit_test(test_typed_data_become_dense_elements),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
