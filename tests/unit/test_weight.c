/* Weight forms: every row of the tables, emit then match, meaning. */
#include "tests/unit/cmocka_all.h"

#include <string.h>

#include "engine/graph.h"
#include "engine/weight.h"

#define ROWS 3
#define COLS 8

/* A weight of every form: W[3][2][2][2], scales and zero points where the form has them. */
struct sample {
    uint8_t bytes[ROWS * COLS * sizeof(float)];
    float scale[ROWS];
    uint8_t zero[ROWS];
    struct tensor codes, scales, zeros;
    struct weight w;
};

static void sample_init(struct sample *s, const struct weight_form *form, const char *scales) {
    int64_t n = strcmp(scales, "layer") == 0 ? 1 : ROWS;
    bool is_float = form->code->dtype == DT_F32;
    struct shape shape = {.rank = 4, .dim = {ROWS, 2, 2, 2}};
    struct shape scale_shape = {.rank = n > 1, .dim = {n}};

    memset(s, 0, sizeof(*s));
    for (int i = 0; i < ROWS * COLS; i++) {
        float f = (float)i / 7 - 1;

        if (is_float)
            memcpy(s->bytes + (size_t)i * sizeof(f), &f, sizeof(f));
        else
            s->bytes[i] = (uint8_t)(i * 37 + 11);
    }
    for (int i = 0; i < ROWS; i++) {
        s->scale[i] = 0.25f * (float)(i + 1);
        s->zero[i] = form->code->dtype == DT_U8 ? (uint8_t)(120 + i) : 0;
    }
    s->codes = (struct tensor){.dtype = form->code->dtype, .shape = shape, .data = s->bytes};
    s->scales = (struct tensor){.dtype = DT_F32, .shape = scale_shape, .data = s->scale};
    s->zeros = (struct tensor){.dtype = form->code->dtype, .shape = scale_shape, .data = s->zero};
    s->w = (struct weight){
        .structure = form->structure,
        .code = form->code,
        .scales = weight_scales_find(is_float ? "layer" : scales),
        .shape = shape,
        .rows = ROWS,
        .cols = COLS,
        .codes = &s->codes,
        .scale = is_float ? NULL : &s->scales,
        .zero = form->code->dtype == DT_U8 ? &s->zeros : NULL,
    };
}

static void for_each_form(void (*check)(const struct weight_form *form, const char *scales)) {
    for (size_t i = 0; i < n_weight_forms; i++)
        for (size_t k = 0; k < n_weight_scales_kinds; k++)
            check(weight_forms[i], weight_scales_kinds[k]->name);
}

static void check_round_trip(const struct weight_form *form, const char *scales) {
    struct graph *g = graph_new();
    struct error err = {0};
    const struct weight *found = NULL;
    struct sample s;
    size_t size;
    int v, codes = -1;

    sample_init(&s, form, scales);
    v = form->emit(g, g->n_nodes, "w", &s.w);
    assert_true(v >= 0);
    assert_int_equal(weight_match(g, v, &found, &codes, &err), 0);
    assert_non_null(found);
    assert_string_equal(weight_form_name(found), form->name);
    assert_ptr_equal(found->structure, s.w.structure);
    assert_ptr_equal(found->code, s.w.code);
    assert_ptr_equal(found->scales, s.w.scales);
    assert_ptr_equal(g->values[codes].init->data, found->codes->data);
    assert_true(shape_equal(&found->shape, &s.w.shape));
    assert_int_equal(found->rows, ROWS);
    assert_int_equal(found->cols, COLS);
    assert_true(shape_bytes(&s.codes.shape, s.codes.dtype, &size));
    assert_memory_equal(found->codes->data, s.bytes, size);
    if (s.w.scale)
        assert_memory_equal(found->scale->data, s.scale, (size_t)s.w.scales->n(&s.w) * sizeof(float));
    assert_int_equal(found->zero != NULL, s.w.zero != NULL);
    if (s.w.zero)
        assert_memory_equal(found->zero->data, s.zero, (size_t)s.w.scales->n(&s.w));
    assert_int_equal(weight_bytes(found), weight_bytes(&s.w));
    graph_free(g);
}

static void test_emit_then_match_gives_the_same_bytes(void **state) {
    (void)state;
    for_each_form(check_round_trip);
}

static void check_meaning(const struct weight_form *form, const char *scales) {
    float got[ROWS * COLS];
    struct error err = {0};
    struct sample s;

    sample_init(&s, form, scales);
    assert_int_equal(weight_decode(&s.w, got, &err), 0);
    for (int i = 0; i < ROWS * COLS; i++) {
        int row = i / COLS, at = s.w.scales->n(&s.w) == 1 ? 0 : row;
        float want;

        if (form->code->dtype == DT_F32) {
            memcpy(&want, s.bytes + (size_t)i * sizeof(want), sizeof(want));
        } else {
            int code = form->code->dtype == DT_S8 ? (int8_t)s.bytes[i] : s.bytes[i];

            want = (float)(code - s.zero[at]) * s.scale[at];
        }
        assert_true(got[i] == want);
    }
}

static void test_decode_is_scale_times_code_minus_zero(void **state) {
    (void)state;
    for_each_form(check_meaning);
}

static void check_tables(const struct weight_form *form, const char *scales) {
    assert_ptr_equal(weight_form_find(form->name), form);
    assert_ptr_equal(weight_structure_find(form->structure->name), form->structure);
    assert_ptr_equal(weight_code_find(form->code->name), form->code);
    assert_non_null(weight_scales_find(scales));
}

static void test_rows_are_found_by_name(void **state) {
    (void)state;
    for_each_form(check_tables);
    for (size_t i = 1; i < n_weight_forms; i++)
        assert_true(strcmp(weight_forms[i - 1]->name, weight_forms[i]->name) < 0);
    assert_null(weight_form_find("nothing"));
}

/* MatMul: W[in][out], scales of the last dimension: a row is a column of the tensor. */
static void test_codes_of_a_transposed_weight_come_row_by_row(void **state) {
    struct sample s;
    int16_t got[6];
    static const int16_t want[] = {1, 3, 5, 2, 4, 6};
    struct error err = {0};

    (void)state;
    sample_init(&s, weight_form_find("int8"), "channel");
    memcpy(s.bytes, (uint8_t[]){1, 2, 3, 4, 5, 6}, 6);
    s.codes.shape = s.w.shape = (struct shape){.rank = 2, .dim = {3, 2}};
    s.w.axis = 1;
    s.w.rows = 2;
    s.w.cols = 3;
    s.w.transposed = true;
    assert_int_equal(weight_get_codes(&s.w, got, &err), 0);
    assert_memory_equal(got, want, sizeof(want));
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
        struct sample s;

        sample_init(&s, weight_form_find("int8"), "channel");
        s.scales.shape.dim[0] = cases[i].n_scales;
        assert_int_equal(
            weight_match(g, add_dequantize(g, s.codes, s.scales, cases[i].axis), &found, NULL, &err), 0);
        assert_int_equal(found != NULL, cases[i].fits);
        graph_free(g);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_emit_then_match_gives_the_same_bytes),
        cmocka_unit_test(test_decode_is_scale_times_code_minus_zero),
        cmocka_unit_test(test_rows_are_found_by_name),
        cmocka_unit_test(test_codes_of_a_transposed_weight_come_row_by_row),
        cmocka_unit_test(test_scales_that_do_not_fit_are_not_matched),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
