/* The server over real sockets, with routes of this test instead of the daemon's: `route_files` here is found
 * before the library's. The loop runs in a thread of its own, the tests are the clients. */
#include "tests/unit/cmocka_all.h"

#include <arpa/inet.h>
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>
#include <zlib.h>

#include "api/api.h"
#include "api/auth.h"
#include "api/listener.h"
#include "api/route.h"
#include "api/server.h"
#include "api/stream.h"

#define TOKEN "secret"

struct fixture {
    struct api api;
    uv_loop_t loop;
    uv_async_t stop;
    struct auth *auth;
    struct server *server;
    pthread_t thread;
    char dir[32];
    char unix_spec[64];
    unsigned port;
};

static atomic_int n_gone;
static _Atomic(struct request *) pending;
static _Atomic(struct stream *) open_stream;

/* ---- routes ---- */

static int get_hello(struct request *r, struct reply *p, struct error *err) {
    (void)r;
    return reply_text(p, 200, "text/plain", "hello", err);
}

static int post_echo(struct request *r, struct reply *p, struct error *err) {
    char *copy = malloc(r->body_size + 1);

    if (!copy)
        return error_oom(err);
    if (r->body_size)
        memcpy(copy, r->body, r->body_size);
    return reply_bytes(p, 200, "text/plain", copy, r->body_size);
}

static int put_file(struct request *r, struct reply *p, struct error *err) {
    char hex[65];

    for (int i = 0; i < 32; i++)
        snprintf(hex + 2 * i, 3, "%02x", r->file.sha256[i]);
    if (lseek(r->file.fd, 0, SEEK_END) != (off_t)r->file.size)
        return error_set(err, -EIO, "the file's size is wrong");
    return reply_json(p, 201, json_pack("{s:I, s:s}", "size", (json_int_t)r->file.size, "sha256", hex), err);
}

static int refuse_early(struct request *r, struct reply *p, struct error *err) {
    (void)r;
    return reply_details(p, json_pack("{s:i}", "n", 1), error_set(err, -EEXIST, "it exists"));
}

static void count_gone(struct request *r) {
    atomic_fetch_add(&n_gone, 1);
    error_set((struct error *)r->state, -ECANCELED, "gone");
    request_complete(r, r->state);
}

static void free_state(struct request *r) {
    free(r->state);
}

static int post_pending(struct request *r, struct reply *p, struct error *err) {
    (void)p;
    (void)err;
    r->state = calloc(1, sizeof(struct error));
    r->on_gone = count_gone;
    r->release = free_state;
    atomic_store(&pending, r);
    return REQUEST_PENDING;
}

static int get_stream(struct request *r, struct reply *p, struct error *err) {
    struct stream *s = stream_new(4096, ":\n\n");

    (void)r;
    if (!s)
        return error_oom(err);
    stream_write(s, "data: 1\n\n", 9);
    atomic_store(&open_stream, stream_ref(s));
    return reply_stream(p, "text/event-stream", s);
}

static const struct route rows[] = {
    {.method = HTTP_GET, .path = "/hello", .scope = SCOPE_READ, .handle = get_hello},
    {.method = HTTP_GET, .path = "/open", .scope = SCOPE_OPEN, .handle = get_hello},
    {.method = HTTP_GET, .path = "/admin", .scope = SCOPE_ADMIN, .handle = get_hello},
    {.method = HTTP_POST,
        .path = "/echo",
        .scope = SCOPE_INFER,
        .body = BODY_MEMORY,
        .limit = LIMIT_JSON,
        .handle = post_echo},
    {.method = HTTP_POST,
        .path = "/pool",
        .scope = SCOPE_INFER,
        .body = BODY_MEMORY,
        .limit = LIMIT_JSON,
        .run = RUN_POOL,
        .handle = post_echo},
    {.method = HTTP_PUT,
        .path = "/file",
        .scope = SCOPE_UPLOAD,
        .body = BODY_DISK,
        .limit = LIMIT_MODEL,
        .run = RUN_POOL,
        .is_upload = true,
        .handle = put_file},
    {.method = HTTP_PUT,
        .path = "/exists",
        .scope = SCOPE_UPLOAD,
        .body = BODY_DISK,
        .limit = LIMIT_MODEL,
        .check = refuse_early,
        .handle = put_file},
    {.method = HTTP_POST,
        .path = "/pending",
        .scope = SCOPE_INFER,
        .body = BODY_MEMORY,
        .limit = LIMIT_JSON,
        .handle = post_pending},
    {.method = HTTP_GET, .path = "/stream", .scope = SCOPE_READ, .is_stream = true, .handle = get_stream},
    {0},
};
const struct route *const route_files[] = {rows};
const size_t route_files_size = 1;

