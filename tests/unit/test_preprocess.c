/* Pictures to tensors, bit for bit as Pillow and NumPy with torchvision's sizes and crops
 * (tests/tools/make_preprocess_goldens.py); the JSON of it, its defaults and its refusals. */
#include <errno.h>
#include <string.h>

#include "base/cleanup.h"
#include "image/preprocess.h"
#include "tests/unit/cmocka_all.h"
#include "tests/unit/sha256.h"

static int read_dims(const json_t *list, int64_t dim[8]) {
    int rank = (int)json_array_size(list);

    for (int i = 0; i < rank; i++)
        dim[i] = json_integer_value(json_array_get(list, (size_t)i));
    return rank;
}

static void *read_file(const char *name, size_t *ret_size) {
    char path[4096];
    _cleanup_(fclosep) FILE *f = NULL;
    void *data = malloc(1u << 20);

    snprintf(path, sizeof(path), TEST_DATA "/decode/%s", name);
    f = fopen(path, "rbe");
    assert_non_null(f);
    *ret_size = fread(data, 1, 1u << 20, f);
    return data;
}

static void check_golden(const json_t *row) {
    const char *name = json_string_value(json_object_get(row, "file"));
    _cleanup_(freep) void *data = NULL;
    _cleanup_(freep) float *x = NULL;
    struct preprocess p, again;
    struct error err = {0};
    int64_t dim[8], got[4], want[8];
    size_t size, n;
    json_t *j;
    char sha[17];

    read_dims(json_object_get(row, "shape"), dim);
    if (preprocess_from_json(json_object_get(row, "preprocess"), dim, 4, &p, &err) < 0)
        fail_msg("%s: %s", name, err.text);
    j = preprocess_to_json(&p); /* what is shown means the same */
    assert_int_equal(preprocess_from_json(j, dim, 4, &again, NULL), 0);
    json_decref(j);
    n = preprocess_shape(&again, got);
    read_dims(json_object_get(row, "result"), want);
    assert_memory_equal(got + 1, want, 3 * sizeof(int64_t));
    data = read_file(name, &size);
    x = calloc(n, sizeof(*x));
    assert_int_equal(preprocess_encoded(&again, data, size, NULL, x, &err), 0);
    if (strcmp(sha256_short(x, n * sizeof(*x), sha), json_string_value(json_object_get(row, "sha256"))))
        fail_msg("%s %s: the tensor differs", name,
            json_dumps(json_object_get(row, "preprocess"), JSON_ENCODE_ANY));
}

static void test_tensors_are_those_of_pillow_and_numpy(void **state) {
    json_t *rows = json_load_file(TEST_DATA "/preprocess/goldens.json", 0, NULL);

    (void)state;
    assert_int_equal(json_array_size(rows), 15);
    for (size_t i = 0; i < json_array_size(rows); i++)
        check_golden(json_array_get(rows, i));
    json_decref(rows);
}

static void test_arrays_and_pictures_give_the_same(void **state) {
    static const int64_t planar[4] = {-1, 3, 2, 3}, interleaved[4] = {-1, 2, 3, 3};
    uint8_t hwc[18], chw[18];
    struct picture q = {hwc, 3, 2, 3};
    float a[18], b[18];
    struct preprocess p;

    (void)state;
    for (uint8_t i = 0; i < 18; i++) {
        hwc[i] = (uint8_t)(i * 13);
        chw[i % 3 * 6 + i / 3] = hwc[i];
    }
    assert_int_equal(preprocess_from_json(NULL, planar, 4, &p, NULL), 0);
    assert_int_equal(preprocess_picture(&p, &q, a, NULL), 0);
    assert_int_equal(preprocess_array(&p, chw, 2, 3, b, NULL), 0);
    assert_memory_equal(a, b, sizeof(a));
    for (int i = 0; i < 18; i++)
        assert_true(a[i] == (float)(chw[i] * (1.0 / 255)));
    assert_int_equal(preprocess_from_json(NULL, interleaved, 4, &p, NULL), 0);
    assert_int_equal(preprocess_array(&p, hwc, 2, 3, b, NULL), 0);
    for (int i = 0; i < 18; i++)
        assert_true(b[i] == (float)(hwc[i] * (1.0 / 255)));
}

