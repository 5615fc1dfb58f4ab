/* The server and the bodies of requests: refused before they come, too large, streamed to disk, expanded. */
#include <stdio.h>
#include <stdlib.h>
#include <zlib.h>

#include "tests/unit/server_fixture.h"

static void test_refusals_come_before_the_body_when_asked(void **state) {
    struct fixture f;
    char a[4096];
    bool is_eof;
    int fd;

    (void)state;
    start(&f, NULL);
    fd = dial(&f);
    send_text(fd,
        "PUT /exists HTTP/1.1\r\nHost: localhost\r\nExpect: 100-continue\r\nContent-Length: 50000000\r\n\r\n");
    read_until(fd, a, sizeof(a), NULL, &is_eof);
    assert_null(strstr(a, "100 Continue"));
    assert_non_null(strstr(a, "HTTP/1.1 409"));
    assert_non_null(strstr(a, "\"details\":{\"n\":1}"));
    assert_true(is_eof);
    close(fd);
    fd = dial(&f);
    send_text(fd,
        "PUT /file HTTP/1.1\r\nHost: localhost\r\nExpect: 100-continue\r\nContent-Length: 500000000\r\n\r\n");
    read_until(fd, a, sizeof(a), NULL, &is_eof);
    assert_non_null(strstr(a, "HTTP/1.1 413"));
    close(fd);
    fd = dial(&f);
    send_text(
        fd, "PUT /file HTTP/1.1\r\nHost: localhost\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n");
    read_until(fd, a, sizeof(a), "Continue\r\n\r\n", &is_eof);
    assert_non_null(strstr(a, "HTTP/1.1 100"));
    send_text(fd, "abc");
    read_until(fd, a, sizeof(a), "\"}", &is_eof);
    assert_non_null(strstr(a, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"));
    close(fd);
    stop(&f);
}

static void test_small_refused_body_leaves_the_connection_usable(void **state) {
    struct fixture f;
    char a[4096];
    bool is_eof;
    int fd;

    (void)state;
    start(&f, NULL);
    fd = dial(&f);
    send_text(fd, "PUT /exists HTTP/1.1\r\nHost: localhost\r\nContent-Length: 3\r\n\r\nabc");
    read_until(fd, a, sizeof(a), "}}", &is_eof);
    assert_non_null(strstr(a, "HTTP/1.1 409"));
    send_text(fd, "GET /hello HTTP/1.1\r\nHost: localhost\r\n\r\n");
    read_until(fd, a, sizeof(a), "hello", &is_eof);
    assert_non_null(strstr(a, "HTTP/1.1 200"));
    close(fd);
    stop(&f);
}

static void test_chunked_body_over_the_limit(void **state) {
    static char piece[1 << 16];
    struct fixture f;
    char a[4096], head[32];
    bool is_eof;
    int fd;

    (void)state;
    start(&f, NULL);
    for (int extra = 1; extra <= 20; extra += 19) { /* within what is dropped politely, and beyond */
        fd = dial(&f);
        send_text(fd, "POST /echo HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n");
        for (int i = 0; i < 64 + extra; i++) {
            snprintf(head, sizeof(head), "%zx\r\n", sizeof(piece));
            send_text(fd, head);
            send_all(fd, piece, sizeof(piece));
            send_text(fd, "\r\n");
        }
        send_text(fd, "0\r\n\r\n");
        read_until(fd, a, sizeof(a), "}", &is_eof);
        close(fd);
        if (extra == 1)
            assert_non_null(strstr(a, "HTTP/1.1 413"));
        else
            assert_string_equal(a, "");
    }
    stop(&f);
}

static void test_large_file_body_is_hashed_on_the_way(void **state) {
    enum { SIZE = 20 << 20 };
    char *body = calloc(1, SIZE);
    struct fixture f;
    char a[4096], head[256];
    bool is_eof;
    int fd;

    (void)state;
    start(&f, NULL);
    fd = dial(&f);
    snprintf(head, sizeof(head), "PUT /file HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n", SIZE);
    send_text(fd, head);
    send_all(fd, body, SIZE);
    read_until(fd, a, sizeof(a), "}", &is_eof);
    assert_non_null(strstr(a, "HTTP/1.1 201"));
    assert_non_null(strstr(a, "\"size\":20971520"));
    /* head -c 20971520 /dev/zero | sha256sum */
    assert_non_null(strstr(a, "cd52d81e25f372e6fa4db2c0dfceb59862c1969cab17096da352b34950c973cc"));
    close(fd);
    /* a client that stops half-way leaves nothing */
    fd = dial(&f);
    send_text(fd, head);
    send_all(fd, body, SIZE / 2);
    close(fd);
    free(body);
    stop(&f); /* rmdir() of the folder and the counters are checked there */
    assert_int_equal(access(f.dir, F_OK), -1);
}

static void test_gzip_both_ways_and_a_bomb(void **state) {
    static unsigned char plain[100000], packed[200000];
    struct fixture f;
    char head[256];
    static char a[300000];
    unsigned char *bomb = malloc(1 << 20);
    int n;

    (void)state;
    start(&f, NULL);
    for (size_t i = 0; i < sizeof(plain); i++)
        plain[i] = (unsigned char)('a' + i % 7);
    for (int bits = 15; bits <= 31; bits += 16) {
        z_stream z = {
            .next_in = plain, .avail_in = sizeof(plain), .next_out = packed, .avail_out = sizeof(packed)};
        const char *name = bits == 15 ? "deflate" : "gzip";
        static char request[210000];

        deflateInit2(&z, 6, Z_DEFLATED, bits, 8, Z_DEFAULT_STRATEGY);
        assert_int_equal(deflate(&z, Z_FINISH), Z_STREAM_END);
        n = snprintf(request, 256,
            "POST /echo HTTP/1.1\r\nContent-Encoding: %s\r\nAccept-Encoding: %s\r\nContent-Length: %lu\r\n" END,
            name, name, z.total_out);
        memcpy(request + n, packed, z.total_out);
        assert_int_equal(raw(&f, request, (size_t)n + z.total_out, a, sizeof(a)), 200);
        snprintf(head, sizeof(head), "Content-Encoding: %s\r\n", name);
        assert_non_null(strstr(a, head));
        deflateEnd(&z);
    }
    {
        z_stream z = {.next_out = bomb, .avail_out = 1 << 20};
        static unsigned char zeros[1 << 16];
        char *request = malloc(1 << 21);

        deflateInit2(&z, 9, Z_DEFLATED, 31, 8, Z_DEFAULT_STRATEGY);
        for (int i = 0; i < 160; i++) { /* 10 MiB, over the limit of 4 */
            z.next_in = zeros;
            z.avail_in = sizeof(zeros);
            deflate(&z, i == 159 ? Z_FINISH : Z_NO_FLUSH);
        }
        n = snprintf(request, 256,
            "POST /echo HTTP/1.1\r\nContent-Encoding: gzip\r\nContent-Length: %lu\r\n" END, z.total_out);
        memcpy(request + n, bomb, z.total_out);
        assert_int_equal(raw(&f, request, (size_t)n + z.total_out, a, sizeof(a)), 413);
        deflateEnd(&z);
        free(request);
    }
    assert_int_equal(
        RAW(&f, "POST /echo HTTP/1.1\r\nContent-Encoding: br\r\nContent-Length: 1\r\n" END "a", a), 415);
    assert_int_equal(
        RAW(&f, "POST /echo HTTP/1.1\r\nContent-Encoding: gzip\r\nContent-Length: 1\r\n" END "a", a), 400);
    free(bomb);
    stop(&f);
}

static void test_expanded_bodies_count_among_those_in_memory(void **state) {
    static unsigned char zeros[3 << 20], packed[1 << 14];
    static char request[1 << 15];
    z_stream z = {
        .next_in = zeros, .avail_in = sizeof(zeros), .next_out = packed, .avail_out = sizeof(packed)};
    struct fixture f;
    char a[4096];
    int n;

    (void)state;
    deflateInit2(&z, 9, Z_DEFLATED, 31, 8, Z_DEFAULT_STRATEGY);
    assert_int_equal(deflate(&z, Z_FINISH), Z_STREAM_END);
    n = snprintf(request, 256, "POST /echo HTTP/1.1\r\nContent-Encoding: gzip\r\nContent-Length: %lu\r\n" END,
        z.total_out);
    memcpy(request + n, packed, z.total_out);
    start(&f, NULL);
    atomic_fetch_add(&f.api.body_bytes, 62 << 20); /* of other requests; 64 MiB are the limit */
    assert_int_equal(raw(&f, request, (size_t)n + z.total_out, a, sizeof(a)), 429);
    assert_non_null(strstr(a, "too_busy"));
    atomic_fetch_sub(&f.api.body_bytes, 62 << 20);
    stop(&f);
    deflateEnd(&z);
}

/* One that is refused while it grows holds what it has, not what it asked for. */
static void test_what_a_refused_body_asked_for_is_free_for_others(void **state) {
    static const char head[] = "POST /echo HTTP/1.1\r\nHost: localhost\r\nContent-Length: 300000\r\n\r\n";
    static const uint64_t others = (64 << 20) - 100000;
    static char part[70000];
    struct fixture f;
    char a[4096];
    int fd;

    (void)state;
    start(&f, NULL);
    atomic_fetch_add(&f.api.body_bytes, others);
    fd = dial(&f);
    send_all(fd, head, sizeof(head) - 1);
    send_all(fd, part, sizeof(part)); /* 64 KiB fit, 128 KiB do not */
    usleep(100000);
    assert_int_equal(RAW(&f, "POST /echo HTTP/1.1\r\nContent-Length: 5\r\n" END "hello", a), 200);
    close(fd);
    atomic_fetch_sub(&f.api.body_bytes, others);
    stop(&f);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_refusals_come_before_the_body_when_asked),
        cmocka_unit_test(test_small_refused_body_leaves_the_connection_usable),
        cmocka_unit_test(test_chunked_body_over_the_limit),
        cmocka_unit_test(test_large_file_body_is_hashed_on_the_way),
        cmocka_unit_test(test_gzip_both_ways_and_a_bomb),
        cmocka_unit_test(test_expanded_bodies_count_among_those_in_memory),
        cmocka_unit_test(test_what_a_refused_body_asked_for_is_free_for_others),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
