/* Infer bodies against a small graph made by hand: x [-1,2,3] FP32, n [2] INT64 → y [-1,4] FP32, z [-1,1]
 * INT64. */
#include "tests/unit/cmocka_all.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "api/api.h"
#include "api/infer_reply.h"

static struct value values[] = {
    {.name = "x", .dtype = DT_F32, .shape = {3, {-1, 2, 3}}, .is_input = true},
    {.name = "n", .dtype = DT_S64, .shape = {1, {2}}, .is_input = true},
    {.name = "y", .dtype = DT_F32, .shape = {2, {-1, 4}}, .is_output = true},
    {.name = "z", .dtype = DT_S64, .shape = {2, {-1, 1}}, .is_output = true},
};
static int inputs[] = {0, 1}, outputs[] = {2, 3};
static const struct graph two = {
    .n_values = 4, .values = values, .n_inputs = 2, .inputs = inputs, .n_outputs = 2, .outputs = outputs};
static const struct graph one = {
    .n_values = 4, .values = values, .n_inputs = 1, .inputs = inputs, .n_outputs = 2, .outputs = outputs};

static struct api api = {.limits = {.json_depth = 64}};

/* `ihcl`: value of Inference-Header-Content-Length, NULL: none. */
static int parse(const struct graph *g, const void *body, size_t size, const char *ihcl, struct request *r,
    struct infer *in, struct error *err) {
    request_init(r);
    r->api = &api;
    r->body = malloc(size + 1);
    memcpy(r->body, body, size);
    r->body[size] = 0;
    r->body_size = size;
    if (ihcl)
        r->header[r->n_headers++] = (struct http_field){"inference-header-content-length", ihcl};
    infer_init(in);
    error_clear(err);
    return infer_open(r, in, err) ?: infer_bind(in, g, false, err);
}

#define GOOD_N "{\"name\":\"n\",\"shape\":[2],\"datatype\":\"INT64\",\"data\":[7,-8]}"

static void test_json_request_in_any_order_of_keys(void **state) {
    static const char body[] =
        "{\"outputs\":[{\"name\":\"z\"},{\"name\":\"y\",\"parameters\":{\"classification\":2}}],\"inputs\":[" GOOD_N
        ",{\"data\":[[[1,2,3],[4,5,6]]],\"datatype\":\"FP32\",\"shape\":[1,2,3],\"name\":\"x\"}],"
        "\"parameters\":{\"priority\":3,\"timeout\":5000,\"sequence_id\":9},\"id\":\"abc\"}";
    struct request r;
    struct infer in;
    struct error err;

    (void)state;
    assert_int_equal(parse(&two, body, strlen(body), NULL, &r, &in, &err), 0);
    assert_string_equal(in.id, "abc");
    assert_string_equal(r.id, "abc");
    assert_int_equal(in.priority, 3);
    assert_int_equal(in.timeout_us, 5000);
    assert_int_equal(in.in[0].shape.dim[0], 1);
    assert_true(((float *)in.in[0].data)[5] == 6);
    assert_int_equal(((int64_t *)in.in[1].data)[1], -8);
    assert_int_equal(in.n_want, 2);
    assert_int_equal(in.want[0].output, 1);
    assert_int_equal(in.want[1].classification, 2);
    infer_done(&in);
    request_done(&r);
}

/* The Python client: a JSON head, blobs behind it, every output binary. */
static void test_binary_request(void **state) {
    char body[512], ihcl[16];
    struct request r;
    struct infer in;
    struct error err;
    float x[6] = {1, 2, 3, 4, 5, 6};
    int head = snprintf(body, sizeof(body),
        "{\"inputs\":[{\"name\":\"n\",\"shape\":[2],\"datatype\":\"INT64\",\"data\":[7,-8]},{\"name\":\"x\",\"shape\":[1,2,3],"
        "\"datatype\":\"FP32\",\"parameters\":{\"binary_data_size\":24}}],\"parameters\":{\"binary_data_output\":true}}");

    (void)state;
    memcpy(body + head, x, sizeof(x));
    snprintf(ihcl, sizeof(ihcl), "%d", head);
    assert_int_equal(parse(&two, body, (size_t)head + sizeof(x), ihcl, &r, &in, &err), 0);
    assert_ptr_equal(in.in[0].data, r.body + head); /* not copied */
    assert_true(in.want[0].is_binary && in.want[1].is_binary);
    infer_done(&in);
    request_done(&r);
    /* one byte short, one too many, a head that ends elsewhere */
    assert_int_equal(parse(&two, body, (size_t)head + sizeof(x) - 1, ihcl, &r, &in, &err), -EINVAL);
    assert_non_null(strstr(err.text, "only 23 bytes left"));
    infer_done(&in);
    request_done(&r);
    assert_int_equal(parse(&two, body, (size_t)head + sizeof(x) + 1, ihcl, &r, &in, &err), -EINVAL);
    assert_non_null(strstr(err.text, "1 bytes follow"));
    infer_done(&in);
    request_done(&r);
}

