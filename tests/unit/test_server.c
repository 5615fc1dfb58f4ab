/* The server: framing, who gets in, requests that wait, streams, clients that drip. */
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "api/api.h"
#include "api/conn.h"
#include "api/exchange.h"
#include "base/clock.h"
#include "tests/unit/server_fixture.h"

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

static uint64_t elapsed_ms(uint64_t since_ns) {
    return (clock_now_ns() - since_ns) / 1000000;
}

static struct request *await_pending(void) {
    struct request *r = NULL;
    uint64_t start_at;

    start_at = clock_now_ns();
    while (!(r = atomic_exchange(&pending, NULL)) && elapsed_ms(start_at) < 3000)
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

static struct {
    int n;
    bool was_completed;
} woken;

static void note_wake(struct exchange *x, bool is_completed) {
    assert_true(is_completed);
    woken.n++;
    woken.was_completed = atomic_load(&x->is_completed);
}

/* Once it is set the loop may answer the request and free it: only the waker may set it, in one piece with
 * the waking. */
static void test_completing_leaves_it_to_the_waker_to_say_so(void **state) {
    struct api api = {0};
    struct exchange_env env = {.api = &api};
    struct exchange *x = exchange_new(&env, "/pending", note_wake);

    (void)state;
    assert_non_null(x);
    request_complete(&x->req, NULL);
    assert_int_equal(woken.n, 1);
    assert_false(woken.was_completed);
    exchange_free(x);
}

static void test_waiting_client_that_leaves_is_noticed_within_100_ms(void **state) {
    struct fixture f;
    uint64_t left_at;
    int before = atomic_load(&n_gone);

    (void)state;
    start(&f, NULL);
    for (int half = 0; half < 2; half++) {
        int fd = dial(&f);

        send_text(fd, "POST /pending HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n");
        assert_non_null(await_pending());
        left_at = clock_now_ns();
        if (half)
            shutdown(fd, SHUT_WR);
        else
            close(fd);
        while (atomic_load(&n_gone) == before + half && elapsed_ms(left_at) < 2000)
            poll(NULL, 0, 1);
        assert_int_equal(atomic_load(&n_gone), before + half + 1);
        assert_in_range(elapsed_ms(left_at), 0, 250); /* 100 on a quiet machine */
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
        uint64_t begin;
        int fd = dial(&f);
        bool is_cut = false;

        send_text(fd, starts[i]);
        begin = clock_now_ns();
        while (!is_cut && elapsed_ms(begin) < 5000) {
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

/* A sweep that comes late (or is the first) must not put the beginning of a young body into the future. */
static void test_body_that_waits_for_us_is_not_late(void **state) {
    const struct conn_limits limits = {75000, 15000, 30000, 1024};
    struct conn_list list = {0};
    struct conn *c = conn_new(&list, -1, false, 0);

    (void)state;
    assert_non_null(c);
    conn_enter(c, CONN_BODY, 1000);
    conn_set_waiting(&list, c, true);
    assert_false(conn_is_overdue(c, &limits, 1100, 5000000));
    assert_false(conn_is_overdue(c, &limits, 1600, 500));
    assert_false(conn_is_overdue(c, &limits, 900000, 900000 - 1600));
    conn_set_waiting(&list, c, false);
    assert_false(conn_is_overdue(c, &limits, 929000, 500));
    assert_true(conn_is_overdue(c, &limits, 931000, 500));
    conn_free(&list, c);
}

static void test_request_that_ends_after_the_server(void **state) {
    static struct fixture f; /* what libmicrohttpd still holds stays reachable */
    static struct request *r;
    int fd;

    (void)state;
    start(&f, NULL);
    f.drain_ms = 50;
    fd = dial(&f);
    send_text(fd, "POST /pending HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n");
    r = await_pending();
    assert_non_null(r);
    end_server(&f);
    request_complete(r, NULL); /* wakes nobody: the loop has ended */
    auth_free(f.auth);
    rmdir(f.dir);
    close(fd);
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
        cmocka_unit_test(test_pending_request_is_completed_from_another_thread),
        cmocka_unit_test(test_completing_leaves_it_to_the_waker_to_say_so),
        cmocka_unit_test(test_waiting_client_that_leaves_is_noticed_within_100_ms),
        cmocka_unit_test(test_events_reach_the_client_at_once_and_its_leaving_closes_the_stream),
        cmocka_unit_test(test_dripping_clients_are_cut),
        cmocka_unit_test(test_body_that_waits_for_us_is_not_late),
        cmocka_unit_test(test_request_that_ends_after_the_server),
        cmocka_unit_test(test_idle_connections_change_nothing),
        cmocka_unit_test(test_open_addresses_need_tls_and_tokens),
        cmocka_unit_test(test_token_files_with_errors_name_the_line),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
