/* The store: documents and files that are there after a restart, also one by kill -9. */
#include "tests/unit/cmocka_all.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>

#include "tests/unit/state_dir.h"

static void test_names_follow_the_one_rule(void **state) {
    static const struct {
        const char *name;
        bool is_valid;
    } cases[] = {{"a", true}, {"A.b-c_9", true}, {"0", true}, {"", false}, {".a", false}, {"-a", false},
        {"a/b", false}, {"a~b", false}, {"ä", false}, {"a b", false},
        {"0123456789012345678901234567890123456789012345678901234567890123", true},
        {"01234567890123456789012345678901234567890123456789012345678901234", false}};

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
        assert_int_equal(name_is_valid(cases[i].name), cases[i].is_valid);
    assert_int_equal(name_check_model("stats", NULL), -EINVAL);
    assert_int_equal(name_check_variant("original", NULL), -EINVAL);
    assert_int_equal(name_check_variant("parent", NULL), -EINVAL);
    assert_int_equal(name_check_variant("17", NULL), -EINVAL);
    assert_int_equal(name_check_variant("17a", NULL), 0);
}

static void test_a_folder_has_one_daemon(void **state) {
    char dir[64];
    struct store *s, *other = NULL;
    struct error err = {0};

    (void)state;
    temp_dir_make(dir);
    s = state_dir_open(dir);
    assert_int_equal(store_open(dir, 1.0, &other, &err), -EBUSY);
    store_free(s);
    store_free(state_dir_open(dir));
    temp_dir_remove(dir);
}

static void test_documents_survive_and_changes_go_together(void **state) {
    char dir[64];
    struct store *s;
    json_t *a = json_pack("{s:i}", "n", 1), *doc, *list;

    (void)state;
    temp_dir_make(dir);
    s = state_dir_open(dir);
    assert_int_equal(
        store_apply(s,
            (struct store_change[]){{STORE_JOB, "1", a}, {STORE_JOB, "2", a}, {STORE_MODEL, "1", a}}, 3,
            NULL),
        0);
    assert_int_equal(
        store_apply(s, (struct store_change[]){{STORE_JOB, "1", NULL}, {STORE_JOB, "10", a}}, 2, NULL), 0);
    json_decref(a);
    for (int pass = 0; pass < 2; pass++) {
        list = store_list(s, STORE_JOB, NULL);
        assert_int_equal(json_array_size(list), 2);
        json_decref(list);
        assert_null(store_get(s, STORE_JOB, "1"));
        doc = store_get(s, STORE_MODEL, "1");
        assert_int_equal(json_integer_value(json_object_get(doc, "n")), 1);
        json_decref(doc);
        store_free(s);
        s = state_dir_open(dir);
    }
    store_free(s);
    temp_dir_remove(dir);
}

static void test_event_ids_rise_across_restarts(void **state) {
    char dir[64];
    struct store *s;
    json_t *data = json_pack("{s:i}", "x", 1), *list;

    (void)state;
    temp_dir_make(dir);
    s = state_dir_open(dir);
    assert_int_equal(store_event_add(s, "a", "log", data), 1);
    assert_int_equal(store_event_add(s, "a", "log", data), 2);
    assert_int_equal(store_event_add(s, "b", "log", data), 1);
    store_free(s);
    s = state_dir_open(dir);
    assert_int_equal(store_event_add(s, "a", "done", data), 3);
    list = store_events(s, "a", 1, 10);
    assert_int_equal(json_array_size(list), 2);
    assert_int_equal(json_integer_value(json_object_get(json_array_get(list, 0), "id")), 2);
    assert_string_equal(json_string_value(json_object_get(json_array_get(list, 1), "type")), "done");
    json_decref(list);
    store_events_drop(s, "a");
    list = store_events(s, "a", 0, 10);
    assert_int_equal(json_array_size(list), 0);
    json_decref(list);
    json_decref(data);
    store_free(s);
    temp_dir_remove(dir);
}

static void test_idempotency_keys_are_forgotten_after_a_day(void **state) {
    json_int_t now = (json_int_t)time(NULL);
    json_t *old = json_pack("{s:I}", "at", now - 25 * 3600),
           *young = json_pack("{s:I}", "at", now - 23 * 3600), *doc;
    char dir[64];
    struct store *s;

    (void)state;
    temp_dir_make(dir);
    s = state_dir_open(dir);
    assert_int_equal(
        store_apply(s,
            (struct store_change[]){{STORE_IDEMPOTENCY, "old", old}, {STORE_IDEMPOTENCY, "young", young}}, 2,
            NULL),
        0);
    json_decref(old);
    json_decref(young);
    store_free(s);
    s = state_dir_open(dir);
    assert_null(store_get(s, STORE_IDEMPOTENCY, "old"));
    doc = store_get(s, STORE_IDEMPOTENCY, "young");
    assert_non_null(doc);
    json_decref(doc);
    store_free(s);
    temp_dir_remove(dir);
}

static bool has_blob(struct store *s, const char *digest) {
    int fd = store_blob_open(s, digest, NULL);

    if (fd >= 0)
        close(fd);
    return fd >= 0;
}

