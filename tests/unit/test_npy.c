#include "tests/unit/cmocka_all.h"

#include <stdio.h>
#include <string.h>

#include "compress/npy.h"

static size_t make(char *ret, const char *dict, const void *data, size_t size) {
    size_t n = strlen(dict);

    memcpy(ret, "\x93NUMPY\x01\x00", 8);
    ret[8] = (char)(n & 0xff);
    ret[9] = (char)(n >> 8);
    memcpy(ret + 10, dict, n);
    memcpy(ret + 10 + n, data, size);
    return 10 + n + size;
}

static void test_written_headers_are_read_back(void **state) {
    static const enum dtype types[] = {DT_F32, DT_U8, DT_S64, DT_BOOL, DT_F16};
    char file[NPY_HEADER_MAX + 4096] = {0};

    (void)state;
    for (size_t i = 0; i < sizeof(types) / sizeof(types[0]); i++)
        for (int rank = 0; rank <= 4; rank++) {
            struct shape s = {.rank = rank, .dim = {2, 3, 1, 5}};
            int n = npy_write_header(types[i], &s, file);
            struct error err = {0};
            struct tensor t;

            assert_true(n > 0 && n % 64 == 0);
            assert_int_equal(npy_read(file, sizeof(file), &t, &err), 0);
            assert_int_equal(t.dtype, types[i]);
            assert_true(shape_equal(&t.shape, &s));
            assert_ptr_equal(t.data, file + n);
        }
}

static void test_unusable_arrays_are_refused_by_name(void **state) {
    static const struct {
        const char *dict, *complaint;
    } cases[] = {
        {"{'descr': '|O', 'fortran_order': False, 'shape': (1,), }", "type"},
        {"{'descr': '>f4', 'fortran_order': False, 'shape': (1,), }", "type"},
        {"{'descr': '<f4', 'fortran_order': True, 'shape': (1,), }", "Fortran"},
        {"{'descr': '<f4', 'fortran_order': False, 'shape': (1,1,1,1,1,1,1,1,1), }", "shape"},
        {"{'descr': '<f4', 'fortran_order': False, 'shape': (99999999999999999999,), }", "too large"},
        {"{'descr': '<f4', 'fortran_order': False, 'shape': (9223372036854775807,2), }", "shorter"},
        {"{'descr': '<f4', 'fortran_order': False, 'shape': (-1,), }", "shape"},
        {"{'descr': '<f4', 'fortran_order': False, 'shape': (2,), }", "shorter"},
        {"{'descr': '<f4', 'fortran_order': False, 'shape': (1", "shape"},
        {"", "order"},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        char file[512];
        size_t n = make(file, cases[i].dict, "abcd", 4);
        struct error err = {0};
        struct tensor t;

        assert_true(npy_read(file, n, &t, &err) < 0);
        if (!strstr(err.text, cases[i].complaint))
            fail_msg("case %zu: '%s' does not speak of '%s'", i, err.text, cases[i].complaint);
    }
}

static void test_a_file_cut_off_anywhere_is_refused(void **state) {
    char file[512];
    size_t n = make(file, "{'descr': '<f4', 'fortran_order': False, 'shape': (1,), }", "abcd", 4);
    struct tensor t;

    (void)state;
    assert_int_equal(npy_read(file, n, &t, NULL), 0);
    for (size_t cut = 0; cut < n; cut++)
        assert_true(npy_read(file, cut, &t, NULL) < 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_written_headers_are_read_back),
        cmocka_unit_test(test_unusable_arrays_are_refused_by_name),
        cmocka_unit_test(test_a_file_cut_off_anywhere_is_refused),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
