/* Loading and writing with every allocation failing in turn: an error each time, nothing leaked (the
 * sanitiser's build checks), nothing crashed. Linked with the allocator wrapped (meson.build). */
#include "tests/unit/cmocka_all.h"

#include <errno.h>
#include <string.h>

#include "engine/onnx.h"
#include "engine/onnx_read.h"
#include "engine/pass.h"
#include "engine/summary.h"
#include "tests/unit/failing_alloc.h"
#include "tests/unit/model_file.h"

#define MAX_ALLOCATIONS 10000

static void test_loading_survives_every_failing_allocation(void **state) {
    size_t size = 0;
    uint8_t *file = data_bytes(TEST_DATA "/models/mnist-8.onnx", &size);
    long n;
    int r = -1;

    (void)state;
    assert_non_null(file);
    for (n = 0; n < MAX_ALLOCATIONS && r < 0; n++) {
        struct error e = {0};
        struct graph *g = NULL, *clone = NULL;

        fail_alloc_at(n);
        r = onnx_parse(file, size, &g, &e);
        if (r == 0)
            r = graph_clone(g, &clone, &e);
        fail_alloc_at(-1);
        if (r < 0) {
            assert_int_equal(r, -ENOMEM);
            assert_string_equal(e.text, "out of memory");
        }
        graph_free(clone);
        graph_free(g);
    }
    assert_int_equal(r, 0);
    assert_true(n > 5);
    free(file);
}

static void test_writing_survives_every_failing_allocation(void **state) {
    size_t size = 0;
    uint8_t *file = data_bytes(TEST_DATA "/models/mnist-8.onnx", &size);
    struct error e = {0};
    struct graph *g = NULL;
    int fd = open("/dev/null", O_WRONLY | O_CLOEXEC), r = -1;

    (void)state;
    assert_non_null(file);
    assert_true(fd >= 0);
    assert_int_equal(onnx_parse(file, size, &g, &e), 0);
    for (long n = 0; n < MAX_ALLOCATIONS && r < 0; n++) {
        error_clear(&e);
        fail_alloc_at(n);
        r = onnx_write_fd(g, fd, &e);
        fail_alloc_at(-1);
        assert_true(r == 0 || r == -ENOMEM);
    }
    assert_int_equal(r, 0);
    close(fd);
    graph_free(g);
    free(file);
}

/* Operators, shapes, summary and passes too. A pass may do less when memory is short, but never half. */
static void check_everything(const uint8_t *file, size_t size) {
    struct error e = {0};
    struct graph *g = NULL;
    struct summary *s = NULL;
    int r = onnx_read(file, size, &g, &e);

    if (r == 0)
        r = summary_new(g, &s, &e);
    for (size_t i = 0; i < pass_table_size && r == 0; i++)
        if (pass_table[i]->is_onnx_level)
            r = pass_table[i]->run(g, &e);
    assert_true(r == 0 || r == -ENOMEM);
    summary_free(s);
    graph_free(g);
}

static void test_check_and_passes_survive_every_failing_allocation(void **state) {
    static const char *const files[] = {"conv_pad_bn", "shared_identity", "pool_pad", "gemm_arithmetic"};

    (void)state;
    for (size_t i = 0; i < sizeof(files) / sizeof(files[0]); i++) {
        size_t size = 0;
        char path[512];
        uint8_t *file;
        long n = 0;

        snprintf(path, sizeof(path), "%s/models/%s.onnx", TEST_DATA, files[i]);
        file = data_bytes(path, &size);
        assert_non_null(file);
        /* until none is left to fail */
        for (; n < MAX_ALLOCATIONS; n++) {
            fail_alloc_at(n);
            check_everything(file, size);
            if (fail_alloc_pending())
                break;
        }
        fail_alloc_at(-1);
        assert_true(n > 20 && n < MAX_ALLOCATIONS);
        free(file);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_loading_survives_every_failing_allocation),
        cmocka_unit_test(test_check_and_passes_survive_every_failing_allocation),
        cmocka_unit_test(test_writing_survives_every_failing_allocation),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
