#include "tests/unit/cmocka_all.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/error.h"
#include "base/reader.h"
#include "base/stats.h"

static void test_first_error_wins_and_prefix_adds_context(void **state) {
    struct error e = {0};

    (void)state;
    assert_int_equal(error_set(&e, -EINVAL, "kernel has %d dims", 3), -EINVAL);
    error_set(&e, -EIO, "later");
    error_prefix(&e, -EINVAL, "node '%s'", "conv1");
    assert_string_equal(e.text, "node 'conv1': kernel has 3 dims");
    assert_int_equal(e.err, -EINVAL);
}

static void test_a_sentence_too_long_ends_with_a_whole_character(void **state) {
    char name[ERROR_TEXT_MAX + 1];

    (void)state;
    /* "é" is two bytes: from one of the two starts a character is split at the end */
    for (size_t i = 0; i + 1 < sizeof(name); i += 2)
        memcpy(name + i, "\xc3\xa9", 2);
    name[sizeof(name) - 1] = 0;
    for (int start = 0; start < 2; start++) {
        struct error e = {0};
        size_t n;

        error_set(&e, -EINVAL, "%s%s", start ? "x" : "", name);
        n = strlen(e.text);
        assert_int_equal((n - (size_t)start) % 2, 0);
        assert_true(n >= ERROR_TEXT_MAX - 2);
    }
}

static void test_buffer_refuses_to_grow_past_its_maximum(void **state) {
    struct buf b;

    (void)state;
    buf_init(&b, 100);
    for (int i = 0; i < 10; i++)
        assert_int_equal(buf_puts(&b, "0123456789"), 0);
    assert_int_equal(buf_append(&b, "x", 1), -EFBIG);
    assert_int_equal(b.size, 100);
    assert_int_equal(b.data[100], 0);
    buf_done(&b);
}

static void test_varint_refuses_cut_off_and_oversized_numbers(void **state) {
    static const struct {
        uint8_t bytes[11];
        size_t size;
        bool ok;
        uint64_t value;
    } cases[] = {
        {{0x00}, 1, true, 0},
        {{0xac, 0x02}, 2, true, 300},
        {{0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01}, 10, true, UINT64_MAX},
        {{0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x02}, 10, false, 0},
        {{0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x01}, 11, false, 0},
        {{0x80}, 1, false, 0},
        {{0}, 0, false, 0},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct reader r;
        uint64_t v = 0;

        reader_init(&r, cases[i].bytes, cases[i].size);
        assert_int_equal(reader_varint(&r, &v), cases[i].ok);
        assert_true(v == cases[i].value);
        assert_int_equal(reader_offset(&r), cases[i].ok ? cases[i].size : 0);
    }
}

/* Published values: Newcombe 1998 table (81/263: 0.2553 to 0.3662), and the binomial by hand. */
static void test_statistics_agree_with_published_values(void **state) {
    struct interval w = stats_wilson95(81, 263);

    (void)state;
    assert_true(fabs(w.low - 0.2553) < 5e-5 && fabs(w.high - 0.3662) < 5e-5);
    w = stats_wilson95(0, 20);
    assert_true(w.low == 0 && fabs(w.high - 0.1611) < 5e-5);
    /* 2 * (C(10,0) + C(10,1) + C(10,2)) / 1024 */
    assert_true(fabs(stats_mcnemar(2, 8) - 112.0 / 1024) < 1e-12);
    assert_true(stats_mcnemar(0, 0) == 1);
    assert_true(stats_mcnemar(5, 5) == 1);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_first_error_wins_and_prefix_adds_context),
        cmocka_unit_test(test_a_sentence_too_long_ends_with_a_whole_character),
        cmocka_unit_test(test_buffer_refuses_to_grow_past_its_maximum),
        cmocka_unit_test(test_varint_refuses_cut_off_and_oversized_numbers),
        cmocka_unit_test(test_statistics_agree_with_published_values),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