/* ---- the server ---- */

static void on_drained(void *ctx) {
    uv_stop(ctx);
}

static void on_stop(uv_async_t *a) {
    struct fixture *f = a->data;

    server_drain(f->server, 5000, on_drained, &f->loop);
}

static void *run_loop(void *arg) {
    struct fixture *f = arg;

    uv_run(&f->loop, UV_RUN_DEFAULT);
    return NULL;
}

static void start(struct fixture *f, const char *tokens) {
    const char *listen[3] = {"127.0.0.1:0", f->unix_spec, NULL};
    static const char *const origins[] = {"https://ok.example", NULL};
    struct server_options o;
    struct error err = {0};

    *f = (struct fixture){.dir = "/tmp/bonsai-server-XXXXXX"};
    assert_non_null(mkdtemp(f->dir));
    snprintf(f->unix_spec, sizeof(f->unix_spec), "unix:%s/s", f->dir);
    f->api.limits = (struct api_limits){.model_bytes = 100 << 20,
        .dataset_bytes = 100 << 20,
        .body_bytes = 4 << 20,
        .bodies_bytes = 64 << 20,
        .uploads = 2,
        .streams = 2};
    f->api.loop = &f->loop;
    assert_int_equal(uv_loop_init(&f->loop), 0);
    f->stop.data = f;
    uv_async_init(&f->loop, &f->stop, on_stop);
    assert_int_equal(tokens ? auth_parse(tokens, &f->auth, &err) : auth_new(NULL, &f->auth, &err), 0);
    server_default_options(&o);
    o.listen = listen;
    o.origins = origins;
    o.tmp_dir = f->dir;
    o.headers_ms = 600;
    o.body_grace_ms = 600;
    assert_int_equal(server_new(&f->api, f->auth, &o, &f->server, &err), 0);
    assert_int_equal(sscanf(server_url(f->server, 0), "http://127.0.0.1:%u", &f->port), 1);
    assert_int_equal(pthread_create(&f->thread, NULL, run_loop, f), 0);
}

static void stop(struct fixture *f) {
    uv_async_send(&f->stop);
    pthread_join(f->thread, NULL);
    uv_close((uv_handle_t *)&f->stop, NULL);
    server_free(f->server);
    uv_run(&f->loop, UV_RUN_DEFAULT);
    assert_int_equal(uv_loop_close(&f->loop), 0);
    assert_int_equal(atomic_load(&f->api.n_connections), 0);
    assert_int_equal(atomic_load(&f->api.body_bytes), 0);
    assert_int_equal(atomic_load(&f->api.n_uploads), 0);
    assert_int_equal(atomic_load(&f->api.n_streams), 0);
    auth_free(f->auth);
    rmdir(f->dir);
}

/* ---- the client ---- */

static int dial(const struct fixture *f) {
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons((in_port_t)f->port)};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    assert_int_equal(connect(fd, (struct sockaddr *)&a, sizeof(a)), 0);
    return fd;
}

static void send_all(int fd, const char *data, size_t size) {
    while (size) {
        ssize_t n = send(fd, data, size, MSG_NOSIGNAL);

        if (n <= 0)
            return;
        data += n;
        size -= (size_t)n;
    }
}

static void send_text(int fd, const char *s) {
    send_all(fd, s, strlen(s));
}

/* Reads until `until` was seen, the end, or 3 s of silence. Returns bytes read; -1 at the end of file is
 * reported by *is_eof. */
static size_t read_until(int fd, char *buf, size_t size, const char *until, bool *is_eof) {
    size_t n = 0;

    *is_eof = false;
    buf[0] = 0;
    while (n + 1 < size && !(until && memmem(buf, n, until, strlen(until)))) {
        struct pollfd p = {.fd = fd, .events = POLLIN};
        ssize_t got;

        if (poll(&p, 1, 3000) <= 0)
            break;
        got = recv(fd, buf + n, size - 1 - n, 0);
        if (got <= 0) {
            *is_eof = true;
            break;
        }
        n += (size_t)got;
        buf[n] = 0;
    }
    return n;
}

