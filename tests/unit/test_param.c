#include "tests/unit/cmocka_all.h"

#include <errno.h>
#include <string.h>

#include "base/cleanup.h"
#include "config/param.h"

static const char *const colors[] = {"red", "green", NULL};

struct inner {
    int depth;
    char **names;
};

struct outer {
    bool flag;
    int count, color;
    int64_t size;
    double share;
    char *text;
    int pair[2];
    bool has_inner;
    struct inner inner;
    struct param_objects parts;
    int rank_word;
    bool has_rank;
    struct inner rank;
    json_t *free_form;
};

static const char *const rank_words[] = {"none", "auto", NULL};

static const struct param inner_rows[] = {
    {.name = "depth",
        .type = PARAM_INT,
        .at = offsetof(struct inner, depth),
        .min = 0,
        .max = 9,
        .dflt = "3"},
    {.name = "names", .type = PARAM_LIST, .at = offsetof(struct inner, names), .dflt = "*"},
};
static const struct param_table inner_table = {inner_rows, 2};
static const struct param outer_rows[] = {
    {.name = "flag", .type = PARAM_BOOL, .at = offsetof(struct outer, flag), .dflt = "true"},
    {.name = "count",
        .type = PARAM_INT,
        .at = offsetof(struct outer, count),
        .min = 1,
        .max = 8,
        .dflt = "4",
        .doc = "how many"},
    {.name = "color",
        .type = PARAM_ENUM,
        .at = offsetof(struct outer, color),
        .choices = colors,
        .dflt = "green"},
    {.name = "size_bytes",
        .type = PARAM_SIZE,
        .at = offsetof(struct outer, size),
        .min = 1,
        .max = 1e12,
        .dflt = "64M"},
    {.name = "share",
        .type = PARAM_REAL,
        .at = offsetof(struct outer, share),
        .min = 0,
        .max = 1,
        .dflt = "0.5",
        .when = "color=red"},
    {.name = "text", .type = PARAM_STRING, .at = offsetof(struct outer, text)},
    {.name = "inner",
        .type = PARAM_OBJECT,
        .at = offsetof(struct outer, inner),
        .table = &inner_table,
        .given_at = offsetof(struct outer, has_inner)},
    {.name = "parts",
        .type = PARAM_OBJECTS,
        .at = offsetof(struct outer, parts),
        .table = &inner_table,
        .item_size = sizeof(struct inner),
        .max = 3},
    {.name = "rank",
        .type = PARAM_OBJECT,
        .at = offsetof(struct outer, rank),
        .table = &inner_table,
        .given_at = offsetof(struct outer, has_rank),
        .choices = rank_words,
        .word_at = offsetof(struct outer, rank_word),
        .dflt = "auto",
        .per_layer = true},
    {.name = "free_form", .type = PARAM_JSON, .at = offsetof(struct outer, free_form)},
    {.name = "pair",
        .type = PARAM_PAIR,
        .at = offsetof(struct outer, pair),
        .min = 1,
        .max = 9,
        .dflt = "1,4"},
};
static const struct param_table table = {outer_rows, 11};

static void outer_done(struct outer *o) {
    param_done(&table, o);
}

static int set(const char *json, struct outer *o, struct error *err) {
    json_t *j = json_loads(json, 0, NULL);
    int r;

    assert_non_null(j);
    assert_int_equal(param_defaults(&table, o, err), 0);
    r = param_set_json(&table, j, NULL, "steps[1]", o, err);
    json_decref(j);
    return r;
}

static void test_defaults_and_values_arrive(void **state) {
    _cleanup_(outer_done) struct outer o = {0};
    struct error err = {0};

    (void)state;
    assert_int_equal(
        set("{\"count\": 7, \"color\": \"red\", \"share\": 1, \"text\": \"x\", \"inner\": {\"names\": [\"a\", \"b\"]}}",
            &o, &err),
        0);
    assert_true(o.flag && o.count == 7 && o.color == 0 && o.size == 64 << 20 && o.share == 1);
    assert_true(o.has_inner && o.inner.depth == 3);
    assert_string_equal(o.text, "x");
    assert_string_equal(o.inner.names[1], "b");
    assert_null(o.inner.names[2]);
    assert_int_equal(o.parts.n, 0);
}

