/* The memory limit of a control group, from trees of files as the kernel shows them. */
#include "tests/unit/cmocka_all.h"

#include <stdio.h>
#include <sys/stat.h>

#include "daemon/cgroup.h"
#include "tests/unit/state_dir.h"

static void write_file(const char *dir, const char *name, const char *text) {
    char path[256];
    FILE *f;

    snprintf(path, sizeof(path), "%s/%s", dir, name);
    f = fopen(path, "we");
    assert_non_null(f);
    assert_true(fputs(text, f) >= 0);
    fclose(f);
}

static void test_the_smallest_limit_up_the_tree_holds(void **state) {
    static const struct {
        const char *membership, *root, *middle, *own; /* memory.max; NULL: no such file */
        uint64_t want;
    } cases[] = {
        {"0::/a.slice/b.service\n", NULL, "max\n", "1000\n", 1000},
        {"0::/a.slice/b.service\n", NULL, "500\n", "1000\n", 500},
        {"0::/a.slice/b.service\n", NULL, "500\n", "max\n", 500},
        {"0::/a.slice/b.service\n", NULL, "max\n", "max\n", 0},
        {"4:memory:/x\n0::/a.slice/b.service\n", NULL, "max\n", "7000\n", 7000},
        {"0::/\n", "300\n", "20\n", "10\n", 300},             /* a container with its group as the root */
        {"0::/host/path\n", "300\n", "20\n", "10\n", 300},    /* one that sees its host's path */
        {"4:memory:/a.slice\n", NULL, "20\n", "10\n", 0},     /* version 1 only */
        {"0::/a.slice/b.service", NULL, "20\n", "1000\n", 0}, /* cut off */
    };

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        char dir[64], path[128];

        temp_dir_make(dir);
        snprintf(path, sizeof(path), "%s/a.slice", dir);
        assert_int_equal(mkdir(path, 0700), 0);
        snprintf(path, sizeof(path), "%s/a.slice/b.service", dir);
        assert_int_equal(mkdir(path, 0700), 0);
        write_file(dir, "membership", cases[i].membership);
        if (cases[i].root)
            write_file(dir, "memory.max", cases[i].root);
        write_file(dir, "a.slice/memory.max", cases[i].middle);
        write_file(dir, "a.slice/b.service/memory.max", cases[i].own);
        snprintf(path, sizeof(path), "%s/membership", dir);
        if (cgroup_memory_limit(path, dir) != cases[i].want)
            fail_msg("case %zu", i);
        temp_dir_remove(dir);
    }
}

static void test_without_groups_there_is_no_limit(void **state) {
    (void)state;
    assert_true(cgroup_memory_limit("/nonexistent", "/nonexistent") == 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_the_smallest_limit_up_the_tree_holds),
        cmocka_unit_test(test_without_groups_there_is_no_limit),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
