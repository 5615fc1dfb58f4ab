#include "tests/unit/cmocka_all.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "config/config.h"

static char *const no_env[] = {(char[]){"STATE_DIRECTORY=/s"}, NULL};

static int count(char *const *argv) {
    int n = 0;

    while (argv[n])
        n++;
    return n;
}

static int load(
    char *const *argv, char *const *env, struct config *c, enum config_action *a, struct error *err) {
    return config_load(count(argv), argv, env, c, a, err);
}

static char *write_file(const char *text) {
    char *path = strdup("/tmp/bonsaid-config-XXXXXX");
    int fd = mkstemp(path);

    assert_true(fd >= 0);
    assert_int_equal(write(fd, text, strlen(text)), (ssize_t)strlen(text));
    close(fd);
    return path;
}

static char *read_shipped(void) {
    struct buf b;
    char chunk[4096];
    ssize_t n;
    int fd = open(TEST_DATA "/../../config/bonsaid.conf", O_RDONLY | O_CLOEXEC);

    assert_true(fd >= 0);
    buf_init(&b, 1 << 20);
    while ((n = read(fd, chunk, sizeof(chunk))) > 0)
        assert_int_equal(buf_append(&b, chunk, (size_t)n), 0);
    close(fd);
    return buf_take(&b);
}

static void test_without_anything_the_defaults_hold(void **state) {
    char *argv[] = {(char[]){"bonsaid"}, NULL};
    enum config_action a;
    struct config c;

    (void)state;
    assert_int_equal(load(argv, no_env, &c, &a, NULL), 0);
    assert_int_equal(a, CONFIG_RUN);
    assert_string_equal(c.state, "/s");
    assert_true(c.threads >= 1);
    assert_null(c.listen);
    assert_true(c.max_model_bytes == (int64_t)4 << 30);
    assert_int_equal(c.log, CONFIG_LOG_INFO);
    config_done(&c);
}

static void test_flags_override_variables_which_override_the_file(void **state) {
    _cleanup_(freep) char *path =
        write_file("# a comment\nqueue = 7 # another\nmax_batch = 7\ntimeout_ms=7\n\n");
    char *argv[] = {(char[]){"bonsaid"}, (char[]){"--config"}, path, (char[]){"--timeout-ms=9"},
        (char[]){"--listen"}, (char[]){"127.0.0.1:0"}, (char[]){"--listen"}, (char[]){"unix:/x"},
        (char[]){"--insecure"}, NULL};
    char *env[] = {(char[]){"HOME=/h"}, (char[]){"BONSAID_MAX_BATCH=8"}, (char[]){"BONSAID_TIMEOUT_MS=8"},
        (char[]){"BONSAID_PORT=tcp://set-by-others"}, NULL};
    enum config_action a;
    struct config c;

    (void)state;
    assert_int_equal(load(argv, env, &c, &a, NULL), 0);
    assert_int_equal(c.queue, 7);
    assert_int_equal(c.max_batch, 8);
    assert_int_equal(c.timeout_ms, 9);
    assert_string_equal(c.listen[0], "127.0.0.1:0");
    assert_non_null(c.listen[1]);
    assert_string_equal(c.state, "/h/.local/state/bonsaid");
    assert_true(c.insecure && !c.serve_only);
    config_done(&c);
    unlink(path);
}

static void test_bad_options_are_refused_with_their_place(void **state) {
    static const struct {
        const char *arg, *variable, *file, *complaint;
    } cases[] = {
        {"--frobnicate", NULL, NULL, "'--frobnicate' is not an option"},
        {"queue", NULL, NULL, "'queue' is not an option"},
        {"--queue", NULL, NULL, "--queue needs a value"},
        {"--queue=0", NULL, NULL, "command line: queue: 0 is not from 1 to 1000000"},
        {"--memory=lots", NULL, NULL, "command line: memory: 'lots' is not a number"},
        {NULL, "BONSAID_LOG=loud", NULL, "environment variable BONSAID_LOG: log: 'loud' is not one of debug"},
        {NULL, NULL, "\nqueue = many\n", ":2: queue: 'many' is not a number"},
        {NULL, NULL, "queue = 1\nqueue = 2\n", ":2: queue is set a second time"},
        {NULL, NULL, "quue = 1\n", ":1: there is no option 'quue'"},
        {NULL, NULL, "queue\n", ":1: 'queue' is not of the form name = value"},
        {"--tls-cert=x", NULL, NULL, "tls_cert is set but tls_key is not"},
        {"--client-ca=x", NULL, NULL, "client_ca needs tls_cert"},
        {"--cors-origins=app", NULL, NULL, "cors_origins: 'app' does not start"},
        {"--config=/nowhere/at/all", NULL, NULL, "/nowhere/at/all: No such file"},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        _cleanup_(freep) char *path = cases[i].file ? write_file(cases[i].file) : NULL;
        _cleanup_(freep) char *arg = strdup(cases[i].arg ? cases[i].arg : "--insecure");
        _cleanup_(freep) char *variable = strdup(cases[i].variable ? cases[i].variable : "X=Y");
        char *argv[] = {(char[]){"bonsaid"}, arg, path ? (char[]){"--config"} : NULL, path, NULL};
        char *env[] = {(char[]){"STATE_DIRECTORY=/s"}, variable, NULL};
        enum config_action a;
        struct error err = {0};
        struct config c;

        assert_int_equal(load(argv, env, &c, &a, &err) < 0, 1);
        if (!strstr(err.text, cases[i].complaint))
            fail_msg("'%s' does not contain '%s'", err.text, cases[i].complaint);
        if (path)
            unlink(path);
    }
}

