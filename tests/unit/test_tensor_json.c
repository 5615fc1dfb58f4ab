#include "tests/unit/cmocka_all.h"

#include <errno.h>
#include <float.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "api/tensor_json.h"

static uint64_t next_random(uint64_t *x) { /* xorshift64* */
    *x ^= *x >> 12;
    *x ^= *x << 25;
    *x ^= *x >> 27;
    return *x * 2685821657736338717ull;
}

static int scan(const char *text, enum dtype t, int rank, const int64_t *dims, void *ret, struct error *err) {
    struct tensor_span s = {text, strlen(text)};
    struct shape shape = {.rank = rank};

    memcpy(shape.dim, dims, (size_t)rank * sizeof(*dims));
    error_clear(err);
    return tensor_json_scan(&s, t, &shape, ret, err);
}

/* One number through scan(): the bits of the float must be strtof's. */
static void check_float(const char *number) {
    static const int64_t one[] = {1};
    char text[2100];
    struct error err;
    float got = 0, want = strtof(number, NULL);
    int rc;

    snprintf(text, sizeof(text), "[%s]", number);
    rc = scan(text, DT_F32, 1, one, &got, &err);
    if (isinf(want)) {
        assert_int_equal(rc, -EINVAL);
        return;
    }
    if (rc || memcmp(&got, &want, sizeof(got)) != 0)
        fail_msg("%s: %.9g, strtof says %.9g, rc %d", number, (double)got, (double)want, rc);
}

static void test_floats_agree_with_strtof_on_random_numbers(void **state) {
    static const int precisions[] = {4, 9, 17, 6, 8, 25, 1};
    uint64_t seed = 42;
    char number[512];

    (void)state;
    for (int i = 0; i < 1000000; i++) {
        uint64_t r = next_random(&seed);
        double v = ldexp((double)(int64_t)r / 0x1p63, (int)(next_random(&seed) % 60) - 40);

        snprintf(number, sizeof(number), i % 7 % 3 ? "%.*g" : i % 7 ? "%.*e" : "%.*f", precisions[i % 7], v);
        check_float(number);
    }
    for (int i = 0; i < 300000; i++) { /* any float, any double near one: midpoints included */
        uint32_t bits = (uint32_t)next_random(&seed);
        float f;
        double v;

        memcpy(&f, &bits, sizeof(f));
        if (!isfinite(f))
            continue;
        v = ((double)f + (double)nextafterf(f, INFINITY)) / 2;
        snprintf(number, sizeof(number), i % 2 ? "%.17g" : "%.60g",
            i % 3 ? v : nextafter(v, (i & 4) ? 1e300 : -1e300));
        if (strstr(number, "inf"))
            continue;
        check_float(number);
        snprintf(number, sizeof(number), "%.9g", (double)f);
        check_float(number);
    }
}

static void test_hard_floats(void **state) {
    static const char *const numbers[] = {"0", "-0", "0.0", "-0.0e5", "1e-45", "7e-46", "1.17549435e-38",
        "1.17549428e-38", "3.4028235e38", "3.4028236e38", "3.40282357e38", "1e39", "1e400", "-1e400",
        "1e-400", "0e999999999", "16777217", "16777219", "9007199791611905", "123456789012345678901234567890",
        "0.00000000000000000000000000000000000000001", "1.00000005960464477539062500000000000000000000001",
        "1.000000059604644775390625", "1.0000001788139343", "1e23", "8.5e22", "1.5e-44", "4.7019774e-38",
        "1E5", "1e+5", "1e-05"};
    char many[2000];

    (void)state;
    for (size_t i = 0; i < sizeof(numbers) / sizeof(numbers[0]); i++)
        check_float(numbers[i]);
    memset(many, '9', sizeof(many));
    many[1] = '.';
    many[sizeof(many) - 1] = 0;
    check_float(many);
    memset(many + 2, '0', 1000);
    many[0] = '0';
    check_float(many);
}

static void test_doubles_agree_with_strtod(void **state) {
    static const int64_t one[] = {1};
    uint64_t seed = 7;

    (void)state;
    for (int i = 0; i < 200000; i++) {
        uint64_t bits = next_random(&seed);
        double v, got = 0;
        char text[600];
        struct error err;

        memcpy(&v, &bits, sizeof(v));
        if (!isfinite(v))
            continue;
        snprintf(
            text, sizeof(text), i % 2 ? "[%.17g]" : "[%.6g]", i % 3 ? v : ldexp((double)(int64_t)bits, -40));
        assert_int_equal(scan(text, DT_F64, 1, one, &got, &err), 0);
        assert_true(got == strtod(text + 1, NULL));
    }
}