/* One raw request on a connection of its own; the whole answer to its end. Status, 0: none. */
static int raw(const struct fixture *f, const char *request, size_t size, char *answer, size_t max) {
    int fd = dial(f);
    bool is_eof;
    int status = 0;

    send_all(fd, request, size);
    read_until(fd, answer, max, NULL, &is_eof);
    close(fd);
    if (sscanf(answer, "HTTP/1.1 %d", &status) != 1)
        return 0;
    return status;
}

#define RAW(f, text, answer) raw(f, text, sizeof(text) - 1, answer, sizeof(answer))
#define END                  "Host: localhost\r\nConnection: close\r\n\r\n"

static void test_simple_requests(void **state) {
    struct fixture f;
    char a[4096];

    (void)state;
    start(&f, NULL);
    assert_int_equal(RAW(&f, "GET /hello HTTP/1.1\r\nRequest-Id: my.id\r\n" END, a), 200);
    assert_non_null(strstr(a, "Request-Id: my.id\r\n"));
    assert_non_null(strstr(a, "\r\n\r\nhello"));
    assert_int_equal(RAW(&f, "HEAD /hello HTTP/1.1\r\n" END, a), 200);
    assert_non_null(strstr(a, "Content-Length: 5\r\n"));
    assert_null(strstr(a, "\r\n\r\nhello"));
    assert_int_equal(RAW(&f, "DELETE /hello HTTP/1.1\r\n" END, a), 405);
    assert_non_null(strstr(a, "Allow: GET, HEAD\r\n"));
    assert_int_equal(RAW(&f, "BREW /hello HTTP/1.1\r\n" END, a), 405);
    assert_int_equal(RAW(&f, "GET /nothing HTTP/1.1\r\n" END, a), 404);
    assert_non_null(strstr(a, "\"code\":\"not_found\",\"request_id\":\""));
    assert_non_null(strstr(a, "Content-Type: application/json\r\n"));
    assert_int_equal(RAW(&f, "GET /admin HTTP/1.1\r\n" END, a), 403);
    assert_int_equal(RAW(&f, "POST /echo HTTP/1.1\r\nContent-Length: 3\r\n" END "abc", a), 200);
    assert_non_null(strstr(a, "\r\n\r\nabc"));
    assert_int_equal(
        RAW(&f, "POST /pool HTTP/1.1\r\nTransfer-Encoding: chunked\r\n" END "2\r\nab\r\n1\r\nc\r\n0\r\n\r\n",
            a),
        200);
    assert_non_null(strstr(a, "\r\n\r\nabc"));
    stop(&f);
}

static void test_hostile_framing_is_400_and_closes(void **state) {
    static const char *const requests[] = {
        "POST /echo HTTP/1.1\r\nHost: localhost\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabcGET /hello",
        "POST /echo HTTP/1.1\r\nHost: localhost\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "POST /echo HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        "POST /echo HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
        "PATCH /echo HTTP/1.1\r\nHost: localhost\r\nContent-Length: 3\r\nContent-Length: 3\r\n\r\nabc",
        "GET /hello HTTP/1.1\r\nHost: localhost\r\nHost: localhost\r\n\r\n",
        "GET /hello HTTP/1.1\r\n\r\n",
        "GET /hello HTTP/1.1\r\nHost: localhost\r\nContent-Length: -3\r\n\r\n",
    };
    static const char pipelined[] = "GET /hello HTTP/1.1\r\nHost: localhost\r\n\r\n";
    struct fixture f;
    char a[4096];

    (void)state;
    start(&f, NULL);
    for (size_t i = 0; i < sizeof(requests) / sizeof(requests[0]); i++) {
        char both[1024];
        int n = snprintf(both, sizeof(both), "%s%s", requests[i], pipelined);

        assert_int_equal(raw(&f, both, (size_t)n, a, sizeof(a)), 400);
        assert_null(strstr(a, "hello")); /* what follows is never run */
    }
    stop(&f);
}