static void test_actions_are_told_apart(void **state) {
    static const struct {
        const char *flag;
        enum config_action action;
    } cases[] = {{"--check-config", CONFIG_CHECK}, {"--help", CONFIG_HELP}, {"--version", CONFIG_VERSION}};

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        _cleanup_(freep) char *flag = strdup(cases[i].flag);
        char *argv[] = {(char[]){"bonsaid"}, flag, NULL};
        enum config_action a;
        struct config c;

        assert_int_equal(load(argv, no_env, &c, &a, NULL), 0);
        assert_int_equal(a, cases[i].action);
        config_done(&c);
    }
}

static void test_printed_options_are_read_back(void **state) {
    char *argv[] = {(char[]){"bonsaid"}, (char[]){"--queue=3"}, (char[]){"--server-names=a,b"}, NULL};
    struct config c, again = {0};
    enum config_action a;
    struct buf first, second;

    (void)state;
    buf_init(&first, 1 << 20);
    buf_init(&second, 1 << 20);
    assert_int_equal(load(argv, no_env, &c, &a, NULL), 0);
    assert_int_equal(config_print(&c, &first), 0);
    assert_int_equal(config_read(first.data, "printed", &again, NULL), 0);
    assert_int_equal(config_print(&again, &second), 0);
    assert_string_equal(first.data, second.data);
    buf_done(&first);
    buf_done(&second);
    config_done(&c);
    config_done(&again);
}

/* A comment block of the shipped file as one line: '#' and line ends become single blanks. */
static void flatten(const char *from, const char *to, char *ret, size_t size) {
    size_t n = 0;

    for (; from < to && n + 1 < size; from++) {
        char c = *from == '\n' || *from == '#' ? ' ' : *from;

        if (c != ' ' || (n && ret[n - 1] != ' '))
            ret[n++] = c;
    }
    while (n && ret[n - 1] == ' ')
        n--;
    ret[n] = 0;
}

static void test_the_shipped_file_shows_every_option_with_text_and_default(void **state) {
    _cleanup_(freep) char *text = read_shipped();
    const char *at = text;
    struct config c = {0};

    (void)state;
    assert_int_equal(param_defaults(&config_table, &c, NULL), 0);
    for (size_t i = 0; i < config_table.n; i++) {
        const struct param *p = &config_table.param[i];
        const char *line, *block;
        char flat[1024];
        struct buf want;

        buf_init(&want, 4096);
        assert_int_equal(buf_printf(&want, "\n#%s = ", p->name), 0);
        assert_int_equal(param_print(p, &c, &want), 0);
        assert_int_equal(buf_puts(&want, "\n"), 0);
        line = strstr(at, want.data);
        if (!line)
            fail_msg("bonsaid.conf lacks, in the table's order, the line '%s'", want.data + 1);
        buf_done(&want);
        for (block = line; block > text && strncmp(block, "\n\n", 2);)
            block--;
        flatten(block, line, flat, sizeof(flat));
        if (strcmp(flat, p->doc))
            fail_msg("bonsaid.conf says of %s '%s', the table '%s'", p->name, flat, p->doc);
        at = line + 1;
    }
    assert_int_equal(config_read(text, "bonsaid.conf", &c, NULL), 0);
    config_done(&c);
}

static void test_the_shipped_file_is_valid_with_its_examples_switched_on(void **state) {
    _cleanup_(freep) char *text = read_shipped();
    struct config c = {0};
    struct error err = {0};

    (void)state;
    for (char *p = text; *p; p++)
        if (*p == '#' && (p == text || p[-1] == '\n') && islower((unsigned char)p[1]))
            *p = ' ';
    if (config_read(text, "bonsaid.conf", &c, &err) < 0)
        fail_msg("%s", err.text);
    config_done(&c);
}

static void test_help_names_every_option(void **state) {
    struct buf b;

    (void)state;
    buf_init(&b, 1 << 20);
    assert_int_equal(config_help(&b), 0);
    assert_non_null(strstr(b.data, "--max-json-depth N  (64)"));
    assert_non_null(strstr(b.data, "--log debug|info|warning|error  (info)"));
    buf_done(&b);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_without_anything_the_defaults_hold),
        cmocka_unit_test(test_flags_override_variables_which_override_the_file),
        cmocka_unit_test(test_bad_options_are_refused_with_their_place),
        cmocka_unit_test(test_actions_are_told_apart),
        cmocka_unit_test(test_printed_options_are_read_back),
        cmocka_unit_test(test_the_shipped_file_shows_every_option_with_text_and_default),
        cmocka_unit_test(test_the_shipped_file_is_valid_with_its_examples_switched_on),
        cmocka_unit_test(test_help_names_every_option),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