static void test_integers_are_exact_and_ranged(void **state) {
    static const struct {
        const char *text;
        enum dtype t;
        int64_t value;
        bool ok;
    } cases[] = {{"[255]", DT_U8, 255, true}, {"[256]", DT_U8, 0, false}, {"[-1]", DT_U8, 0, false},
        {"[-0]", DT_U8, 0, true}, {"[-128]", DT_S8, -128, true}, {"[-129]", DT_S8, 0, false},
        {"[128]", DT_S8, 0, false}, {"[65535]", DT_U16, 65535, true}, {"[65536]", DT_U16, 0, false},
        {"[-32768]", DT_S16, -32768, true}, {"[2147483647]", DT_S32, INT32_MAX, true},
        {"[2147483648]", DT_S32, 0, false}, {"[-2147483648]", DT_S32, INT32_MIN, true},
        {"[4294967295]", DT_U32, 4294967295, true}, {"[9223372036854775807]", DT_S64, INT64_MAX, true},
        {"[9223372036854775808]", DT_S64, 0, false}, {"[-9223372036854775808]", DT_S64, INT64_MIN, true},
        {"[18446744073709551615]", DT_U64, -1, true}, {"[18446744073709551616]", DT_U64, 0, false},
        {"[99999999999999999999999]", DT_U64, 0, false},
        {"[9007199254740993]", DT_S64, 9007199254740993, true}, {"[1.0]", DT_S32, 0, false},
        {"[1e2]", DT_S32, 0, false}, {"[01]", DT_S32, 0, false}, {"[+1]", DT_S32, 0, false},
        {"[true]", DT_S32, 0, false}, {"[true]", DT_BOOL, 1, true}, {"[false]", DT_BOOL, 0, true},
        {"[1]", DT_BOOL, 0, false}, {"[tru]", DT_BOOL, 0, false}};
    static const int64_t one[] = {1};

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct error err;
        int64_t got = 0;
        size_t size = dtype_info(cases[i].t)->bits / 8;

        assert_int_equal(scan(cases[i].text, cases[i].t, 1, one, &got, &err), cases[i].ok ? 0 : -EINVAL);
        if (cases[i].ok)
            assert_memory_equal(&got, &cases[i].value, size); /* little endian */
    }
}

static void test_flat_and_nested_forms(void **state) {
    static const struct {
        const char *text, *error; /* NULL: fine */
    } cases[] = {
        {"[1,2,3,4,5,6]", NULL},
        {"[[1,2,3],[4,5,6]]", NULL},
        {"[ [ 1 , 2 , 3 ] , [ 4 ,\n5 ,\t6 ] ]", NULL},
        {"[1,2,3,4,5]", "data has 5 values, the shape wants 6"},
        {"[1,2,3,4,5,6,7]", "data has at least 7 values, the shape wants 6"},
        {"[]", "data has 0 values, the shape wants 6"},
        {"[[],[]]", "an array of 0 where dimension 1 of the shape is 3"},
        {"[[1,2],[3,4],[5,6]]", "an array of 2 where dimension 1 of the shape is 3"},
        {"[[1,2,3,4,5,6]]", "an array of 6 where dimension 1 of the shape is 3"},
        {"[[1,2,3],[4,5,6],[]]", "an array of 0"},
        {"[[1,2,3]]", "an array of 1 where dimension 0 of the shape is 2"},
        {"[[[1,2,3]],[[4,5,6]]]", "nested deeper than the shape"},
        {"[1,2,[3,4,5,6]]", "an array beside values"},
        {"[[1,2,3],4,5,6]", "neither flat nor as the shape"},
        {"[1,2,3,4,5,6,]", "not a FP32 value"},
        {"[1,2,3,4,5,6 , ]", "not a FP32 value"},
        {"[,1,2,3,4,5,6]", "not a FP32 value"},
        {"[1,,2,3,4,5,6]", "not a FP32 value"},
        {"[1 2,3,4,5,6]", "not a FP32 value"},
        {"[[1,2,3][4,5,6]]", "not a FP32 value"},
        {"[[1,2,3],[4,5,6],]", "not a FP32 value"},
        {"[1,2,3,4,5,NaN]", "JSON has no NaN"},
        {"[1,2,3,4,5,-Infinity]", "JSON has no NaN"},
        {"[1,2,3,4,5,null]", "not a FP32 value"},
        {"[1,2,3,4,5,\"6\"]", "not a FP32 value"},
        {"[1,2,3,4,5,1e99]", "out of the range of FP32"},
        {"[1,2,3,4,5,.5]", "not a FP32 value"},
        {"[1,2,3,4,5,5.]", "not a FP32 value"},
        {"[1,2,3,4,5,0x1]", "not a FP32 value"},
        {"[1,2,3,4,5,1e]", "not a FP32 value"},
    };
    static const int64_t dims[] = {2, 3};

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        static const float want[] = {1, 2, 3, 4, 5, 6};
        float got[6];
        struct error err;
        int rc = scan(cases[i].text, DT_F32, 2, dims, got, &err);

        if (!cases[i].error) {
            assert_int_equal(rc, 0);
            assert_memory_equal(got, want, sizeof(want));
        } else if (rc != -EINVAL || !strstr(err.text, cases[i].error)) {
            fail_msg("%s: %d %s", cases[i].text, rc, err.text);
        }
    }
}

