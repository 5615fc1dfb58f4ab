/* The cache of decoded pictures: shared, within its budget, and never a wrong picture, whatever happened to
 * its files. */
#include <dirent.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "base/cleanup.h"
#include "compress/picture_cache.h"
#include "tests/unit/cmocka_all.h"
#include "tests/unit/temp_dir.h"

#define N    50
#define SIZE 101 /* no multiple of a word */

static char folder[64];

static int make_folder(void **state) {
    (void)state;
    temp_dir_make(folder);
    return 0;
}

static int remove_folder(void **state) {
    (void)state;
    temp_dir_remove(folder);
    return 0;
}

/* Names of the files, '\n' after each; their number. */
static int list(char *ret, size_t size) {
    DIR *d = opendir(folder);
    struct dirent *e;
    int n = 0;

    *ret = 0;
    assert_non_null(d);
    while ((e = readdir(d)))
        if (e->d_name[0] != '.') {
            snprintf(ret + strlen(ret), size - strlen(ret), "%s\n", e->d_name);
            n++;
        }
    closedir(d);
    return n;
}

static void picture(uint64_t i, uint8_t ret[static SIZE]) {
    for (size_t k = 0; k < SIZE; k++)
        ret[k] = (uint8_t)(i * 31 + k * k + 1);
}

static struct picture_cache *open_cache(const char *owner, const char *what, uint64_t budget) {
    return picture_cache_open(&(struct picture_cache_place){folder, owner, budget}, what, N, SIZE);
}

static void put_all(struct picture_cache *c) {
    uint8_t p[SIZE];

    for (uint64_t i = 0; i < N; i++) {
        picture(i, p);
        picture_cache_put(c, i, p);
    }
}

/* How many are there; those are right. */
static int count_right(const struct picture_cache *c) {
    uint8_t have[SIZE], want[SIZE];
    int n = 0;

    for (uint64_t i = 0; i < N; i++)
        if (picture_cache_get(c, i, have)) {
            picture(i, want);
            assert_memory_equal(have, want, SIZE);
            n++;
        }
    return n;
}

static void the_path(char ret[static 512]) {
    char names[4096];

    assert_int_equal(list(names, sizeof(names)), 1);
    names[strcspn(names, "\n")] = 0;
    snprintf(ret, 512, "%s/%.255s", folder, names);
}

static void test_what_is_put_is_there_for_all_and_later(void **state) {
    _cleanup_(picture_cache_freep) struct picture_cache *a = open_cache("d1", "x", 1 << 20);
    _cleanup_(picture_cache_freep) struct picture_cache *b = open_cache("d1", "x", 1 << 20);
    uint8_t p[SIZE];

    (void)state;
    assert_true(a && b);
    assert_int_equal(count_right(a), 0);
    picture(7, p);
    picture_cache_put(a, 7, p);
    assert_int_equal(count_right(b), 1);
    put_all(b);
    assert_int_equal(count_right(a), N);
    a = picture_cache_free(a);
    b = picture_cache_free(b);
    a = open_cache("d1", "x", 1 << 20);
    assert_int_equal(count_right(a), N);
}

static void test_other_pictures_have_another_file(void **state) {
    _cleanup_(picture_cache_freep) struct picture_cache *a = open_cache("d1", "x", 1 << 20);
    _cleanup_(picture_cache_freep) struct picture_cache *b = open_cache("d2", "x", 1 << 20);
    _cleanup_(picture_cache_freep) struct picture_cache *c = open_cache("d1", "y", 1 << 20);
    const struct picture_cache_place at = {folder, "d1", 1 << 20};
    _cleanup_(picture_cache_freep) struct picture_cache *d = picture_cache_open(&at, "x", N + 1, SIZE);
    char names[4096];

    (void)state;
    put_all(a);
    assert_true(b && c && d);
    assert_int_equal(count_right(b) + count_right(c) + count_right(d), 0);
    assert_int_equal(list(names, sizeof(names)), 4);
    assert_non_null(strstr(names, "d2-"));
}

static void test_without_a_folder_it_lives_as_long_as_it_is_open(void **state) {
    _cleanup_(picture_cache_freep) struct picture_cache *c =
        picture_cache_open(&(struct picture_cache_place){.budget = 1 << 20}, "x", N, SIZE);

    (void)state;
    put_all(c);
    assert_int_equal(count_right(c), N);
}

