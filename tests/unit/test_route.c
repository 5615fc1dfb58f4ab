#include "tests/unit/cmocka_all.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "api/api.h"
#include "api/reply.h"
#include "api/route.h"

static int parse(struct request *r, const char *target, struct error *err) {
    request_init(r);
    return request_parse_target(r, target, err);
}

static void test_segments_are_decoded_once(void **state) {
    struct error err = {0};
    struct request r;

    (void)state;
    assert_int_equal(parse(&r, "/v2/models/a%2541%7Eb?x=1%202&flag&y=a+b#frag", &err), 0);
    assert_int_equal(r.n_segments, 3);
    assert_string_equal(r.segment[2], "a%41~b");
    assert_string_equal(request_query(&r, "x"), "1 2");
    assert_string_equal(request_query(&r, "y"), "a b");
    assert_string_equal(request_query(&r, "flag"), "");
    assert_string_equal(r.path, "/v2/models/a%2541%7Eb");
    request_done(&r);
}

static void test_hostile_targets_are_refused(void **state) {
    static const char *const targets[] = {"/a%00b", "/a%2fb", "/a%2Fb", "/a/../b", "/a/%2e%2e/b", "/./a",
        "/a%0ab", "/a%7f", "/a%", "/a%4", "/a%zz", "*", "", "a", "/a?x=%00", "/a?x=%1f", "/%ff", "/%c0%af",
        "/%ed%a0%80", "/1/2/3/4/5/6/7/8/9/10/11/12/13/14/15/16/17",
        "/?1&2&3&4&5&6&7&8&9&10&11&12&13&14&15&16&17"};

    (void)state;
    for (size_t i = 0; i < sizeof(targets) / sizeof(targets[0]); i++) {
        struct error err = {0};
        struct request r;

        assert_int_equal(parse(&r, targets[i], &err), -EINVAL);
        assert_int_equal(err.err, -EINVAL);
        request_done(&r);
    }
}

static void test_names_follow_the_pattern(void **state) {
    static const struct {
        const char *name;
        bool ok;
    } cases[] = {{"a", true}, {"A-b_c.9", true}, {"", false}, {".a", false}, {"-a", false}, {"a/b", false},
        {"\xc3\xa4", false}, {"a\xc3\xa4", false}, {"a b", false}, {"a~b", false},
        {"0123456789012345678901234567890123456789012345678901234567890123", true},
        {"01234567890123456789012345678901234567890123456789012345678901234", false}};

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
        assert_int_equal(request_is_name(cases[i].name), cases[i].ok);
    assert_false(request_is_name(NULL));
}

static void test_known_path_with_another_verb_is_405_with_allow(void **state) {
    struct error err = {0};
    struct request r;
    struct reply p;

    (void)state;
    reply_init(&p);
    assert_int_equal(parse(&r, "/v2/health/live", &err), 0);
    r.method = HTTP_DELETE;
    assert_int_equal(route_resolve(&r, &p, &err), -EINVAL);
    reply_from_error(&p, &err, "id-1");
    assert_int_equal(p.status, 405);
    assert_string_equal(p.header[0].name, "Allow");
    assert_string_equal(p.header[0].value, "GET, HEAD");
    assert_string_equal(p.bytes,
        "{\"error\":\"this path knows only GET, HEAD\",\"code\":\"method_not_allowed\",\"request_id\":\"id-1\"}");
    reply_done(&p);
    request_done(&r);
}

static void test_head_runs_the_get_handler(void **state) {
    struct error err = {0};
    struct api api = {0};
    struct request r;
    struct reply p;

    (void)state;
    reply_init(&p);
    assert_int_equal(parse(&r, "/v2/health/ready", &err), 0);
    r.api = &api;
    r.is_head = true;
    assert_int_equal(route_resolve(&r, &p, &err), 0);
    assert_int_equal(route_run(&r, &p, false), 0);
    assert_int_equal(p.status, 503);
    assert_string_equal(p.bytes, "{\"ready\":false,\"live\":true}");
    reply_done(&p);
    request_done(&r);
}

static void test_unknown_path_is_404(void **state) {
    static const char *const targets[] = {"/nothing", "/v2/", "/v2//models", "/V2"};

    (void)state;
    for (size_t i = 0; i < sizeof(targets) / sizeof(targets[0]); i++) {
        struct error err = {0};
        struct request r;
        struct reply p;

        reply_init(&p);
        assert_int_equal(parse(&r, targets[i], &err), 0);
        assert_int_equal(route_resolve(&r, &p, &err), -ENOENT);
        reply_done(&p);
        request_done(&r);
    }
}

