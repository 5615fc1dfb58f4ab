/* Weight forms: every row of the tables, emit then match, meaning. */
#include "tests/unit/cmocka_all.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "engine/graph.h"
#include "engine/weight.h"
#include "tests/unit/weight_sample.h"

#define LABEL_MAX 128

static const char *label(const struct sample_kind *k) {
    static char text[LABEL_MAX];

    snprintf(text, sizeof(text), "%s %s %s%s of rank %d", k->structure->name, k->code->name, k->scales->name,
        k->has_float_book ? " in floats" : "", k->shape.rank);
    return text;
}

static void check_same_bytes(const struct tensor *a, const struct tensor *b, const char *what) {
    size_t size;

    if (!a != !b)
        fail_msg("%s: one has it, one has not", what);
    if (!a)
        return;
    assert_int_equal(a->dtype, b->dtype);
    assert_true(shape_bytes(&b->shape, b->dtype, &size));
    assert_memory_equal(a->data, b->data, size);
}

static void check_round_trip(struct sample *s, const struct sample_kind *k) {
    _cleanup_(graph_freep) struct graph *g = graph_new();
    struct error err = {0};
    const struct weight *found = NULL;
    int v, codes = -1;

    v = weight_emit(g, g->n_nodes, "w", &s->w);
    if (v < 0 || weight_match(g, v, &found, &codes, &err) < 0 || !found)
        fail_msg("%s: not found again (%d)", label(k), v);
    if (found->structure != k->structure || found->code != k->code || found->scales != k->scales)
        fail_msg("%s: found as %s %s %s", label(k), found->structure->name, found->code->name,
            found->scales->name);
    assert_ptr_equal(g->values[codes].init->data, found->codes->data);
    assert_true(shape_equal(&found->shape, &s->w.shape));
    assert_int_equal(found->rows, s->w.rows);
    assert_int_equal(found->cols, s->w.cols);
    assert_int_equal(found->stored_bits, s->w.stored_bits);
    check_same_bytes(found->codes, s->w.codes, label(k));
    check_same_bytes(found->scale, s->w.scale, label(k));
    check_same_bytes(found->zero, s->w.zero, label(k));
    check_same_bytes(found->book, s->w.book, label(k));
    check_same_bytes(found->place, s->w.place, label(k));
    assert_int_equal(found->books, s->w.books);
    assert_int_equal(!found->more, !s->w.more);
    if (s->w.more)
        check_same_bytes(found->more->codes, s->w.more->codes, label(k));
    if (s->w.more)
        check_same_bytes(found->more->book, s->w.more->book, label(k));
    assert_int_equal(weight_bytes(found), weight_bytes(&s->w));
    if (weight_check(found, &err) < 0)
        fail_msg("%s: %s", label(k), err.text);
}

static void test_emit_then_match_gives_the_same_bytes(void **state) {
    (void)state;
    sample_each(check_round_trip);
}

static void check_meaning(struct sample *s, const struct sample_kind *k) {
    float got[SAMPLE_MAX];
    struct error err = {0};
    int64_t n = s->w.rows * s->w.cols;

    assert_int_equal(weight_decode(&s->w, got, &err), 0);
    for (int64_t i = 0; i < n; i++)
        if (!(got[i] == s->want[i]))
            fail_msg("%s: weight %d is %g, not %g", label(k), (int)i, (double)got[i], (double)s->want[i]);
}

static void test_decode_is_scale_times_code_minus_zero(void **state) {
    (void)state;
    sample_each(check_meaning);
}

static void check_codes(struct sample *s, const struct sample_kind *k) {
    int16_t got[SAMPLE_MAX];
    struct error err = {0};
    int64_t n = s->w.rows * s->w.cols;

    if (!weight_is_integer(&s->w))
        return;
    assert_int_equal(weight_get_codes(&s->w, got, &err), 0);
    for (int64_t i = 0; i < n; i++)
        if (got[i] != s->ints[i])
            fail_msg("%s: code %d is %d, not %d", label(k), (int)i, got[i], s->ints[i]);
}

static void test_codes_are_the_same_integers_in_every_form(void **state) {
    (void)state;
    sample_each(check_codes);
}