static void test_half_floats_need_binary(void **state) {
    static const int64_t one[] = {1};
    struct error err;
    uint16_t v;

    (void)state;
    assert_int_equal(scan("[1]", DT_F16, 1, one, &v, &err), -EINVAL);
    assert_non_null(strstr(err.text, "binary"));
    assert_int_equal(scan("[1]", DT_BF16, 1, one, &v, &err), -EINVAL);
}

static void test_cut_leaves_the_rest_and_finds_the_arrays(void **state) {
    static const char text[] =
        "{\"id\":\"a]\\\"b\",\"data\":[1],\"inputs\":[{\"data\" : [[1,2],[3]],\"name\":\"x\"},"
        "{\"p\":{\"data\":[5]},\"data\":[\"]\",\"\\\"]\"]}],\"outputs\":[{\"data\":[1]}]}";
    static const char rest[] = "{\"id\":\"a]\\\"b\",\"data\":[1],\"inputs\":[{\"data\" : 0,\"name\":\"x\"},"
                               "{\"p\":{\"data\":[5]},\"data\":1}],\"outputs\":[{\"data\":[1]}]}";
    struct tensor_json t;
    struct error err = {0};

    (void)state;
    tensor_json_init(&t);
    assert_int_equal(tensor_json_cut(&t, text, strlen(text), 64, &err), 0);
    assert_string_equal(t.rest.data, rest);
    assert_int_equal(t.n_spans, 2);
    assert_memory_equal(t.span[0].text, "[[1,2],[3]]", t.span[0].size);
    assert_memory_equal(t.span[1].text, "[\"]\",\"\\\"]\"]", t.span[1].size);
    tensor_json_done(&t);
}

static void test_cut_refuses_what_it_cannot_follow(void **state) {
    static const char *const bad[] = {"{\"inputs\":[{\"data\":[1,2", "{\"inputs\":[{\"data\":\"x\"}]}",
        "{\"inputs\":[{\"data\":5}]}", "\"abc", "]", "{\"inputs\":[{\"data\":[\"]"};
    char deep[300];

    (void)state;
    for (size_t i = 0; i <= sizeof(bad) / sizeof(bad[0]); i++) {
        struct tensor_json t;
        struct error err = {0};

        memset(deep, '[', sizeof(deep));
        tensor_json_init(&t);
        assert_int_equal(i < sizeof(bad) / sizeof(bad[0])
                             ? tensor_json_cut(&t, bad[i], strlen(bad[i]), 64, &err)
                             : tensor_json_cut(&t, deep, 65, 64, &err),
            -EINVAL);
        assert_string_equal(err.code, "bad_json");
        tensor_json_done(&t);
    }
}

