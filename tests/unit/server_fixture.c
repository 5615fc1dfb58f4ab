#include "tests/unit/server_fixture.h"

#include <arpa/inet.h>
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>

atomic_int n_gone;
_Atomic(struct request *) pending;
_Atomic(struct stream *) open_stream;

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

    server_drain(f->server, f->drain_ms, on_drained, &f->loop);
}

static void *run_loop(void *arg) {
    struct fixture *f = arg;

    uv_run(&f->loop, UV_RUN_DEFAULT);
    return NULL;
}

void start(struct fixture *f, const char *tokens) {
    const char *listen[3] = {"127.0.0.1:0", f->unix_spec, NULL};
    static const char *const origins[] = {"https://ok.example", NULL};
    struct server_options o;
    struct error err = {0};

    *f = (struct fixture){.dir = "/tmp/bonsai-server-XXXXXX", .drain_ms = 5000};
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

void end_server(struct fixture *f) {
    uv_async_send(&f->stop);
    pthread_join(f->thread, NULL);
    uv_close((uv_handle_t *)&f->stop, NULL);
    server_free(f->server);
    uv_run(&f->loop, UV_RUN_DEFAULT);
    assert_int_equal(uv_loop_close(&f->loop), 0);
}

void stop(struct fixture *f) {
    end_server(f);
    assert_int_equal(atomic_load(&f->api.n_connections), 0);
    assert_int_equal(atomic_load(&f->api.body_bytes), 0);
    assert_int_equal(atomic_load(&f->api.n_uploads), 0);
    assert_int_equal(atomic_load(&f->api.n_streams), 0);
    auth_free(f->auth);
    rmdir(f->dir);
}

/* ---- the client ---- */

int dial(const struct fixture *f) {
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons((in_port_t)f->port)};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    assert_int_equal(connect(fd, (struct sockaddr *)&a, sizeof(a)), 0);
    return fd;
}

void send_all(int fd, const char *data, size_t size) {
    while (size) {
        ssize_t n = send(fd, data, size, MSG_NOSIGNAL);

        if (n <= 0)
            return;
        data += n;
        size -= (size_t)n;
    }
}

void send_text(int fd, const char *s) {
    send_all(fd, s, strlen(s));
}

size_t read_until(int fd, char *buf, size_t size, const char *until, bool *is_eof) {
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

int raw(const struct fixture *f, const char *request, size_t size, char *answer, size_t max) {
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