static void check_nonzero(struct sample *s, const struct sample_kind *k) {
    int64_t n = s->w.rows * s->w.cols, want = 0, got = weight_count_nonzero(&s->w);

    for (int64_t i = 0; i < n; i++)
        want += s->want[i] < 0 || s->want[i] > 0;
    if (got != want && !(got == -1 && s->w.zero))
        fail_msg("%s: %d weights are not zero, not %d", label(k), (int)want, (int)got);
}

static void test_what_is_not_zero_is_counted_in_every_form(void **state) {
    (void)state;
    sample_each(check_nonzero);
}

static int n_seen;

static void count_combination(struct sample *s, const struct sample_kind *k) {
    (void)s;
    (void)k;
    n_seen++;
}

static void test_rows_are_found_by_name(void **state) {
    (void)state;
    for (size_t i = 0; i < n_weight_structures; i++)
        assert_ptr_equal(weight_structure_find(weight_structures[i]->name), weight_structures[i]);
    for (size_t i = 0; i < n_weight_codes; i++)
        assert_ptr_equal(weight_code_find(weight_codes[i]->name), weight_codes[i]);
    for (size_t i = 0; i < n_weight_scales_kinds; i++)
        assert_ptr_equal(weight_scales_find(weight_scales_kinds[i]->name), weight_scales_kinds[i]);
    for (size_t i = 1; i < n_weight_forms; i++)
        assert_true(strcmp(weight_forms[i - 1].name, weight_forms[i].name) <= 0);
    assert_string_equal(weight_form_find("codebook")->code->name, "lut4");
    assert_null(weight_form_find("nothing"));
    sample_each(count_combination);
    assert_true(n_seen > 300);
}

static int add_dequantize(struct graph *g, struct tensor codes, struct tensor scale, int64_t axis) {
    int in[2] = {graph_add_init(g, "q", &codes, false), graph_add_init(g, "s", &scale, false)};
    int out = graph_add_value(g, "w", DT_F32, &codes.shape);
    int node = graph_insert_node(g, 0, "DequantizeLinear", "", in, 2, &out, 1);

    graph_set_attr_int(g, &g->nodes[node], "axis", axis);
    return out;
}

static void test_scales_that_do_not_fit_are_not_matched(void **state) {
    static const struct {
        int64_t n_scales, axis;
        bool fits;
    } cases[] = {{3, 0, true}, {3, -4, true}, {2, 1, true}, {2, 0, false}, {3, 4, false}, {3, -5, false}};

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct graph *g = graph_new();
        struct error err = {0};
        const struct weight *found;
        int8_t bytes[24] = {0};
        float numbers[3] = {1, 1, 1};
        struct tensor codes = {.dtype = DT_S8, .shape = {.rank = 4, .dim = {3, 2, 2, 2}}, .data = bytes};
        struct tensor scales = {
            .dtype = DT_F32, .shape = {.rank = 1, .dim = {cases[i].n_scales}}, .data = numbers};

        assert_int_equal(
            weight_match(g, add_dequantize(g, codes, scales, cases[i].axis), &found, NULL, &err), 0);
        assert_int_equal(found != NULL, cases[i].fits);
        graph_free(g);
    }
}

/* A block larger than the weights is one group; weights that are none have no groups at all. */
static void test_blocks_of_any_size_are_counted(void **state) {
    static const struct {
        int64_t rows, block, n_groups;
        bool fits;
    } cases[] = {
        {4, 3, 2, true}, {4, 4, 1, true}, {4, INT64_MAX, 1, true}, {4, 3, 1, false}, {0, 1, 0, false}};

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        _cleanup_(graph_freep) struct graph *g = graph_new();
        struct error err = {0};
        const struct weight *found;
        int8_t bytes[8] = {0};
        float numbers[4] = {1, 1, 1, 1};
        struct tensor codes = {
            .dtype = DT_S8, .shape = {.rank = 2, .dim = {cases[i].rows, 2}}, .data = bytes};
        struct tensor scales = {
            .dtype = DT_F32, .shape = {.rank = 2, .dim = {cases[i].n_groups, 2}}, .data = numbers};
        int v = add_dequantize(g, codes, scales, 0);

        assert_int_equal(graph_set_attr_int(g, &g->nodes[0], "block_size", cases[i].block), 0);
        assert_int_equal(weight_match(g, v, &found, NULL, &err), 0);
        assert_int_equal(found != NULL, cases[i].fits);
        if (found)
            assert_int_equal(weight_check(found, &err), 0);
    }
}