static void test_query_values_are_checked_against_the_row(void **state) {
    static const struct route row = {.path = "/api/x",
        .query = {{"n", QUERY_UINT, 1, 1000, NULL, ""}, {"b", QUERY_BOOL, 0, 0, NULL, ""},
            {"e", QUERY_ENUM, 0, 0, "one|two", ""}, {"v", QUERY_NAME, 0, 0, NULL, ""},
            {"d", QUERY_REAL, 0, 2, NULL, ""}}};
    static const struct {
        const char *target, *code; /* NULL code: fine */
    } cases[] = {{"/api/x?n=5&b=true&e=two&v=int8&d=0.5", NULL}, {"/api/x?n=0", ""}, {"/api/x?n=1001", ""},
        {"/api/x?n=-1", ""}, {"/api/x?n=5x", ""}, {"/api/x?n=", ""}, {"/api/x?n=1&n=2", ""},
        {"/api/x?b=yes", ""}, {"/api/x?e=three", ""}, {"/api/x?e=on", ""}, {"/api/x?v=a/b", "bad_name"},
        {"/api/x?d=nan", ""}, {"/api/x?d=1e1", ""}, {"/api/x?z=1", "unknown_field"}, {"/v2/x?z=1", NULL}};

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct error err = {0};
        struct request r;
        int rc;

        assert_int_equal(parse(&r, cases[i].target, &err), 0);
        r.route = &row;
        rc = route_check_query(&r, &err);
        assert_int_equal(rc, cases[i].code ? -EINVAL : 0);
        if (rc)
            assert_string_equal(error_row_of(&err)->code, *cases[i].code ? cases[i].code : "bad_request");
        request_done(&r);
    }
}

static void check_row(const struct route *row, void *ctx) {
    struct error err = {0};
    struct request r;
    char allow[96];

    (void)ctx;
    assert_non_null(row->handle);
    assert_non_null(row->id);
    assert_non_null(row->summary);
    assert_non_null(row->statuses);
    assert_int_equal(row->path[0], '/');
    assert_true(row->body == BODY_NONE ? row->limit == LIMIT_NONE : row->limit != LIMIT_NONE);
    assert_true(!row->consumes || row->body != BODY_NONE);
    /* the row's own path, its parameters taken literally, leads back to it */
    assert_int_equal(parse(&r, row->path, &err), 0);
    r.method = row->method;
    assert_int_equal(route_find(&r, allow, sizeof(allow)), ROUTE_FOUND);
    assert_ptr_equal(r.route, row);
    request_done(&r);
}

static void test_every_row_is_complete_and_reachable(void **state) {
    (void)state;
    route_each(check_row, NULL);
}

static void test_error_table_is_sorted_and_complete(void **state) {
    (void)state;
    assert_int_equal(error_table_size, 45);
    for (size_t i = 1; i < error_table_size; i++)
        assert_true(strcmp(error_table[i - 1].code, error_table[i].code) < 0);
    assert_null(error_row_find("nonsense"));
}

static void test_ranges_follow_rfc_9110(void **state) {
    static const struct {
        const char *range;
        unsigned status;
        uint64_t first, count;
    } cases[] = {{"bytes=0-9", 206, 0, 10}, {"bytes=90-", 206, 90, 10}, {"bytes=-10", 206, 90, 10},
        {"bytes=-1000", 206, 0, 100}, {"bytes=5-1000", 206, 5, 95}, {"bytes=100-", 416, 0, 0},
        {"bytes=-0", 416, 0, 0}, {"bytes=9-3", 200, 0, 100}, {"bytes=0-1,3-4", 200, 0, 100},
        {"lines=0-1", 200, 0, 100}, {"bytes=-", 200, 0, 100}};

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct request r;
        struct error err = {0};
        struct reply p;
        int rc;

        request_init(&r);
        reply_init(&p);
        r.header[r.n_headers++] = (struct http_field){"Range", cases[i].range};
        rc = reply_file(&r, &p, -1, 100, "application/octet-stream", "abc", &err);
        if (rc)
            reply_from_error(&p, &err, "");
        assert_int_equal(p.status, cases[i].status);
        if (!rc) {
            assert_int_equal(p.file_offset, cases[i].first);
            assert_int_equal(p.file_size, cases[i].count);
        }
        reply_done(&p);
    }
}

static void test_accept_prefers_by_quality(void **state) {
    static const struct {
        const char *accept, *type;
        bool yes;
    } cases[] = {{"text/plain", "text/plain", true}, {"*/*", "text/plain", false},
        {"application/json, text/plain;q=0.5", "text/plain", false},
        {"application/json;q=0.1,text/csv", "text/csv", true}, {"text/plain;q=0", "text/plain", false},
        {"text/plainer", "text/plain", false}};

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct request r;

        request_init(&r);
        r.header[r.n_headers++] = (struct http_field){"accept", cases[i].accept};
        assert_int_equal(request_accepts(&r, cases[i].type), cases[i].yes);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_segments_are_decoded_once),
        cmocka_unit_test(test_hostile_targets_are_refused),
        cmocka_unit_test(test_names_follow_the_pattern),
        cmocka_unit_test(test_known_path_with_another_verb_is_405_with_allow),
        cmocka_unit_test(test_head_runs_the_get_handler),
        cmocka_unit_test(test_unknown_path_is_404),
        cmocka_unit_test(test_query_values_are_checked_against_the_row),
        cmocka_unit_test(test_every_row_is_complete_and_reachable),
        cmocka_unit_test(test_error_table_is_sorted_and_complete),
        cmocka_unit_test(test_ranges_follow_rfc_9110),
        cmocka_unit_test(test_accept_prefers_by_quality),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