static void test_files_without_a_document_are_swept(void **state) {
    char dir[64], orphan[DIGEST_MAX], named[DIGEST_MAX];
    struct store *s;
    bool is_new;

    (void)state;
    temp_dir_make(dir);
    s = state_dir_open(dir);
    assert_int_equal(state_dir_keep(s, "orphan", 6, orphan, NULL), 0);
    assert_int_equal(state_dir_keep(s, "named", 5, named, NULL), 0);
    assert_int_equal(state_dir_model(s, "m", "named", 5, &is_new, NULL), 0);
    store_free(s);
    s = state_dir_open(dir);
    assert_false(has_blob(s, orphan));
    assert_true(has_blob(s, named));
    store_blob_release(s, named); /* still named */
    assert_true(has_blob(s, named));
    assert_int_equal(models_delete(s, "m", false, NULL, NULL), 0);
    assert_false(has_blob(s, named));
    store_free(s);
    temp_dir_remove(dir);
}

static void test_content_shared_by_two_models_stays_with_the_second(void **state) {
    char dir[64], digest[DIGEST_MAX];
    struct store *s;
    bool is_new;

    (void)state;
    temp_dir_make(dir);
    s = state_dir_open(dir);
    assert_int_equal(state_dir_model(s, "a", "x", 1, &is_new, NULL), 0);
    assert_true(is_new);
    assert_int_equal(state_dir_model(s, "b", "x", 1, &is_new, NULL), 0);
    assert_int_equal(state_dir_model(s, "b", "x", 1, &is_new, NULL), 0);
    assert_false(is_new);
    assert_int_equal(state_dir_model(s, "b", "y", 1, &is_new, NULL), -EEXIST);
    assert_int_equal(models_delete(s, "a", false, NULL, NULL), 0);
    assert_int_equal(state_dir_keep(s, "x", 1, digest, NULL), 0);
    store_blob_release(s, digest);
    assert_true(has_blob(s, digest));
    store_free(s);
    temp_dir_remove(dir);
}

/* Adds a variant with the next number; returns it. */
static int add_variant(struct store *s, const char *model, const char *name) {
    json_t *m = NULL, *v;
    char key[NAME_MAX_SIZE + 16], digest[DIGEST_MAX];
    int number = 0;

    assert_int_equal(state_dir_keep(s, name, strlen(name), digest, NULL), 0);
    assert_int_equal(models_take_number(s, model, &number, &m, NULL), 0);
    v = json_pack("{s:s, s:s, s:i, s:s, s:[s]}", "model", model, "name", name, "number", number, "digest",
        digest, "aliases", "best");
    variant_key(model, number, key, sizeof(key));
    assert_int_equal(
        store_apply(s, (struct store_change[]){{STORE_MODEL, model, m}, {STORE_VARIANT, key, v}}, 2, NULL),
        0);
    json_decref(m);
    json_decref(v);
    return number;
}

static int number_of(struct store *s, const char *name, const char *version) {
    json_t *v = NULL;
    int n = models_resolve(s, name, version, &v, NULL);

    if (n == 0)
        n = (int)json_integer_value(json_object_get(v, "number"));
    json_decref(v);
    return n;
}

static void test_numbers_are_never_used_twice(void **state) {
    char dir[64];
    struct store *s;
    bool is_new;

    (void)state;
    temp_dir_make(dir);
    s = state_dir_open(dir);
    assert_int_equal(state_dir_model(s, "m", "x", 1, &is_new, NULL), 0);
    assert_int_equal(add_variant(s, "m", "small"), 2);
    assert_int_equal(store_apply(s, &(struct store_change){STORE_VARIANT, "m/2", NULL}, 1, NULL), 0);
    store_free(s);
    s = state_dir_open(dir);
    assert_int_equal(add_variant(s, "m", "smaller"), 3);
    assert_int_equal(number_of(s, "m", NULL), 1);
    assert_int_equal(number_of(s, "m~smaller", NULL), 3);
    assert_int_equal(number_of(s, "m~best", "3"), 3);
    assert_int_equal(number_of(s, "m", "3"), 3);
    assert_int_equal(number_of(s, "m~smaller", "1"), -ENOENT);
    assert_int_equal(number_of(s, "m", "2"), -ENOENT);
    assert_int_equal(number_of(s, "n", NULL), -ENOENT);
    store_free(s);
    temp_dir_remove(dir);
}

static void test_a_model_with_variants_goes_only_by_cascade(void **state) {
    char dir[64];
    struct store *s;
    json_t *users = NULL, *list;
    bool is_new;

    (void)state;
    temp_dir_make(dir);
    s = state_dir_open(dir);
    assert_int_equal(state_dir_model(s, "m", "x", 1, &is_new, NULL), 0);
    add_variant(s, "m", "small");
    assert_int_equal(models_delete(s, "m", false, &users, NULL), -EBUSY);
    assert_int_equal(json_array_size(users), 1);
    assert_string_equal(json_string_value(json_object_get(json_array_get(users, 0), "id")), "small");
    json_decref(users);
    assert_int_equal(models_delete(s, "m", true, NULL, NULL), 0);
    list = store_list(s, STORE_VARIANT, NULL);
    assert_int_equal(json_array_size(list), 0);
    json_decref(list);
    store_free(s);
    temp_dir_remove(dir);
}

