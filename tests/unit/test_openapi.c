#include "tests/unit/cmocka_all.h"

#include <stdio.h>
#include <string.h>

#include "api/api.h"
#include "api/route.h"

static json_t *fetch(unsigned *status, const char *if_none_match, char *etag) {
    struct error err = {0};
    struct api api = {0};
    struct request r;
    struct reply p;
    json_t *doc = NULL;
    char allow[96];

    request_init(&r);
    reply_init(&p);
    r.api = &api;
    assert_int_equal(request_parse_target(&r, "/openapi.json", &err), 0);
    assert_int_equal(route_find(&r, allow, sizeof(allow)), ROUTE_FOUND);
    if (if_none_match)
        r.header[r.n_headers++] = (struct http_field){"If-None-Match", if_none_match};
    assert_int_equal(route_run(&r, &p, false), 0);
    *status = p.status;
    snprintf(etag, 64, "%s", p.header[0].value);
    if (p.size)
        doc = json_loadb(p.bytes, p.size, JSON_REJECT_DUPLICATES, NULL);
    reply_done(&p);
    request_done(&r);
    return doc;
}

struct seen {
    json_t *paths;
    size_t n;
};

static const char *const verbs[] = {[HTTP_GET] = "get",
    [HTTP_POST] = "post",
    [HTTP_PUT] = "put",
    [HTTP_PATCH] = "patch",
    [HTTP_DELETE] = "delete"};

static void check_row(const struct route *row, void *ctx) {
    struct seen *s = ctx;
    char path[160];
    json_t *op;
    size_t n = 0;

    for (const char *c = row->path; *c; c++)
        if (*c != '*')
            path[n++] = *c;
    path[n] = 0;
    op = json_object_get(json_object_get(s->paths, path), verbs[row->method]);
    assert_non_null(op);
    assert_string_equal(json_string_value(json_object_get(op, "operationId")), row->id);
    assert_true((json_object_get(op, "requestBody") != NULL) == (row->body != BODY_NONE));
    for (size_t i = 0; i < ROUTE_MAX_QUERY && row->query[i].name; i++) {
        bool is_there = false;
        size_t k;
        json_t *param;

        json_array_foreach(json_object_get(op, "parameters"), k, param) is_there |=
            !strcmp(json_string_value(json_object_get(param, "name")), row->query[i].name);
        assert_true(is_there);
    }
    s->n++;
}

static void test_router_and_file_agree(void **state) {
    unsigned status;
    char etag[64];
    json_t *doc = fetch(&status, NULL, etag), *item;
    struct seen s = {json_object_get(doc, "paths"), 0};
    size_t n_ops = 0;
    const char *path;

    (void)state;
    assert_int_equal(status, 200);
    route_each(check_row, &s);
    json_object_foreach(s.paths, path, item) n_ops += json_object_size(item);
    assert_int_equal(n_ops, s.n); /* nothing in the file that is not in the table */
    json_decref(doc);
}

static void test_unchanged_file_is_304(void **state) {
    unsigned status;
    char etag[64], again[64];
    json_t *doc = fetch(&status, NULL, etag);

    (void)state;
    json_decref(doc);
    assert_null(fetch(&status, etag, again));
    assert_int_equal(status, 304);
}

struct ids {
    const char *id[256];
    size_t n;
};

static void check_id(const struct route *row, void *ctx) {
    struct ids *ids = ctx;

    for (size_t i = 0; i < ids->n; i++)
        assert_string_not_equal(ids->id[i], row->id);
    assert_true(ids->n < 256);
    ids->id[ids->n++] = row->id;
}

static void test_operation_ids_are_unique(void **state) {
    struct ids ids = {.n = 0};

    (void)state;
    route_each(check_id, &ids);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_router_and_file_agree),
        cmocka_unit_test(test_unchanged_file_is_304),
        cmocka_unit_test(test_operation_ids_are_unique),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