static void test_hostile_paths_are_400(void **state) {
    struct fixture f;
    char a[4096];

    (void)state;
    start(&f, NULL);
    assert_int_equal(RAW(&f, "GET /hello%00x HTTP/1.1\r\n" END, a), 400);
    assert_int_equal(RAW(&f, "GET /a%2fhello HTTP/1.1\r\n" END, a), 400);
    assert_int_equal(RAW(&f, "GET /a/../hello HTTP/1.1\r\n" END, a), 400);
    assert_int_equal(RAW(&f, "GET /a/%2e%2e/hello HTTP/1.1\r\n" END, a), 400);
    assert_int_equal(RAW(&f, "GET /h%65llo HTTP/1.1\r\n" END, a), 200);
    stop(&f);
}

static void test_foreign_hosts_and_origins_are_refused(void **state) {
    struct fixture f;
    char a[4096];

    (void)state;
    start(&f, NULL);
    assert_int_equal(
        RAW(&f, "GET /hello HTTP/1.1\r\nHost: evil.example\r\nConnection: close\r\n\r\n", a), 403);
    assert_non_null(strstr(a, "host_not_allowed"));
    assert_int_equal(RAW(&f, "GET /hello HTTP/1.1\r\nHost: [::1]:80\r\nConnection: close\r\n\r\n", a), 200);
    assert_int_equal(
        RAW(&f, "GET /hello HTTP/1.1\r\nHost: 10.0.0.1:8080\r\nConnection: close\r\n\r\n", a), 200);
    assert_int_equal(RAW(&f, "GET /hello HTTP/1.1\r\nOrigin: null\r\n" END, a), 403);
    assert_non_null(strstr(a, "origin_not_allowed"));
    assert_int_equal(RAW(&f, "GET /hello HTTP/1.1\r\nOrigin: http://localhost\r\n" END, a), 200);
    assert_int_equal(RAW(&f, "GET /hello HTTP/1.1\r\nSec-Fetch-Site: cross-site\r\n" END, a), 403);
    assert_int_equal(RAW(&f, "GET /hello HTTP/1.1\r\nOrigin: https://ok.example\r\n" END, a), 200);
    assert_non_null(strstr(a, "Access-Control-Allow-Origin: https://ok.example\r\n"));
    assert_int_equal(RAW(&f,
                         "OPTIONS /hello HTTP/1.1\r\nOrigin: https://ok.example\r\n"
                         "Access-Control-Request-Method: PUT\r\n" END,
                         a),
        204);
    assert_non_null(strstr(a, "Access-Control-Allow-Methods:"));
    stop(&f);
}

/* sha256("secret") */
#define DIGEST "2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b"

static void test_tokens_decide_before_look_up(void **state) {
    struct fixture f;
    char a[4096];

    (void)state;
    start(&f, "# ours\nann read,upload sha256:" DIGEST "\n");
    assert_int_equal(RAW(&f, "GET /open HTTP/1.1\r\n" END, a), 200);
    assert_int_equal(RAW(&f, "GET /hello HTTP/1.1\r\n" END, a), 401);
    assert_non_null(strstr(a, "WWW-Authenticate: Bearer\r\n"));
    assert_int_equal(RAW(&f, "GET /nothing HTTP/1.1\r\n" END, a), 401);
    assert_int_equal(RAW(&f, "DELETE /hello HTTP/1.1\r\n" END, a), 401);
    assert_int_equal(RAW(&f, "GET /hello HTTP/1.1\r\nAuthorization: Bearer wrong\r\n" END, a), 401);
    assert_int_equal(RAW(&f, "GET /hello HTTP/1.1\r\nAuthorization: Basic c2VjcmV0\r\n" END, a), 401);
    assert_int_equal(RAW(&f, "GET /hello HTTP/1.1\r\nAuthorization: Bearer " TOKEN "\r\n" END, a), 200);
    assert_int_equal(RAW(&f, "GET /nothing HTTP/1.1\r\nAuthorization: Bearer " TOKEN "\r\n" END, a), 404);
    assert_int_equal(
        RAW(&f, "POST /echo HTTP/1.1\r\nContent-Length: 1\r\nAuthorization: Bearer " TOKEN "\r\n" END "a", a),
        403);
    stop(&f);
}