/* --- kill -9 --- */

#define KILLS 40

/* What the child says when an operation was acknowledged, and before one that takes something away. */
struct said {
    char what; /* '+' made, '-' about to delete, '=' deleted */
    int model;
};

static size_t content_of(int model, char ret[static 64]) {
    return (size_t)snprintf(ret, 64, "content %d", model / 2); /* pairs share a file */
}

static void child(const char *dir, int first, int pipe_fd) {
    struct store *s = NULL;
    unsigned seed = (unsigned)first;

    if (store_open(dir, 1.0, &s, NULL) < 0)
        _exit(2);
    for (int i = first; i < first + 10000; i++) {
        int victim = (int)((unsigned)rand_r(&seed) % (unsigned)(i + 1));
        struct said made = {'+', i}, will = {'-', victim}, did = {'=', victim};
        char name[32], content[64];
        bool is_new;

        snprintf(name, sizeof(name), "m%d", i);
        if (state_dir_model(s, name, content, content_of(i, content), &is_new, NULL) < 0 ||
            write(pipe_fd, &made, sizeof(made)) != sizeof(made))
            _exit(3);
        if (i % 3)
            continue;
        snprintf(name, sizeof(name), "m%d", victim);
        if (write(pipe_fd, &will, sizeof(will)) != sizeof(will))
            _exit(3);
        if (models_delete(s, name, true, NULL, NULL) == 0 && write(pipe_fd, &did, sizeof(did)) != sizeof(did))
            _exit(3);
    }
    _exit(0);
}

/* Every model there has its documents and its file with the right bytes; returns whether it is there. */
static bool check_model(struct store *s, int i) {
    char name[32], content[64], read_back[64] = "";
    size_t size = content_of(i, content);
    json_t *m, *v = NULL;
    int fd;

    snprintf(name, sizeof(name), "m%d", i);
    m = store_get(s, STORE_MODEL, name);
    if (!m) {
        assert_int_equal(models_resolve(s, name, NULL, &v, NULL), -ENOENT);
        return false;
    }
    assert_int_equal(models_resolve(s, name, NULL, &v, NULL), 0);
    assert_true(json_equal(json_object_get(m, "digest"), json_object_get(v, "digest")));
    fd = store_blob_open(s, json_string_value(json_object_get(m, "digest")), NULL);
    assert_true(fd >= 0);
    assert_int_equal(read(fd, read_back, sizeof(read_back)), size);
    assert_memory_equal(read_back, content, size);
    close(fd);
    json_decref(m);
    json_decref(v);
    return true;
}

static void test_a_kill_at_any_moment_loses_nothing_acknowledged(void **state) {
    enum { UNKNOWN, THERE, IN_DOUBT, GONE };
    static char fate[200000];
    char dir[64];
    unsigned seed = 7;
    int next = 0;

    (void)state;
    temp_dir_make(dir);
    for (int k = 0; k < KILLS; k++) {
        int fds[2], target = 1 + rand_r(&seed) % 30, n = 0;
        struct said x;
        struct store *s;
        pid_t pid;

        assert_int_equal(pipe(fds), 0);
        pid = fork();
        if (pid == 0) {
            close(fds[0]);
            child(dir, next, fds[1]);
        }
        close(fds[1]);
        while (read(fds[0], &x, sizeof(x)) == sizeof(x)) {
            fate[x.model] = x.what == '+' ? THERE : x.what == '=' ? GONE : IN_DOUBT;
            next = x.what == '+' ? x.model + 1 : next;
            if (++n == target)
                kill(pid, SIGKILL);
        }
        close(fds[0]);
        waitpid(pid, NULL, 0);
        assert_true(n >= target);
        s = state_dir_open(dir);
        for (int i = 0; i < next + 1; i++) {
            bool is_there = check_model(s, i);

            if (fate[i] == THERE)
                assert_true(is_there);
            if (fate[i] == GONE)
                assert_false(is_there);
            fate[i] = is_there ? THERE : fate[i] == UNKNOWN ? UNKNOWN : GONE;
        }
        next++; /* one may have been made and not said */
        store_free(s);
    }
    temp_dir_remove(dir);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_names_follow_the_one_rule),
        cmocka_unit_test(test_a_folder_has_one_daemon),
        cmocka_unit_test(test_documents_survive_and_changes_go_together),
        cmocka_unit_test(test_event_ids_rise_across_restarts),
        cmocka_unit_test(test_idempotency_keys_are_forgotten_after_a_day),
        cmocka_unit_test(test_files_without_a_document_are_swept),
        cmocka_unit_test(test_content_shared_by_two_models_stays_with_the_second),
        cmocka_unit_test(test_numbers_are_never_used_twice),
        cmocka_unit_test(test_a_model_with_variants_goes_only_by_cascade),
        cmocka_unit_test(test_a_kill_at_any_moment_loses_nothing_acknowledged),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