static void test_written_floats_read_back_in_few_digits(void **state) {
    static const struct {
        float f;
        const char *text;
    } cases[] = {{0, "[0]"}, {-0.0f, "[-0]"}, {1, "[1]"}, {0.1f, "[0.1]"}, {-2.5f, "[-2.5]"}, {100, "[100]"},
        {1e15f, "[1000000000000000]"}, {123456.7f, "[123456.7]"}, {16777216, "[16777216]"},
        {1e-5f, "[0.00001]"}, {1e-6f, "[1e-06]"}, {FLT_MAX, "[3.4028235e+38]"}, {1.0f / 3, "[0.33333334]"},
        {INFINITY, "[null]"}, {NAN, "[null]"}, {9.9999997e-5f, "[0.0001]"}, {0.5f, "[0.5]"}};
    uint64_t seed = 3;
    size_t total = 0, n = 0;

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct error err = {0};
        struct buf b;

        buf_init(&b, 100);
        assert_int_equal(tensor_json_write(&b, DT_F32, &cases[i].f, 1, &err), 0);
        assert_string_equal(b.data, cases[i].text);
        buf_done(&b);
    }
    for (int i = 0; i < 500000; i++) {
        uint32_t bits = (uint32_t)next_random(&seed);
        struct error err = {0};
        struct buf b;
        float f, back;

        memcpy(&f, &bits, sizeof(f));
        if (!isfinite(f))
            continue;
        buf_init(&b, 100);
        assert_int_equal(tensor_json_write(&b, DT_F32, &f, 1, &err), 0);
        back = strtof(b.data + 1, NULL);
        if (memcmp(&back, &f, sizeof(f)) != 0)
            fail_msg("%.9g written as %s", (double)f, b.data);
        total += b.size - 2;
        n++;
        buf_done(&b);
    }
    assert_true(total / n <= 14);
}

static void test_written_integers(void **state) {
    static const int64_t s64[] = {INT64_MIN, -1, 0, INT64_MAX};
    static const uint8_t flags[] = {1, 0};
    struct error err = {0};
    struct buf b;

    (void)state;
    buf_init(&b, 1000);
    assert_int_equal(tensor_json_write(&b, DT_S64, s64, 4, &err), 0);
    assert_int_equal(tensor_json_write(&b, DT_BOOL, flags, 2, &err), 0);
    assert_int_equal(tensor_json_write(&b, DT_F32, NULL, 0, &err), 0);
    assert_string_equal(b.data, "[-9223372036854775808,-1,0,9223372036854775807][true,false][]");
    assert_int_equal(tensor_json_write(&b, DT_F16, s64, 1, &err), -EINVAL);
    buf_done(&b);
}

static void test_a_picture_is_cut_and_scanned(void **state) {
    enum { N = 3 * 224 * 224 };
    static const int digits[] = {4, 9, 17};
    struct shape shape = {.rank = 4, .dim = {1, 3, 224, 224}};
    float *out = malloc(N * sizeof(float));

    (void)state;
    for (size_t f = 0; f < 3; f++) {
        char *text = malloc(N * 26 + 100), *p = text, *numbers;
        struct tensor_json t;
        struct error err = {0};
        uint64_t seed = 9;

        p += sprintf(p, "{\"inputs\":[{\"data\":");
        numbers = p;
        for (int i = 0; i < N; i++)
            p += sprintf(p, "%c%.*g", i ? ',' : '[', digits[f], (double)(int64_t)next_random(&seed) / 0x1p63);
        p += sprintf(p, "]}]}");
        tensor_json_init(&t);
        assert_int_equal(tensor_json_cut(&t, text, (size_t)(p - text), 64, &err), 0);
        assert_string_equal(t.rest.data, "{\"inputs\":[{\"data\":0}]}");
        assert_ptr_equal(t.span[0].text, numbers);
        assert_int_equal(tensor_json_scan(&t.span[0], DT_F32, &shape, out, &err), 0);
        for (int i = 0; i < N; i++)
            assert_true(out[i] == strtof(numbers + 1, &numbers));
        tensor_json_done(&t);
        free(text);
    }
    free(out);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_floats_agree_with_strtof_on_random_numbers),
        cmocka_unit_test(test_hard_floats),
        cmocka_unit_test(test_doubles_agree_with_strtod),
        cmocka_unit_test(test_integers_are_exact_and_ranged),
        cmocka_unit_test(test_flat_and_nested_forms),
        cmocka_unit_test(test_half_floats_need_binary),
        cmocka_unit_test(test_cut_leaves_the_rest_and_finds_the_arrays),
        cmocka_unit_test(test_cut_refuses_what_it_cannot_follow),
        cmocka_unit_test(test_written_floats_read_back_in_few_digits),
        cmocka_unit_test(test_written_integers),
        cmocka_unit_test(test_a_picture_is_cut_and_scanned),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
