/* A temporary folder of its own for a test. */
#ifndef TESTS_UNIT_TEMP_DIR_H
#define TESTS_UNIT_TEMP_DIR_H

#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static inline void temp_dir_make(char ret[static 64]) {
    const char *base = getenv("TMPDIR");

    snprintf(ret, 64, "%.40s/bonsai-test-XXXXXX", base ? base : "/tmp");
    assert_non_null(mkdtemp(ret));
}

static inline int temp_dir_remove_one(const char *path, const struct stat *st, int kind, struct FTW *f) {
    (void)st;
    (void)kind;
    (void)f;
    return remove(path);
}

static inline void temp_dir_remove(const char *dir) {
    nftw(dir, temp_dir_remove_one, 16, FTW_DEPTH | FTW_PHYS);
}

#endif