/* The C++ client sends the header always, then equal to the body's length. */
static void test_header_length_of_a_pure_json_body(void **state) {
    static const char body[] =
        "{\"inputs\":[{\"name\":\"x\",\"shape\":[1,2,3],\"datatype\":\"FP32\",\"data\":[1,2,3,4,5,6]}]}";
    static const struct {
        const char *ihcl;
        bool ok;
    } cases[] = {{"80", true}, {"81", false}, {"-1", false}, {"x", false}, {"", false},
        {"99999999999999999999", false}};

    (void)state;
    assert_int_equal(strlen(body), 80);
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct request r;
        struct infer in;
        struct error err;

        assert_int_equal(
            parse(&one, body, strlen(body), cases[i].ihcl, &r, &in, &err), cases[i].ok ? 0 : -EINVAL);
        infer_done(&in);
        request_done(&r);
    }
}

static void test_raw_request(void **state) {
    float x[12] = {1};
    struct request r;
    struct infer in;
    struct error err;

    (void)state;
    assert_int_equal(parse(&one, x, 24, "0", &r, &in, &err), 0);
    assert_int_equal(in.in[0].shape.dim[0], 1);
    assert_true(in.want[0].is_binary);
    infer_done(&in);
    request_done(&r);
    assert_int_equal(parse(&one, x, 48, "0", &r, &in, &err), -EINVAL); /* batch 1 is assumed */
    assert_non_null(strstr(err.text, "needs 24 bytes, the body has 48"));
    infer_done(&in);
    request_done(&r);
    assert_int_equal(parse(&two, x, 24, "0", &r, &in, &err), -EINVAL);
    infer_done(&in);
    request_done(&r);
}

static void test_bad_requests_name_what_is_wrong(void **state) {
#define X(rest) "{\"inputs\":[{\"name\":\"x\"," rest "}]}"
#define V       "\"data\":[1,2,3,4,5,6]"
    static const struct {
        const char *body, *says, *code;
    } cases[] = {
        {"", "not a JSON object", "bad_json"},
        {"[]", "not a JSON object", "bad_json"},
        {"{", "not a JSON object", "bad_json"},
        {"{}", "'inputs' must be an array", "bad_request"},
        {"{\"inputs\":[]}", "input 'x' is missing", "bad_request"},
        {"{\"inputs\":[5]}", "inputs[0] has no 'name'", "bad_request"},
        {"{\"inputs\":[" GOOD_N "]}", "no input 'n'", "bad_request"},
        {"{\"id\":1,\"inputs\":[]}", "'id' must be a string", "bad_request"},
        {"{\"id\":\"a\",\"id\":\"b\",\"inputs\":[]}", "duplicate", "bad_json"},
        {X("\"shape\":[1,2,3],\"datatype\":\"FP32\",\"data\":[1,2,3,4,5]"),
            "input 'x': data has 5 values, the shape wants 6", "bad_request"},
        {X("\"shape\":[1,2,3],\"datatype\":\"INT32\"," V), "the model wants FP32, the request says INT32",
            "bad_request"},
        {X("\"shape\":[1,2,3],\"datatype\":\"FP31\"," V), "not a type", "bad_request"},
        {X("\"shape\":[1,2,3],\"datatype\":\"BYTES\"," V), "not a type", "bad_request"},
        {X("\"shape\":[1,2,3],\"datatype\":\"FP16\"," V), "binary", "bad_request"},
        {X("\"shape\":[1,2,3]," V), "'datatype' is missing", "bad_request"},
        {X("\"shape\":[1,3,2],\"datatype\":\"FP32\"," V), "has the shape [1,3,2], the model wants [?,2,3]",
            "shape_mismatch"},
        {X("\"shape\":[6],\"datatype\":\"FP32\"," V), "has the shape [6]", "shape_mismatch"},
        {X("\"shape\":[0,2,3],\"datatype\":\"FP32\"," V), "shape[0] must be", "bad_request"},
        {X("\"shape\":[-1,2,3],\"datatype\":\"FP32\"," V), "shape[0] must be", "bad_request"},
        {X("\"shape\":[1.5,2,3],\"datatype\":\"FP32\"," V), "shape[0] must be", "bad_request"},
        {X("\"shape\":\"1\",\"datatype\":\"FP32\"," V), "'shape' must be", "bad_request"},
        {X("\"shape\":[1,1,1,1,1,1,1,1,1],\"datatype\":\"FP32\"," V), "more than 8", "bad_request"},
        {X("\"shape\":[4294967296,4294967296,4294967296],\"datatype\":\"FP32\"," V), "too many values",
            "bad_request"},
        {X("\"shape\":[1000000000,2,3],\"datatype\":\"FP32\"," V), "the shape wants 6000000000",
            "bad_request"},
        {X("\"shape\":[1,2,3],\"datatype\":\"FP32\""), "either 'data' or", "bad_request"},
        {X("\"shape\":[1,2,3],\"datatype\":\"FP32\",\"data\":0"), "'data' is not an array", "bad_json"},
        {X("\"shape\":[1,2,3],\"datatype\":\"FP32\",\"d\\u0061ta\":0"), "'data' must be an array",
            "bad_request"},
        {X("\"shape\":[1,2,3],\"datatype\":\"FP32\",\"parameters\":{\"binary_data_size\":24}"),
            "only 0 bytes left", "bad_request"},
        {X("\"shape\":[1,2,3],\"datatype\":\"FP32\",\"parameters\":{\"binary_data_size\":-1}"),
            "must be a number", "bad_request"},
        {X("\"shape\":[1,2,3],\"datatype\":\"FP32\",\"parameters\":{\"binary_data_size\":23}"),
            "need 24 bytes", "bad_request"},
        {X("\"shape\":[1,2,3],\"datatype\":\"FP32\"," V
           "},{\"name\":\"x\",\"shape\":[1,2,3],\"datatype\":\"FP32\"," V),
            "twice", "bad_request"},
        {"{\"outputs\":[{\"name\":\"q\"}],\"inputs\":[{\"name\":\"x\",\"shape\":[1,2,3],\"datatype\":\"FP32\"," V
         "}]}",
            "no output 'q'", "bad_request"},
        {"{\"outputs\":[{\"name\":\"y\"},{\"name\":\"y\"}],\"inputs\":[{\"name\":\"x\",\"shape\":[1,2,3],\"datatype\":\"FP32\"," V
         "}]}",
            "asked for twice", "bad_request"},
        {"{\"parameters\":{\"timeout\":-1},\"inputs\":[]}", "parameters.timeout", "bad_request"},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct request r;
        struct infer in;
        struct error err;
        int rc = parse(&one, cases[i].body, strlen(cases[i].body), NULL, &r, &in, &err);

        if (rc != -EINVAL || !strstr(err.text, cases[i].says) ||
            strcmp(error_row_of(&err)->code, cases[i].code) != 0)
            fail_msg("%s: %d %s: %s", cases[i].body, rc, error_row_of(&err)->code, err.text);
        infer_done(&in);
        request_done(&r);
    }
}

