/* The import of data sets: every rule of the contract, and the archives that must be refused. */
#include <archive_entry.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "compress/dataset.h"
#include "tests/unit/archive_make.h"
#include "tests/unit/cmocka_all.h"

#define N(a) (sizeof(a) / sizeof((a)[0]))

static const struct dataset_options roomy = {
    .max_bytes = 64 << 20, .max_members = 100000, .max_pixels = 1 << 20};

/* A picture of one pixel; bytes behind its end make each one different. */
static struct {
    uint8_t data[1024];
    size_t size;
} png;

static int load_png(void **state) {
    _cleanup_(fclosep) FILE *f = fopen(TEST_DATA "/decode/made/one_pixel.png", "rbe");

    (void)state;
    assert_non_null(f);
    png.size = fread(png.data, 1, sizeof(png.data), f);
    return png.size ? 0 : -1;
}

static struct member picture(const char *name) {
    return (struct member){.name = name, .data = png.data, .size = png.size};
}

/* The summary, or NULL with `err` set. */
static json_t *import(int in, const struct dataset_options *o, int *ret_fd, struct error *err) {
    int out = memory_file(), r;
    json_t *summary = NULL;

    r = dataset_import(in, out, o, NULL, &summary, err);
    assert_int_equal(r == 0, summary != NULL);
    assert_int_equal(r, err->err);
    if (ret_fd)
        *ret_fd = out;
    else
        close(out);
    close(in);
    return summary;
}

static json_t *import_members(enum made_format f, const struct member *m, size_t n,
    const struct dataset_options *o, struct error *err) {
    return import(archive_make(f, m, n), o, NULL, err);
}

static void assert_classes(const json_t *summary, const char *const *names, size_t n) {
    const json_t *classes = json_object_get(summary, "classes");

    assert_int_equal(json_array_size(classes), n);
    for (size_t i = 0; i < n; i++)
        assert_string_equal(json_string_value(json_array_get(classes, i)), names[i]);
}

static int64_t split_count(const json_t *summary, const char *split) {
    return json_integer_value(
        json_object_get(json_object_get(json_object_get(summary, "splits"), split), "count"));
}

static void test_class_folders_of_every_container(void **state) {
    static const char *const classes[] = {"a", "b"};
    const struct member members[] = {
        {.name = "train/"},
        picture("./train/b/1.png"),
        picture("train/a/no-picture-by-name.txt"),
        {.name = "train/a/.hidden", .data = "x", .size = 1},
        {.name = "__MACOSX/train/a/._1.png", .data = "x", .size = 1},
        picture("test/a/1.png"),
    };

    (void)state;
    for (int f = MADE_TAR; f <= MADE_ZIP; f++) {
        struct error err = {0};
        json_t *s = import_members((enum made_format)f, members, N(members), &roomy, &err);

        if (!s)
            fail_msg("format %d: %s", f, err.text);
        assert_classes(s, classes, 2);
        assert_int_equal(split_count(s, "train"), 2);
        assert_int_equal(split_count(s, "test"), 1);
        assert_true(json_is_false(json_object_get(s, "divided")));
        json_decref(s);
    }
}

static void test_one_common_folder_is_passed_over(void **state) {
    static const char *const classes[] = {"cat", "dog"};
    const struct member members[] = {picture("photos/dog/1.png"), picture("photos/cat/2.png")};
    const struct member one[] = {picture("dog/1.png"), picture("dog/2.png")};
    struct dataset_options o = roomy;
    struct error err = {0};
    json_t *s;

    (void)state;
    o.split = "test";
    s = import_members(MADE_TAR, members, 2, &o, &err);
    assert_classes(s, classes, 2);
    assert_int_equal(split_count(s, "test"), 2);
    json_decref(s);
    s = import_members(MADE_TAR, one, 2, &o, &err); /* one class: accepted */
    assert_classes(s, classes + 1, 1);
    json_decref(s);
}

#define MANY 500

/* Every item's label and split, by its digest: the same for each order of the members. */
static void test_items_are_divided_by_content(void **state) {
    static struct member members[MANY];
    static uint8_t data[MANY][256];
    static char names[MANY][32];
    int64_t n_test[2];

    (void)state;
    for (int turn = 0; turn < 2; turn++) {
        struct error err = {0};
        json_t *s;

        for (uint32_t i = 0; i < MANY; i++) {
            uint32_t k = turn ? MANY - 1 - i : i;

            memcpy(data[i], png.data, png.size);
            memcpy(data[i] + png.size, &k, sizeof(k));
            snprintf(names[i], sizeof(names[i]), "%c/%u.png", 'a' + (int)(k % 3), i);
            members[i] = (struct member){.name = names[i], .data = data[i], .size = png.size + sizeof(k)};
        }
        s = import_members(MADE_TAR, members, MANY, &roomy, &err);
        assert_true(json_is_true(json_object_get(s, "divided")));
        n_test[turn] = split_count(s, "test");
        assert_int_equal(n_test[turn] + split_count(s, "train"), MANY);
        json_decref(s);
    }
    assert_int_equal(n_test[0], n_test[1]);
    assert_in_range(n_test[0], MANY / 5 - 40, MANY / 5 + 40);
}