static void test_lists_of_objects_arrive(void **state) {
    _cleanup_(outer_done) struct outer o = {0};
    struct error err = {0};
    const struct inner *parts;
    json_t *again;

    (void)state;
    assert_int_equal(set("{\"parts\": [{\"depth\": 1}, {\"names\": [\"a\"]}]}", &o, &err), 0);
    parts = o.parts.item;
    assert_true(o.parts.n == 2 && parts[0].depth == 1 && parts[1].depth == 3);
    assert_string_equal(parts[1].names[0], "a");
    again = param_json(&table, &o);
    assert_int_equal(json_array_size(json_object_get(again, "parts")), 2);
    json_decref(again);
}

static void test_a_word_may_stand_in_an_objects_place(void **state) {
    _cleanup_(outer_done) struct outer none = {0}, word = {0}, object = {0};
    struct error err = {0};
    json_t *j;

    (void)state;
    assert_int_equal(set("{}", &none, &err), 0);
    assert_true(none.rank_word == 1 && !none.has_rank);
    assert_int_equal(set("{\"rank\": \"none\"}", &word, &err), 0);
    assert_true(word.rank_word == 0 && !word.has_rank);
    assert_int_equal(set("{\"rank\": {\"depth\": 7}}", &object, &err), 0);
    assert_true(object.rank_word == -1 && object.has_rank && object.rank.depth == 7);
    j = param_json(&table, &none);
    assert_string_equal(json_string_value(json_object_get(j, "rank")), "auto");
    json_decref(j);
    j = param_json(&table, &object);
    assert_int_equal(json_integer_value(json_object_get(json_object_get(j, "rank"), "depth")), 7);
    json_decref(j);
    j = param_schema(&table);
    assert_int_equal(
        json_array_size(json_object_get(json_object_get(json_object_get(j, "properties"), "rank"), "oneOf")),
        2);
    json_decref(j);
}

static void test_json_is_taken_as_it_stands(void **state) {
    _cleanup_(outer_done) struct outer o = {0};
    struct error err = {0};
    json_t *again;

    (void)state;
    assert_int_equal(set("{\"free_form\": {\"conv3\": [1, 2]}}", &o, &err), 0);
    assert_int_equal(json_array_size(json_object_get(o.free_form, "conv3")), 2);
    again = param_json(&table, &o);
    assert_true(json_equal(json_object_get(again, "free_form"), o.free_form));
    json_decref(again);
}

static void test_bad_json_is_refused_with_its_path(void **state) {
    static const struct {
        const char *json, *complaint, *code;
    } cases[] = {
        {"{\"cout\": 1}", "steps[1].cout is not known", "unknown_field"},
        {"{\"inner\": {\"deep\": 1}}", "steps[1].inner.deep is not known", "unknown_field"},
        {"{\"parts\": [{}, {\"deep\": 1}]}", "steps[1].parts[1].deep is not known", "unknown_field"},
        {"{\"parts\": []}", "steps[1].parts is not a list of 1 to 3 objects", NULL},
        {"{\"rank\": \"some\"}", "steps[1].rank: 'some' is not one of none, auto", NULL},
        {"{\"rank\": 3}", "steps[1].rank is not an object", NULL},
        {"{\"parts\": {}}", "steps[1].parts is not a list of 1 to 3 objects", NULL},
        {"{\"count\": 9}", "steps[1].count: 9 is not from 1 to 8", NULL},
        {"{\"count\": 1.5}", "steps[1].count is not a whole number", NULL},
        {"{\"count\": 99999999999999999}", "steps[1].count", NULL},
        {"{\"color\": \"blue\"}", "steps[1].color: 'blue' is not one of red, green", NULL},
        {"{\"share\": 0.1}", "steps[1].share is only for color=red", NULL},
        {"{\"inner\": {\"names\": [1]}}", "steps[1].inner.names[0] is not a string", NULL},
        {"{\"flag\": \"yes\"}", "steps[1].flag is not true or false", NULL},
        {"{\"pair\": [1, 2, 3]}", "steps[1].pair is not a list of two whole numbers", NULL},
        {"{\"pair\": [1, 10]}", "steps[1].pair: 10 is not from 1 to 9", NULL},
        {"[]", "steps[1] is not an object", NULL},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        _cleanup_(outer_done) struct outer o = {0};
        struct error err = {0};

        assert_int_equal(set(cases[i].json, &o, &err), -EINVAL);
        if (strncmp(err.text, cases[i].complaint, strlen(cases[i].complaint)))
            fail_msg("'%s' does not start with '%s'", err.text, cases[i].complaint);
        if (cases[i].code)
            assert_string_equal(err.code, cases[i].code);
    }
}