static void test_unix_socket_knows_its_peer(void **state) {
    struct fixture f;
    struct sockaddr_un u = {.sun_family = AF_UNIX};
    char a[4096];
    bool is_eof;
    int fd;

    (void)state;
    start(&f, "ann read sha256:" DIGEST);
    snprintf(u.sun_path, sizeof(u.sun_path), "%s", f.unix_spec + 5);
    fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(connect(fd, (struct sockaddr *)&u, sizeof(u)), 0);
    send_text(fd, "GET /admin HTTP/1.1\r\nHost: anything\r\nConnection: close\r\n\r\n");
    read_until(fd, a, sizeof(a), NULL, &is_eof);
    close(fd);
    assert_non_null(strstr(a, "HTTP/1.1 200"));
    stop(&f);
}

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

static long long elapsed_ms(const struct timespec *since) {
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (t.tv_sec - since->tv_sec) * 1000LL + (t.tv_nsec - since->tv_nsec) / 1000000;
}

static struct request *await_pending(void) {
    struct request *r = NULL;
    struct timespec start_at;

    clock_gettime(CLOCK_MONOTONIC, &start_at);
    while (!(r = atomic_exchange(&pending, NULL)) && elapsed_ms(&start_at) < 3000)
        poll(NULL, 0, 1);
    return r;
}

static void test_pending_request_is_completed_from_another_thread(void **state) {
    struct fixture f;
    struct request *r;
    struct error err = {0};
    char a[4096];
    bool is_eof;
    int fd;

    (void)state;
    start(&f, NULL);
    for (int i = 0; i < 50; i++) {
        fd = dial(&f);
        send_text(fd, "POST /pending HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n");
        r = await_pending();
        assert_non_null(r);
        assert_int_equal(reply_text(r->reply, 200, "text/plain", "later", &err), 0);
        request_complete(r, NULL);
        read_until(fd, a, sizeof(a), "later", &is_eof);
        assert_non_null(strstr(a, "HTTP/1.1 200"));
        close(fd);
    }
    stop(&f);
}

static void test_waiting_client_that_leaves_is_noticed_within_100_ms(void **state) {
    struct fixture f;
    struct timespec left_at;
    int before = atomic_load(&n_gone);

    (void)state;
    start(&f, NULL);
    for (int half = 0; half < 2; half++) {
        int fd = dial(&f);

        send_text(fd, "POST /pending HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n");
        assert_non_null(await_pending());
        clock_gettime(CLOCK_MONOTONIC, &left_at);
        if (half)
            shutdown(fd, SHUT_WR);
        else
            close(fd);
        while (atomic_load(&n_gone) == before + half && elapsed_ms(&left_at) < 2000)
            poll(NULL, 0, 1);
        assert_int_equal(atomic_load(&n_gone), before + half + 1);
        assert_in_range(elapsed_ms(&left_at), 0, 250); /* 100 on a quiet machine */
        if (half)
            close(fd);
    }
    stop(&f);
}

static void test_events_reach_the_client_at_once_and_its_leaving_closes_the_stream(void **state) {
    struct fixture f;
    struct stream *s;
    char a[4096];
    bool is_eof;
    int fd;

    (void)state;
    start(&f, NULL);
    fd = dial(&f);
    send_text(fd, "GET /stream HTTP/1.1\r\nHost: localhost\r\n\r\n");
    read_until(fd, a, sizeof(a), "data: 1\n\n", &is_eof);
    assert_non_null(strstr(a, "Content-Type: text/event-stream\r\n"));
    s = atomic_exchange(&open_stream, NULL);
    assert_int_equal(stream_printf(s, "data: %d\n\n", 2), 0);
    read_until(fd, a, sizeof(a), "data: 2\n\n", &is_eof);
    assert_non_null(strstr(a, "data: 2"));
    close(fd);
    for (int i = 0; i < 1000 && !stream_is_closed(s); i++)
        poll(NULL, 0, 1);
    assert_true(stream_is_closed(s));
    assert_int_equal(stream_write(s, "x", 1), -EPIPE);
    stream_unref(s);
    /* drain ends open streams */
    fd = dial(&f);
    send_text(fd, "GET /stream HTTP/1.1\r\nHost: localhost\r\n\r\n");
    read_until(fd, a, sizeof(a), "data: 1\n\n", &is_eof);
    stop(&f);
    read_until(fd, a, sizeof(a), NULL, &is_eof);
    assert_true(is_eof);
    stream_unref(atomic_exchange(&open_stream, NULL));
    close(fd);
}