static void test_what_does_not_fit_is_not_kept(void **state) {
    const struct picture_cache_place at = {folder, "d", UINT64_MAX}, odd = {folder, "../d", 1 << 20},
                                     gone = {"/nowhere/at/all", "d", 1 << 20};
    char names[4096];

    (void)state;
    assert_null(open_cache("d", "x", 0));
    assert_null(open_cache("d", "x", N * SIZE));
    assert_null(picture_cache_open(&at, "x", UINT64_MAX / 4, SIZE));
    assert_null(picture_cache_open(&at, "x", (uint64_t)1 << 40, SIZE)); /* no disk has that free */
    assert_null(picture_cache_open(&at, "x", 0, SIZE));
    assert_null(picture_cache_open(&odd, "x", N, SIZE));
    assert_null(picture_cache_open(&gone, "x", N, SIZE));
    assert_int_equal(list(names, sizeof(names)), 0);
}

static void age(const char *name_begins, int seconds) {
    char names[4096], path[512];
    struct timespec t[2] = {{.tv_sec = 1700000000 - seconds}, {.tv_sec = 1700000000 - seconds}};

    list(names, sizeof(names));
    for (const char *s = strtok(names, "\n"); s; s = strtok(NULL, "\n"))
        if (!strncmp(s, name_begins, strlen(name_begins))) {
            snprintf(path, sizeof(path), "%s/%.255s", folder, s);
            assert_int_equal(utimensat(AT_FDCWD, path, t, 0), 0);
        }
}

static void test_what_was_not_used_for_longest_makes_room(void **state) {
    const uint64_t one = 128 + N * (8 + 104);
    _cleanup_(picture_cache_freep) struct picture_cache *first = open_cache("a1", "x", 3 * one);
    char names[4096];

    (void)state;
    picture_cache_free(open_cache("b1", "x", 3 * one));
    picture_cache_free(open_cache("c1", "x", 3 * one));
    assert_int_equal(list(names, sizeof(names)), 3);
    age("a1", 300);
    age("b1", 200);
    age("c1", 100);
    put_all(first); /* it is written to, but not opened anew: that makes no difference to an open one … */
    age("a1", 300);
    picture_cache_free(open_cache("b1", "x", 3 * one)); /* … used now */
    picture_cache_free(open_cache("d1", "x", 3 * one));
    assert_int_equal(list(names, sizeof(names)), 3);
    assert_null(strstr(names, "a1-"));
    picture_cache_free(open_cache("e1", "x", 3 * one));
    assert_int_equal(list(names, sizeof(names)), 3);
    assert_null(strstr(names, "c1-"));
    assert_int_equal(count_right(first), N); /* whoever has it open keeps it */
}

static void test_damaged_files_are_replaced_or_their_pictures_are_not_there(void **state) {
    static const struct {
        off_t at; /* a byte changed; -1: cut to `size` */
        off_t size;
        int n_right; /* afterwards */
    } cases[] = {{0, 0, 0}, {9, 0, 0}, {20, 0, 0}, {40, 0, 0}, {100, 0, 0}, {128, 0, N - 1}, {135, 0, N - 1},
        {136, 0, N - 1}, {236, 0, N - 1}, {128 + 112 * 9 + 50, 0, N - 1}, {-1, 0, 0}, {-1, 60, 0},
        {-1, 128 + 112 * 20, 0}};
    char path[512];

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        _cleanup_(picture_cache_freep) struct picture_cache *c = open_cache("d1", "x", 1 << 20);
        uint8_t byte;
        int fd;

        put_all(c);
        c = picture_cache_free(c);
        the_path(path);
        fd = open(path, O_RDWR | O_CLOEXEC);
        assert_true(fd >= 0);
        if (cases[i].at >= 0) {
            assert_int_equal(pread(fd, &byte, 1, cases[i].at), 1);
            byte ^= 4;
            assert_int_equal(pwrite(fd, &byte, 1, cases[i].at), 1);
        } else {
            assert_int_equal(ftruncate(fd, cases[i].size), 0);
        }
        close(fd);
        c = open_cache("d1", "x", 1 << 20);
        assert_non_null(c);
        assert_int_equal(count_right(c), cases[i].n_right);
        put_all(c);
        assert_int_equal(count_right(c), N);
    }
}