static void test_text_is_read_back_as_printed(void **state) {
    static const struct {
        const char *name, *in, *out; /* out NULL: refused */
    } cases[] = {
        {"size-bytes", "3g", "3G"},
        {"size_bytes", "1536", "1536"},
        {"size_bytes", "2048", "2K"},
        {"size_bytes", "1T", NULL},
        {"flag", "off", "false"},
        {"flag", "maybe", NULL},
        {"count", "08", "8"},
        {"count", "0", NULL},
        {"count", "1e400", NULL},
        {"share", "0.25", "0.25"},
        {"share", "nan", NULL},
        {"color", "red", "red"},
        {"pair", "2,9", "2,9"},
        {"pair", "2", NULL},
        {"pair", "2,10", NULL},
        {"text", "", ""},
        {"text", "a b", "a b"},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        _cleanup_(outer_done) struct outer o = {0};
        const struct param *p = param_find(&table, cases[i].name);
        struct buf b;
        int r;

        buf_init(&b, 100);
        assert_non_null(p);
        r = param_set_text(p, cases[i].in, &o, NULL);
        assert_int_equal(r == 0, cases[i].out != NULL);
        if (cases[i].out) {
            assert_int_equal(param_print(p, &o, &b), 0);
            assert_string_equal(b.data ? b.data : "", cases[i].out);
        }
        buf_done(&b);
    }
}

static void test_the_schema_says_type_range_and_default(void **state) {
    json_t *s = param_schema(&table), *count, *names;

    (void)state;
    assert_non_null(s);
    count = json_object_get(json_object_get(s, "properties"), "count");
    assert_string_equal(json_string_value(json_object_get(count, "type")), "integer");
    assert_int_equal(json_integer_value(json_object_get(count, "default")), 4);
    assert_true(json_number_value(json_object_get(count, "maximum")) == 8);
    assert_string_equal(json_string_value(json_object_get(count, "description")), "how many");
    assert_true(json_is_false(json_object_get(s, "additionalProperties")));
    names = json_object_get(
        json_object_get(json_object_get(json_object_get(s, "properties"), "inner"), "properties"), "names");
    assert_string_equal(json_string_value(json_array_get(json_object_get(names, "default"), 0)), "*");
    json_decref(s);
}

static void test_objects_that_did_not_stand_there_are_not_shown(void **state) {
    static const struct {
        const char *json;
        bool has_inner;
    } cases[] = {{"{}", false}, {"{\"inner\": {}}", true}};

    (void)state;
    for (size_t i = 0; i < 2; i++) {
        _cleanup_(outer_done) struct outer o = {0};
        json_t *j;

        assert_int_equal(set(cases[i].json, &o, NULL), 0);
        j = param_json(&table, &o);
        assert_int_equal(json_integer_value(json_object_get(j, "count")), 4);
        assert_int_equal(json_object_get(j, "inner") != NULL, cases[i].has_inner);
        json_decref(j);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_defaults_and_values_arrive),
        cmocka_unit_test(test_lists_of_objects_arrive),
        cmocka_unit_test(test_a_word_may_stand_in_an_objects_place),
        cmocka_unit_test(test_json_is_taken_as_it_stands),
        cmocka_unit_test(test_bad_json_is_refused_with_its_path),
        cmocka_unit_test(test_text_is_read_back_as_printed),
        cmocka_unit_test(test_the_schema_says_type_range_and_default),
        cmocka_unit_test(test_objects_that_did_not_stand_there_are_not_shown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