static void test_dripping_clients_are_cut(void **state) {
    static const char *const starts[] = {"", "GET /hello HTTP/1.1\r\nX: ",
        "POST /echo HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000000\r\n\r\n"};
    struct fixture f;

    (void)state;
    start(&f, NULL);
    for (size_t i = 0; i < sizeof(starts) / sizeof(starts[0]); i++) {
        struct timespec begin;
        int fd = dial(&f);
        bool is_cut = false;

        send_text(fd, starts[i]);
        clock_gettime(CLOCK_MONOTONIC, &begin);
        while (!is_cut && elapsed_ms(&begin) < 5000) {
            struct pollfd p = {.fd = fd, .events = POLLIN};
            char c;

            send(fd, "x", 1, MSG_NOSIGNAL);
            if (poll(&p, 1, 100) > 0)
                is_cut = recv(fd, &c, 1, 0) <= 0;
        }
        assert_true(is_cut);
        close(fd);
    }
    stop(&f);
}

static void test_idle_connections_change_nothing(void **state) {
    enum { N = 900 };
    static int fds[N];
    struct fixture f;
    char a[4096];

    (void)state;
    start(&f, NULL);
    for (int i = 0; i < N; i++)
        fds[i] = dial(&f);
    assert_int_equal(RAW(&f, "GET /hello HTTP/1.1\r\n" END, a), 200);
    for (int i = 0; i < N; i++)
        close(fds[i]);
    stop(&f);
}

static void test_open_addresses_need_tls_and_tokens(void **state) {
    const char *listen[] = {"0.0.0.0:0", NULL};
    struct server_options o;
    struct error err = {0};
    struct api api = {0};
    struct auth *auth;
    struct server *s;
    uv_loop_t loop;

    (void)state;
    uv_loop_init(&loop);
    api.loop = &loop;
    auth_new(NULL, &auth, &err);
    server_default_options(&o);
    o.listen = listen;
    assert_int_equal(server_new(&api, auth, &o, &s, &err), -EPERM);
    assert_non_null(strstr(err.text, "not a loopback address"));
    listen[0] = "nonsense";
    error_clear(&err);
    assert_int_equal(server_new(&api, auth, &o, &s, &err), -EINVAL);
    auth_free(auth);
    uv_loop_close(&loop);
}

static void test_token_files_with_errors_name_the_line(void **state) {
    static const char *const bad[] = {"ann read", "ann read,nope sha256:" DIGEST, "a/b read sha256:" DIGEST,
        "ann read sha256:abc", "ann read md5:" DIGEST, "ann read sha256:" DIGEST " more"};
    struct auth *auth;

    (void)state;
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        char text[256];
        struct error err = {0};

        snprintf(text, sizeof(text), "# first\n%s\n", bad[i]);
        assert_int_equal(auth_parse(text, &auth, &err), -EINVAL);
        assert_non_null(strstr(err.text, "line 2"));
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_simple_requests),
        cmocka_unit_test(test_hostile_framing_is_400_and_closes),
        cmocka_unit_test(test_hostile_paths_are_400),
        cmocka_unit_test(test_foreign_hosts_and_origins_are_refused),
        cmocka_unit_test(test_tokens_decide_before_look_up),
        cmocka_unit_test(test_unix_socket_knows_its_peer),
        cmocka_unit_test(test_refusals_come_before_the_body_when_asked),
        cmocka_unit_test(test_small_refused_body_leaves_the_connection_usable),
        cmocka_unit_test(test_chunked_body_over_the_limit),
        cmocka_unit_test(test_large_file_body_is_hashed_on_the_way),
        cmocka_unit_test(test_gzip_both_ways_and_a_bomb),
        cmocka_unit_test(test_expanded_bodies_count_among_those_in_memory),
        cmocka_unit_test(test_pending_request_is_completed_from_another_thread),
        cmocka_unit_test(test_waiting_client_that_leaves_is_noticed_within_100_ms),
        cmocka_unit_test(test_events_reach_the_client_at_once_and_its_leaving_closes_the_stream),
        cmocka_unit_test(test_dripping_clients_are_cut),
        cmocka_unit_test(test_idle_connections_change_nothing),
        cmocka_unit_test(test_open_addresses_need_tls_and_tokens),
        cmocka_unit_test(test_token_files_with_errors_name_the_line),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