static void test_only_the_wanted_split_folder_is_taken(void **state) {
    const struct member members[] = {
        picture("train/a/1.png"), picture("train/b/2.png"), picture("val/b/1.png")};
    struct dataset_options o = roomy;
    struct error err = {0};
    json_t *s;

    (void)state;
    o.split = "val";
    s = import_members(MADE_ZIP, members, N(members), &o, &err);
    assert_non_null(s);
    assert_int_equal(json_integer_value(json_object_get(s, "count")), 1);
    assert_int_equal(split_count(s, "val"), 1);
    json_decref(s);
    o.split = "test";
    assert_null(import_members(MADE_ZIP, members, N(members), &o, &err));
    assert_string_equal(err.code, "bad_dataset");
    assert_non_null(strstr(err.text, "test"));
}

static void test_a_flat_archive_has_no_labels(void **state) {
    const struct member members[] = {picture("1.png"), picture("2.png")};
    struct error err = {0};
    json_t *s = import_members(MADE_TAR, members, 2, &roomy, &err);

    (void)state;
    assert_non_null(s);
    assert_int_equal(json_array_size(json_object_get(s, "classes")), 0);
    assert_int_equal(json_integer_value(json_object_get(s, "count")), 2);
    json_decref(s);
}

static void test_class_names_may_be_of_any_script(void **state) {
    static const char *const classes[] = {"größe", "猫"};
    const struct member members[] = {picture("猫/1.png"), picture("größe/2.png")};
    static const enum made_format formats[] = {MADE_TAR, MADE_ZIP};

    (void)state;
    for (size_t i = 0; i < 2; i++) {
        struct error err = {0};
        json_t *s = import_members(formats[i], members, 2, &roomy, &err);

        if (!s)
            fail_msg("%s", err.text);
        assert_classes(s, classes, 2);
        json_decref(s);
    }
}

static void test_another_split_joins_by_class_names(void **state) {
    static const char *const classes[] = {"a", "b", "c"};
    const struct member first[] = {picture("b/1.png"), picture("c/2.png"), picture("c/3.png")};
    const struct member second[] = {picture("a/1.png"), picture("c/2.png")};
    _cleanup_(pack_freep) struct pack *old = NULL, *now = NULL;
    struct dataset_options o = roomy;
    struct error err = {0};
    struct pack_item item;
    int fd, fd2;

    (void)state;
    o.split = "train";
    json_decref(import(archive_make(MADE_TAR, first, 3), &o, &fd, &err));
    assert_int_equal(pack_open(fd, &old, &err), 0);
    o.split = "test";
    o.old = old;
    json_decref(import(archive_make(MADE_TAR, second, 2), &o, &fd2, &err));
    assert_int_equal(pack_open(fd2, &now, &err), 0);
    assert_int_equal(pack_n_classes(now), 3);
    for (uint32_t i = 0; i < 3; i++)
        assert_string_equal(pack_class(now, i), classes[i]);
    assert_int_equal(pack_count(now, (uint32_t)pack_find_split(now, "train")), 3);
    pack_item(now, (uint32_t)pack_find_split(now, "train"), 0, &item);
    assert_int_equal(item.label, 1);
    assert_memory_equal(item.data, png.data, png.size);
    pack_item(now, (uint32_t)pack_find_split(now, "test"), 0, &item);
    assert_int_equal(item.label, 0);
    close(fd);
    close(fd2);
}

static const struct refusal {
    struct member member;
    const char *words;
} refusals[] = {
    {{.name = "a/../../b.png", .data = "x", .size = 1}, "'..'"},
    {{.name = "..", .data = "x", .size = 1}, "'..'"},
    {{.name = "/etc/b.png", .data = "x", .size = 1}, "absolute"},
    {{.name = "a/link.png", .type = AE_IFLNK, .link = "/etc/passwd"}, "link"},
    {{.name = "a/hard.png", .type = AE_IFREG, .link = "a/ok.png", .is_hard = true}, "link"},
    {{.name = "a/pipe", .type = AE_IFIFO}, "regular"},
    {{.name = "a/device", .type = AE_IFCHR}, "regular"},
    {{.name = "a/text.png", .data = "no picture", .size = 10}, "a/text.png"},
    {{.name = "a/empty.png", .data = "", .size = 0}, "a/empty.png"},
    {{.name = "a/cut.png", .data = "\x89PNG\r\n\x1a\n\0\0\0", .size = 11}, "a/cut.png"},
    {{.name = "nowhere.png", .data = png.data, .size = 69}, "nowhere.png"},
    {{.name = "train/a/1.png", .data = png.data, .size = 69}, "train/a/1.png"},
    {{.name = "a/b.npy", .data = "\x93NUMPY\x01\0\x02\0{}", .size = 12}, "a/b.npy"},
};