static void test_reply_in_json_and_binary(void **state) {
    static float y[] = {0.5f, 2, NAN, -1, 1, 1, 3, 0};
    static int64_t z[] = {5, -6};
    static const char *const labels[] = {"cat", "dog", "a\"b", "d"};
    struct tensor out[] = {{.dtype = DT_F32, .shape = {2, {2, 4}}, .data = y},
        {.dtype = DT_S64, .shape = {2, {2, 1}}, .data = z}};
    struct infer_answer a = {
        .model = "m", .version = "1", .graph = &one, .out = out, .labels = labels, .n_labels = 4};
    struct infer in;
    struct reply p;
    struct error err = {0};

    (void)state;
    infer_init(&in);
    reply_init(&p);
    assert_int_equal(infer_want_all(&one, false, &in, &err), 0);
    in.id = "a";
    assert_int_equal(infer_reply(&in, &a, &p, &err), 0);
    assert_string_equal(p.bytes,
        "{\"id\":\"a\",\"model_name\":\"m\",\"model_version\":\"1\",\"outputs\":["
        "{\"name\":\"y\",\"datatype\":\"FP32\",\"shape\":[2,4],\"data\":[0.5,2,null,-1,1,1,3,0]},"
        "{\"name\":\"z\",\"datatype\":\"INT64\",\"shape\":[2,1],\"data\":[5,-6]}]}");
    assert_string_equal(p.type, "application/json");
    reply_done(&p);

    in.id = NULL;
    in.want[0].classification = 2;
    in.want[1].is_binary = true;
    assert_int_equal(infer_reply(&in, &a, &p, &err), 0);
    assert_string_equal(p.type, "application/octet-stream");
    assert_string_equal(p.header[0].name, "Inference-Header-Content-Length");
    assert_int_equal(p.size - strtoul(p.header[0].value, NULL, 10), sizeof(z));
    assert_memory_equal(p.bytes + p.size - sizeof(z), z, sizeof(z));
    p.bytes[p.size - sizeof(z)] = 0;
    assert_string_equal(p.bytes,
        "{\"model_name\":\"m\",\"model_version\":\"1\",\"outputs\":["
        "{\"name\":\"y\",\"datatype\":\"BYTES\",\"shape\":[2,2],\"data\":[\"2:1:dog\",\"0.5:0:cat\",\"3:2:a\\\"b\",\"1:0:cat\"]},"
        "{\"name\":\"z\",\"datatype\":\"INT64\",\"shape\":[2,1],\"parameters\":{\"binary_data_size\":16}}]}");
    reply_done(&p);

    in.n_want = 0;
    y[2] = 2;
    a.wants_classes = a.has_classes = true;
    a.is_softmax = true;
    a.top = 2;
    assert_int_equal(infer_reply(&in, &a, &p, &err), 0);
    assert_string_equal(p.bytes,
        "{\"model_name\":\"m\",\"model_version\":\"1\",\"outputs\":[],\"classes\":["
        "{\"index\":1,\"label\":\"dog\",\"score\":2},{\"index\":2,\"label\":\"a\\\"b\",\"score\":2}]}");
    reply_done(&p);
    infer_done(&in);
}