static void refuse(struct sample *s, const char *sentence) {
    struct error err = {0};

    if (weight_check(&s->w, &err) != -EBADMSG || !strstr(err.text, sentence))
        fail_msg("'%s' was to say '%s'", err.text, sentence);
}

static struct sample *new_sample(const char *structure, const char *code) {
    struct sample *s = malloc(sizeof(*s));
    struct sample_kind k = {
        .structure = weight_structure_find(structure),
        .code = weight_code_find(code),
        .scales = weight_scales_find("channel"),
        .shape = {.rank = 4, .dim = {4, 8, 2, 3}},
    };

    assert_non_null(s);
    assert_true(sample_init(s, &k));
    return s;
}

static void test_numbers_that_cannot_be_are_refused_with_their_place(void **state) {
    _cleanup_(freep) struct sample *lut = new_sample("dense", "lut5"), *sparse = new_sample("sparse", "s8");
    _cleanup_(freep) struct sample *block = new_sample("block", "s8"), *scale = new_sample("dense", "bit");

    (void)state;
    lut->t_book.shape.dim[0] = 20;
    lut->codes[0] = 3;
    lut->codes[1] = 30;
    refuse(lut, "index 1 of its weights is 30, outside of a codebook of 20 words");
    sparse->place[sparse->w.n_stored - 1] = 255;
    refuse(sparse, "puts a weight at");
    block->place[0] = 200;
    refuse(block, "entry 0 of its gaps puts a weight at 200, outside of 48");
    scale->scale[2] = 0;
    refuse(scale, "scale 2 of its weights is zero");
    scale->scale[2] = INFINITY;
    refuse(scale, "scale 2 of its weights is not a finite number");
}

/* Zeros of any shape cost a file nothing: more than memory can hold are no weights. */
static void test_shapes_that_cannot_be_dense_are_not_matched(void **state) {
    static const char *const structures[] = {"sparse", "block"};

    (void)state;
    for (size_t i = 0; i < 2; i++) {
        _cleanup_(freep) struct sample *s = new_sample(structures[i], "f32");
        _cleanup_(graph_freep) struct graph *g = graph_new();
        const int64_t side = (int64_t)1 << 31;
        const struct weight *found;
        struct error err = {0};
        int v;

        s->w.scale = NULL;
        s->w.shape = (struct shape){.rank = 2, .dim = {side, side}};
        s->w.tile.out = s->w.tile.in = side;
        v = weight_emit(g, 0, "w", &s->w);
        assert_true(v >= 0);
        assert_int_equal(weight_match(g, v, &found, NULL, &err), 0);
        assert_null(found);
    }
}

/* One number of the pattern is another: it is no form any more. */
static void test_patterns_that_nearly_match_are_no_forms(void **state) {
    static const char *const structures[] = {"sparse", "block", "nm"};

    (void)state;
    for (size_t i = 0; i < 3; i++) {
        _cleanup_(freep) struct sample *s = new_sample(structures[i], "s8");
        _cleanup_(graph_freep) struct graph *g = graph_new();
        const struct weight *found;
        struct error err = {0};
        int v = weight_emit(g, 0, "w", &s->w);

        assert_true(v >= 0);
        for (size_t k = 0; k < g->n_nodes; k++)
            if (strcmp(g->nodes[k].op_type, "ScatterElements") == 0)
                assert_int_equal(graph_set_attr_string(g, &g->nodes[k], "reduction", "add"), 0);
        assert_int_equal(weight_match(g, v, &found, NULL, &err), 0);
        assert_null(found);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_emit_then_match_gives_the_same_bytes),
        cmocka_unit_test(test_decode_is_scale_times_code_minus_zero),
        cmocka_unit_test(test_rows_are_found_by_name),
        cmocka_unit_test(test_codes_are_the_same_integers_in_every_form),
        cmocka_unit_test(test_what_is_not_zero_is_counted_in_every_form),
        cmocka_unit_test(test_scales_that_do_not_fit_are_not_matched),
        cmocka_unit_test(test_blocks_of_any_size_are_counted),
        cmocka_unit_test(test_shapes_that_cannot_be_dense_are_not_matched),
        cmocka_unit_test(test_numbers_that_cannot_be_are_refused_with_their_place),
        cmocka_unit_test(test_patterns_that_nearly_match_are_no_forms),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