static void test_bad_members_are_named(void **state) {
    (void)state;
    for (size_t i = 0; i < N(refusals); i++) {
        const struct member members[] = {picture("a/ok.png"), refusals[i].member};
        struct error err = {0};

        if (import_members(MADE_TAR, members, 2, &roomy, &err))
            fail_msg("%s was accepted", refusals[i].member.name);
        assert_string_equal(err.code, "bad_dataset");
        if (!strstr(err.text, refusals[i].words))
            fail_msg("%s: %s", refusals[i].member.name, err.text);
    }
}

static void test_limits_hold(void **state) {
    static uint8_t zeros[4 << 20];
    const struct member pictures[] = {picture("a/1.png"), picture("a/2.png"), picture("b/3.png")};
    const struct member bomb[] = {
        picture("a/1.png"), {.name = "a/.zeros", .data = zeros, .size = sizeof(zeros)}};
    struct dataset_options few = roomy, small = roomy, dark = roomy;
    struct error err = {0};

    (void)state;
    few.max_members = 2;
    assert_null(import_members(MADE_TAR, pictures, 3, &few, &err));
    assert_string_equal(err.code, "too_large");
    small.max_bytes = 1 << 20;
    for (int f = MADE_TAR; f <= MADE_ZIP; f++) {
        error_clear(&err);
        assert_null(import_members((enum made_format)f, bomb, 2, &small, &err));
        assert_string_equal(err.code, "too_large");
    }
    dark.max_pixels = 0; /* the default of the decoder */
    error_clear(&err);
    json_decref(import_members(MADE_TAR, pictures, 3, &dark, &err));
}

static void test_archives_cut_anywhere_are_refused_or_shorter(void **state) {
    const struct member members[] = {picture("a/1.png"), picture("b/2.png"), picture("b/3.png")};
    static char bytes[1 << 16];

    (void)state;
    for (int f = MADE_TAR; f <= MADE_ZIP; f++) {
        int whole = archive_make((enum made_format)f, members, N(members));
        ssize_t size = read(whole, bytes, sizeof(bytes));

        close(whole);
        for (ssize_t cut = 0; cut < size; cut += 7) {
            struct error err = {0};
            int fd = memory_file();

            assert_int_equal(write(fd, bytes, (size_t)cut), cut);
            lseek(fd, 0, SEEK_SET);
            json_decref(import(fd, &roomy, NULL, &err));
            assert_true(!err.err || err.text[0]);
        }
    }
}

static void test_damaged_packs_are_refused_or_read(void **state) {
    const struct member members[] = {picture("a/1.png"), picture("b/2.png")};
    struct error err = {0};
    static uint8_t bytes[1 << 16];
    ssize_t size;
    int fd;

    (void)state;
    json_decref(import(archive_make(MADE_TAR, members, 2), &roomy, &fd, &err));
    size = pread(fd, bytes, sizeof(bytes), 0);
    close(fd);
    for (ssize_t i = 0; i < size * 3; i++) {
        _cleanup_(pack_freep) struct pack *p = NULL;
        _cleanup_(closep) int damaged = memory_file();
        uint8_t value = i % 3 == 0 ? 0xff : i % 3 == 1 ? 0 : (uint8_t)(bytes[i / 3] + 1);

        assert_int_equal(write(damaged, bytes, (size_t)size), size);
        assert_int_equal(pwrite(damaged, &value, 1, i / 3), 1);
        if (pack_open(damaged, &p, NULL) < 0)
            continue;
        for (uint32_t s = 0; s < pack_n_splits(p); s++)
            for (uint64_t k = 0; k < pack_count(p, s); k++) {
                struct pack_item item;
                volatile uint8_t sum = 0;

                pack_item(p, s, k, &item);
                for (uint64_t b = 0; b < item.size; b++)
                    sum = (uint8_t)(sum + item.data[b]);
            }
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_class_folders_of_every_container),
        cmocka_unit_test(test_one_common_folder_is_passed_over),
        cmocka_unit_test(test_items_are_divided_by_content),
        cmocka_unit_test(test_only_the_wanted_split_folder_is_taken),
        cmocka_unit_test(test_a_flat_archive_has_no_labels),
        cmocka_unit_test(test_class_names_may_be_of_any_script),
        cmocka_unit_test(test_another_split_joins_by_class_names),
        cmocka_unit_test(test_bad_members_are_named),
        cmocka_unit_test(test_limits_hold),
        cmocka_unit_test(test_archives_cut_anywhere_are_refused_or_shorter),
        cmocka_unit_test(test_damaged_packs_are_refused_or_read),
    };

    return cmocka_run_group_tests(tests, load_png, NULL);
}