static const struct refusal {
    const char *json;
    int64_t dim[5];
    int rank;
    const char *code, *words;
} refusals[] = {
    {"null", {-1, 3, -1, 224}, 4, "preprocess_required", "resize.size"},
    {"{}", {-1, 3, -1, -1}, 4, "preprocess_required", "resize.size"},
    {"null", {-1, 10}, 2, "shape_mismatch", "no picture"},
    {"null", {-1, 4, 8, 8}, 4, "shape_mismatch", "no picture"},
    {"{\"colour\":\"rgb\"}", {-1, 3, 8, 8}, 4, "unknown_field", "preprocess.colour"},
    {"{\"resize\":{\"sice\":3}}", {-1, 3, 8, 8}, 4, "unknown_field", "preprocess.resize.sice"},
    {"{\"resize\":3}", {-1, 3, 8, 8}, 4, NULL, "preprocess.resize must"},
    {"{\"resize\":{\"size\":[8,9]}}", {-1, 3, 8, 8}, 4, "shape_mismatch", "[1,3,8,9]"},
    {"{\"resize\":{\"size\":8}}", {-1, 3, 8, 8}, 4, NULL, "crop"},
    {"{\"resize\":{\"size\":[8]}}", {-1, 3, 8, 8}, 4, NULL, "preprocess.resize.size"},
    {"{\"resize\":{\"size\":[0,8]}}", {-1, 3, 8, 8}, 4, NULL, "preprocess.resize.size"},
    {"{\"resize\":{\"size\":16385}}", {-1, 3, 8, 8}, 4, NULL, "preprocess.resize.size"},
    {"{\"resize\":{\"mode\":\"lanczos\"}}", {-1, 3, 8, 8}, 4, NULL, "preprocess.resize.mode"},
    {"{\"color\":\"gray\"}", {-1, 3, 8, 8}, 4, "shape_mismatch", "[1,1,8,8]"},
    {"{\"layout\":\"NHWC\"}", {-1, 3, 8, 8}, 4, "shape_mismatch", "[1,8,8,3]"},
    {"{\"mean\":[1,2]}", {-1, 3, 8, 8}, 4, NULL, "preprocess.mean"},
    {"{\"mean\":[1]}", {-1, 3, 8, 8}, 4, NULL, "preprocess.mean"},
    {"{\"mean\":0.5}", {-1, 3, 8, 8}, 4, NULL, "preprocess.mean"},
    {"{\"std\":[1,0,1]}", {-1, 3, 8, 8}, 4, NULL, "preprocess.std"},
    {"{\"scale\":\"1\"}", {-1, 3, 8, 8}, 4, NULL, "preprocess.scale"},
    {"{\"exif\":true}", {-1, 3, 8, 8}, 4, NULL, "preprocess.exif"},
    {"[]", {-1, 3, 8, 8}, 4, NULL, "preprocess must be an object"},
};

static void test_what_does_not_fit_is_refused_by_its_path(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof(refusals) / sizeof(refusals[0]); i++) {
        const struct refusal *t = &refusals[i];
        json_t *j = json_loads(t->json, JSON_DECODE_ANY, NULL);
        struct error err = {0};
        struct preprocess p;

        assert_true(preprocess_from_json(j, t->dim, t->rank, &p, &err) < 0);
        if (!strstr(err.text, t->words))
            fail_msg("%s: %s", t->json, err.text);
        if (t->code)
            assert_string_equal(err.code, t->code);
        else
            assert_int_equal(err.err, -EINVAL);
        json_decref(j);
    }
}

static void test_what_is_not_set_comes_from_the_shape(void **state) {
    static const int64_t dim[4] = {-1, 3, 32, 48};
    struct preprocess p;
    json_t *j, *want, *set;

    (void)state;
    assert_int_equal(preprocess_from_json(NULL, dim, 4, &p, NULL), 0);
    j = preprocess_to_json(&p);
    want = json_pack("{s:s,s:s,s:{s:s,s:[i,i],s:n},s:f,s:[f,f,f],s:[f,f,f],s:s,s:s}", "layout", "NCHW",
        "color", "rgb", "resize", "mode", "bilinear", "size", 32, 48, "crop", "scale", 1.0 / 255, "mean", 0.0,
        0.0, 0.0, "std", 1.0, 1.0, 1.0, "exif", "apply", "source", "default");
    assert_true(json_equal(j, want));
    assert_int_equal(preprocess_from_json(j, dim, 4, &p, NULL), 0);
    assert_true(p.is_default);
    json_object_set_new(j, "scale", json_real(1));
    assert_int_equal(preprocess_from_json(j, dim, 4, &p, NULL), 0);
    assert_false(p.is_default);
    json_decref(want);
    json_decref(j);
    set = json_pack("{s:s}", "color", "bgr");
    assert_int_equal(preprocess_from_json(set, dim, 4, &p, NULL), 0);
    json_decref(set);
    assert_false(p.is_default);
    j = preprocess_to_json(&p);
    assert_null(json_object_get(j, "source"));
    json_decref(j);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_tensors_are_those_of_pillow_and_numpy),
        cmocka_unit_test(test_arrays_and_pictures_give_the_same),
        cmocka_unit_test(test_what_does_not_fit_is_refused_by_its_path),
        cmocka_unit_test(test_what_is_not_set_comes_from_the_shape),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