/* Bytes at random: whatever is found is right (count_right). */
static void test_no_damage_gives_a_wrong_picture(void **state) {
    uint32_t v = 1;
    char path[512];

    (void)state;
    for (int round = 0; round < 300; round++) {
        _cleanup_(picture_cache_freep) struct picture_cache *c = open_cache("d1", "x", 1 << 20);
        int fd;

        put_all(c);
        the_path(path);
        fd = open(path, O_RDWR | O_CLOEXEC);
        for (int k = 0; k < 20; k++) {
            uint8_t byte;

            v = v * 1664525u + 1013904223u;
            byte = (uint8_t)(v >> 8);
            assert_int_equal(pwrite(fd, &byte, 1, 128 + (v >> 10) % (N * 112)), 1);
        }
        close(fd);
        assert_in_range(count_right(c), N - 20, N);
    }
}

static void test_a_writer_killed_half_way_leaves_no_wrong_picture(void **state) {
    (void)state;
    for (int round = 0; round < 20; round++) {
        _cleanup_(picture_cache_freep) struct picture_cache *c = NULL;
        pid_t child = fork();

        assert_true(child >= 0);
        if (child == 0) {
            alarm(20);
            c = open_cache("d1", "x", 1 << 20);
            for (;;)
                put_all(c);
        }
        c = open_cache("d1", "x", 1 << 20);
        assert_non_null(c);
        for (int i = 0; i < 20 * round; i++)
            count_right(c); /* beside the writer */
        kill(child, SIGKILL);
        assert_int_equal(waitpid(child, NULL, 0), child);
        count_right(c);
        c = picture_cache_free(c);
        c = open_cache("d1", "x", 1 << 20);
        count_right(c);
    }
}

/* In a process of its own: no file may grow. The file has its size already, so the limit stands for the disk
 * that is full when a hole is filled. */
static void test_a_full_disk_is_no_error(void **state) {
    pid_t child = fork();
    int status;

    (void)state;
    if (child == 0) {
        const struct rlimit none = {200, 200};
        struct picture_cache *c = open_cache("d1", "x", 1 << 20);
        uint8_t p[SIZE];
        int n;

        signal(SIGXFSZ, SIG_IGN);
        setrlimit(RLIMIT_FSIZE, &none);
        put_all(c);
        n = count_right(c);
        picture(3, p);
        picture_cache_put(c, 3, p);
        _exit(n == 0 && !picture_cache_get(c, 3, p) && !open_cache("d2", "x", 1 << 20) ? 0 : 1);
    }
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_int_equal(status, 0);
}

/* A quarter of what may be mapped, no more. */
static void test_a_small_address_space_is_left_alone(void **state) {
    pid_t child = fork();
    int status;

    (void)state;
    if (child == 0) {
        const struct rlimit small = {16u << 20, RLIM_INFINITY};
        const struct picture_cache_place at = {folder, "d1", 1 << 30};

        setrlimit(RLIMIT_AS, &small);
        _exit(picture_cache_open(&at, "x", (5 << 20) / SIZE, SIZE) ? 1 : 0);
    }
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_int_equal(status, 0);
}

int main(void) {
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(
            test_what_is_put_is_there_for_all_and_later, make_folder, remove_folder),
        cmocka_unit_test_setup_teardown(test_other_pictures_have_another_file, make_folder, remove_folder),
        cmocka_unit_test(test_without_a_folder_it_lives_as_long_as_it_is_open),
        cmocka_unit_test_setup_teardown(test_what_does_not_fit_is_not_kept, make_folder, remove_folder),
        cmocka_unit_test_setup_teardown(
            test_what_was_not_used_for_longest_makes_room, make_folder, remove_folder),
        cmocka_unit_test_setup_teardown(
            test_damaged_files_are_replaced_or_their_pictures_are_not_there, make_folder, remove_folder),
        cmocka_unit_test_setup_teardown(test_no_damage_gives_a_wrong_picture, make_folder, remove_folder),
        cmocka_unit_test_setup_teardown(
            test_a_writer_killed_half_way_leaves_no_wrong_picture, make_folder, remove_folder),
        cmocka_unit_test_setup_teardown(test_a_full_disk_is_no_error, make_folder, remove_folder),
        cmocka_unit_test_setup_teardown(test_a_small_address_space_is_left_alone, make_folder, remove_folder),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