static void test_binary_classification_has_lengths(void **state) {
    static float y[] = {1, 3, 2, 0};
    struct tensor out[] = {{.dtype = DT_F32, .shape = {2, {1, 4}}, .data = y},
        {.dtype = DT_S64, .shape = {2, {1, 1}}, .data = y}};
    struct infer_answer a = {.model = "m", .version = "1", .graph = &one, .out = out};
    struct infer in;
    struct reply p;
    struct error err = {0};

    (void)state;
    infer_init(&in);
    reply_init(&p);
    in.n_want = 1;
    in.want[0] = (struct infer_want){.is_binary = true, .classification = 2};
    assert_int_equal(infer_reply(&in, &a, &p, &err), 0);
    assert_non_null(strstr(p.bytes, "\"binary_data_size\":14"));
    assert_memory_equal(p.bytes + p.size - 14,
        "\3\0\0\0"
        "3:1"
        "\3\0\0\0"
        "2:2",
        14);
    reply_done(&p);
    infer_done(&in);
}

static void test_softmax_and_top(void **state) {
    static const float x[] = {1000, 1001, 999, 1001};
    float s[4];
    struct infer_class best[3];

    (void)state;
    infer_softmax(x, 4, s);
    assert_true(fabs((double)s[0] + (double)s[1] + (double)s[2] + (double)s[3] - 1) < 1e-6);
    assert_int_equal(infer_top(s, 4, 3, best), 3);
    assert_int_equal(best[0].index, 1);
    assert_int_equal(best[1].index, 3);
    assert_int_equal(best[2].index, 0);
}

/* Rising scores, all asked for: with an insertion each this takes minutes. */
static void test_top_of_many_classes(void **state) {
    enum { N = 1 << 19 };
    float *s = malloc(N * sizeof(*s));
    struct infer_class *best = malloc(N * sizeof(*best));

    (void)state;
    for (size_t i = 0; i < N; i++)
        s[i] = (float)(i / 2); /* pairs of equals: the lower index goes first */
    s[N - 1] = NAN;
    assert_int_equal(infer_top(s, N, N, best), N);
    assert_int_equal(best[0].index, N - 2);
    for (size_t i = 1; i + 1 < N; i++)
        assert_int_equal(best[i].index, i % 2 ? N - 3 - i : N - 3 - i + 2);
    assert_int_equal(best[N - 1].index, N - 1);
    assert_int_equal(infer_top(s, N, 0, best), 0);
    assert_int_equal(infer_top(s, 3, 9, best), 3);
    free(s);
    free(best);
}

static void test_pictures_are_known_by_their_first_bytes(void **state) {
    struct request r;

    (void)state;
    request_init(&r);
    r.body = strdup("\xff\xd8\xff\xe0");
    r.body_size = 4;
    assert_true(infer_is_picture(&r));
    r.header[r.n_headers++] = (struct http_field){"Inference-Header-Content-Length", "0"};
    assert_false(infer_is_picture(&r));
    request_done(&r);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_json_request_in_any_order_of_keys),
        cmocka_unit_test(test_binary_request),
        cmocka_unit_test(test_header_length_of_a_pure_json_body),
        cmocka_unit_test(test_raw_request),
        cmocka_unit_test(test_bad_requests_name_what_is_wrong),
        cmocka_unit_test(test_reply_in_json_and_binary),
        cmocka_unit_test(test_binary_classification_has_lengths),
        cmocka_unit_test(test_softmax_and_top),
        cmocka_unit_test(test_top_of_many_classes),
        cmocka_unit_test(test_pictures_are_known_by_their_first_bytes),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
