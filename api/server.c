#include "api/server.h"

#include <errno.h>
#include <gnutls/gnutls.h>
#include <gnutls/x509.h>
#include <microhttpd.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/resource.h>
#include <unistd.h>

#include "api/api.h"
#include "api/conn.h"
#include "api/exchange.h"
#include "api/listener.h"
#include "api/stream.h"
#include "base/cleanup.h"

#define MAX_DOORS         8
#define TICK_MS           50
#define SWEEP_MS          500
#define MEMORY_LIMIT      (64 * 1024) /* per connection; also the limit of the headers */
#define STREAM_BLOCK      (16 * 1024)
#define RUNS_PER_TURN     4
#define SPARE_CONNECTIONS 8
#define CUT_AT_ONCE       32
#define TLS_PRIORITIES    "NORMAL:-VERS-ALL:+VERS-TLS1.3:+VERS-TLS1.2:%SERVER_PRECEDENCE"

/* One listener. */
struct door {
    struct server *server;
    struct listener listener;
    struct MHD_Daemon *mhd;
    uv_poll_t poll;
    struct exchange_env env;
    struct conn_list conns;
};

struct server {
    struct api *api;
    struct server_options options;
    struct door doors[MAX_DOORS];
    unsigned n_doors;
    uv_async_t async;
    uv_timer_t tick, soon;
    unsigned n_closing;
    uint64_t swept_ms;
    size_t n_calls;
    bool is_draining;
    uint64_t drain_until_ms;
    void (*drained)(void *ctx);
    void *drained_ctx;
    pthread_mutex_t lock; /* protects woken and the calls' next_woken, is_woken */
    struct call *woken;
};

/* One request in the hands of libmicrohttpd. */
struct call {
    struct exchange *x;
    struct door *door;
    struct conn *conn;
    struct MHD_Connection *mhd;
    struct call *next_woken;
    bool is_woken;
    bool has_begun, has_ended, is_streaming, has_replied;
    bool is_odd; /* a header with a zero byte, or too many */
};

static uint64_t now_ms(const struct server *s) {
    return uv_now(s->api->loop);
}

void server_default_options(struct server_options *o) {
    *o = (struct server_options){.connections = 1024,
        .idle_ms = 75000,
        .headers_ms = 15000,
        .body_grace_ms = 30000,
        .body_rate = 1024};
}

/* ---- waking: from any thread to the loop ---- */

static void wake_call(void *ctx) {
    struct call *c = ctx;
    struct server *s = c->door->server;

    pthread_mutex_lock(&s->lock);
    if (!c->is_woken) {
        c->is_woken = true;
        c->next_woken = s->woken;
        s->woken = c;
    }
    pthread_mutex_unlock(&s->lock);
    uv_async_send(&s->async);
}

static void wake_exchange(struct exchange *x) {
    wake_call(x->owner);
}

static void forget_woken(struct server *s, struct call *c) {
    pthread_mutex_lock(&s->lock);
    for (struct call **p = &s->woken; *p; p = &(*p)->next_woken)
        if (*p == c) {
            *p = c->next_woken;
            break;
        }
    pthread_mutex_unlock(&s->lock);
}

static void suspend(struct call *c) {
    MHD_suspend_connection(c->mhd);
    conn_set_waiting(&c->door->conns, c->conn, true);
}

static void resume(struct call *c) {
    if (!c->conn->is_waiting)
        return;
    conn_set_waiting(&c->door->conns, c->conn, false);
    MHD_resume_connection(c->mhd);
}

static void on_soon(uv_timer_t *t);

static void run_doors(struct server *s) {
    bool is_more = false;

    for (unsigned i = 0; i < s->n_doors; i++) {
        MHD_UNSIGNED_LONG_LONG left = 1;

        for (int turn = 0; turn < RUNS_PER_TURN; turn++) {
            MHD_run(s->doors[i].mhd);
            if (MHD_get_timeout(s->doors[i].mhd, &left) != MHD_YES)
                left = 1;
            if (left)
                break;
        }
        is_more |= !left;
    }
    if (is_more && !uv_is_closing((uv_handle_t *)&s->soon))
        uv_timer_start(&s->soon, on_soon, 0, 0);
}

static void on_soon(uv_timer_t *t) {
    run_doors(t->data);
}

static void on_async(uv_async_t *a) {
    struct server *s = a->data;
    struct call *c;

    pthread_mutex_lock(&s->lock);
    while ((c = s->woken)) {
        s->woken = c->next_woken;
        c->is_woken = false;
        pthread_mutex_unlock(&s->lock);
        if (c->is_streaming || exchange_can_go_on(c->x))
            resume(c);
        pthread_mutex_lock(&s->lock);
    }
    pthread_mutex_unlock(&s->lock);
    run_doors(s);
}

/* ---- replies ---- */

static ssize_t read_stream(void *cls, uint64_t pos, char *buf, size_t max) {
    struct call *c = cls;
    long n = stream_read(c->x->reply.stream, buf, max);

    (void)pos;
    if (n > 0)
        return n;
    if (n < 0)
        return MHD_CONTENT_READER_END_OF_STREAM;
    if (atomic_load(&c->x->req.is_gone))
        return MHD_CONTENT_READER_END_WITH_ERROR;
    suspend(c);
    return 0;
}

static struct MHD_Response *make_response(struct call *c) {
    struct reply *p = &c->x->reply;
    static char nothing[1];

    switch (p->kind) {
    case REPLY_EMPTY: return MHD_create_response_from_buffer(0, nothing, MHD_RESPMEM_PERSISTENT);
    case REPLY_BYTES: return MHD_create_response_from_buffer(p->size, TAKE(p->bytes), MHD_RESPMEM_MUST_FREE);
    case REPLY_STATIC:
        return MHD_create_response_from_buffer(p->size, (void *)(uintptr_t)p->fixed, MHD_RESPMEM_PERSISTENT);
    case REPLY_FILE:
        return MHD_create_response_from_fd_at_offset64(p->file_size, take_fd(&p->fd), p->file_offset);
    case REPLY_STREAM:
        if (c->x->req.is_head)
            return MHD_create_response_from_buffer(0, nothing, MHD_RESPMEM_PERSISTENT);
        c->is_streaming = true;
        stream_attach(p->stream, wake_call, c);
        return MHD_create_response_from_callback(MHD_SIZE_UNKNOWN, STREAM_BLOCK, read_stream, c, NULL);
    }
    return NULL;
}

static enum MHD_Result send_reply(struct call *c) {
    struct reply *p = &c->x->reply;
    struct MHD_Response *response;
    enum MHD_Result ok;

    if (atomic_load(&c->x->req.is_gone))
        return MHD_NO;
    response = make_response(c);
    if (!response)
        return MHD_NO;
    if (p->type)
        MHD_add_response_header(response, MHD_HTTP_HEADER_CONTENT_TYPE, p->type);
    for (size_t i = 0; i < p->n_headers; i++)
        MHD_add_response_header(response, p->header[i].name, p->header[i].value);
    if (p->must_close || c->door->server->is_draining)
        MHD_add_response_header(response, MHD_HTTP_HEADER_CONNECTION, "close");
    if (p->kind == REPLY_STREAM)
        MHD_add_response_header(response, MHD_HTTP_HEADER_CACHE_CONTROL, "no-store");
    conn_enter(c->conn, CONN_BUSY, now_ms(c->door->server));
    c->has_replied = true;
    ok = MHD_queue_response(c->mhd, p->status, response);
    MHD_destroy_response(response);
    return ok;
}

/* ---- libmicrohttpd's callbacks ---- */

static enum MHD_Result add_header(void *cls, enum MHD_ValueKind kind, const char *key, size_t key_size,
    const char *value, size_t value_size) {
    struct call *c = cls;
    struct request *r = &c->x->req;

    (void)kind;
    value = value ? value : "";
    if (!key || strlen(key) != key_size || strlen(value) != value_size ||
        r->n_headers == REQUEST_MAX_HEADERS) {
        c->is_odd = true;
        return MHD_YES;
    }
    r->header[r->n_headers++] = (struct http_field){key, value};
    return MHD_YES;
}

static enum http_method parse_method(const char *method) {
    static const char *const names[] = {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"};

    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
        if (!strcmp(method, names[i]))
            return (enum http_method)i;
    return HTTP_OTHER;
}

static enum MHD_Result go_on(struct call *c, enum exchange_next next) {
    switch (next) {
    case NEXT_BODY: return MHD_YES;
    case NEXT_WAIT: suspend(c); return MHD_YES;
    case NEXT_REPLY: return send_reply(c);
    case NEXT_CLOSE: return MHD_NO;
    }
    return MHD_NO;
}

/* libmicrohttpd asks for the certificate and leaves it to us to look: both results count. */
static void find_certificate(struct call *c) {
    const union MHD_ConnectionInfo *info =
        MHD_get_connection_info(c->mhd, MHD_CONNECTION_INFO_GNUTLS_SESSION);
    struct auth_peer *peer = &c->conn->peer;
    size_t size = sizeof(peer->cert_name);
    const gnutls_datum_t *list;
    gnutls_x509_crt_t cert;
    unsigned status = 1, n = 0;

    if (!info || gnutls_certificate_verify_peers2(info->tls_session, &status) < 0 || status)
        return;
    list = gnutls_certificate_get_peers(info->tls_session, &n);
    if (!list || !n || gnutls_x509_crt_init(&cert) < 0)
        return;
    if (gnutls_x509_crt_import(cert, &list[0], GNUTLS_X509_FMT_DER) < 0 ||
        gnutls_x509_crt_get_dn_by_oid(cert, GNUTLS_OID_X520_COMMON_NAME, 0, 0, peer->cert_name, &size) < 0 ||
        !request_is_name(peer->cert_name))
        peer->cert_name[0] = 0;
    gnutls_x509_crt_deinit(cert);
}

static enum MHD_Result begin_call(struct call *c, const char *method, const char *version) {
    c->has_begun = true;
    c->x->req.method = parse_method(method);
    MHD_get_connection_values_n(c->mhd, MHD_HEADER_KIND, add_header, c);
    conn_enter(c->conn, CONN_BODY, now_ms(c->door->server));
    if (c->door->server->options.client_ca && !c->door->listener.is_unix && !c->conn->peer.cert_name[0])
        find_certificate(c);
    return go_on(c, exchange_headers(c->x, &c->conn->peer, !strcmp(version, "HTTP/1.0"), c->is_odd));
}

static enum MHD_Result take_body(struct call *c, const char *data, size_t *size) {
    size_t consumed = 0;
    enum exchange_next next = exchange_body(c->x, data, *size, &consumed);

    c->conn->body_bytes += consumed;
    *size -= consumed;
    return go_on(c, next);
}

static enum MHD_Result on_access(void *cls, struct MHD_Connection *mhd, const char *url, const char *method,
    const char *version, const char *data, size_t *data_size, void **con_cls) {
    struct call *c = *con_cls;

    (void)cls;
    (void)mhd;
    (void)url;
    if (!c)
        return MHD_NO;
    if (!c->has_begun)
        return begin_call(c, method, version);
    if (c->has_replied) { /* a refusal on the way out: what still comes is passed over */
        *data_size = 0;
        return MHD_YES;
    }
    if (*data_size)
        return take_body(c, data, data_size);
    if (c->has_ended)
        return go_on(c, exchange_advance(c->x));
    c->has_ended = true;
    conn_enter(c->conn, CONN_BUSY, now_ms(c->door->server));
    return go_on(c, exchange_end(c->x));
}

/* The request line is complete: what the callback returns becomes *con_cls. */
static void *on_target(void *cls, const char *target, struct MHD_Connection *mhd) {
    struct door *d = cls;
    const union MHD_ConnectionInfo *info = MHD_get_connection_info(mhd, MHD_CONNECTION_INFO_SOCKET_CONTEXT);
    struct call *c = info && info->socket_context ? calloc(1, sizeof(*c)) : NULL;

    if (!c)
        return NULL;
    c->x = exchange_new(&d->env, target, wake_exchange);
    if (!c->x) {
        free(c);
        return NULL;
    }
    c->x->owner = c;
    c->door = d;
    c->conn = info->socket_context;
    c->conn->call = c;
    c->mhd = mhd;
    d->server->n_calls++;
    return c;
}

static void on_completed(
    void *cls, struct MHD_Connection *mhd, void **con_cls, enum MHD_RequestTerminationCode why) {
    struct call *c = *con_cls;
    struct door *d = cls;

    (void)mhd;
    (void)why;
    if (!c)
        return;
    *con_cls = NULL;
    if (c->is_streaming)
        stream_detach(c->x->reply.stream);
    forget_woken(d->server, c);
    c->conn->call = NULL;
    conn_enter(c->conn, CONN_IDLE, now_ms(d->server));
    exchange_free(c->x);
    free(c);
    d->server->n_calls--;
}

static void on_connection(
    void *cls, struct MHD_Connection *mhd, void **socket_context, enum MHD_ConnectionNotificationCode code) {
    struct door *d = cls;
    const union MHD_ConnectionInfo *info;

    if (code == MHD_CONNECTION_NOTIFY_CLOSED) {
        if (*socket_context) {
            conn_free(&d->conns, *socket_context);
            atomic_fetch_sub(&d->server->api->n_connections, 1);
        }
        *socket_context = NULL;
        return;
    }
    info = MHD_get_connection_info(mhd, MHD_CONNECTION_INFO_CONNECTION_FD);
    *socket_context =
        info ? conn_new(&d->conns, info->connect_fd, d->listener.is_unix, now_ms(d->server)) : NULL;
    if (*socket_context)
        atomic_fetch_add(&d->server->api->n_connections, 1);
}

/* We decode ourselves, by segment and once (exchange_new has the raw target). */
static size_t keep_escaped(void *cls, struct MHD_Connection *mhd, char *s) {
    (void)cls;
    (void)mhd;
    return strlen(s);
}

static void __attribute__((format(printf, 2, 0))) pass_over_message(void *cls, const char *fmt, va_list ap) {
    (void)cls;
    (void)fmt;
    (void)ap;
}

/* ---- ticking ---- */

static void on_gone(struct conn *conn) {
    struct call *c = conn->call;

    exchange_gone(c->x);
    if (c->is_streaming)
        resume(c);
}

static void sweep_door(struct door *d, unsigned since_ms) {
    const struct server_options *o = &d->server->options;
    const struct conn_limits limits = {o->idle_ms, o->headers_ms, o->body_grace_ms, o->body_rate};
    uint64_t now = now_ms(d->server);

    for (struct conn *c = d->conns.first; c; c = c->next) {
        struct call *call = c->call;

        if (conn_is_overdue(c, &limits, now, since_ms))
            conn_cut(c);
        if (call && call->is_streaming)
            stream_tick(call->x->reply.stream, now);
    }
}

/* Near the limit the longest idle ones make room for those that wait in the backlog. */
static void make_room(struct door *d) {
    if (d->conns.n + SPARE_CONNECTIONS > d->server->options.connections)
        conn_cut_idle(&d->conns, CUT_AT_ONCE);
}

static void check_drained(struct server *s) {
    void (*done)(void *) = s->drained;

    if (!done || (s->n_calls && now_ms(s) < s->drain_until_ms))
        return;
    s->drained = NULL;
    done(s->drained_ctx);
}

static void on_tick(uv_timer_t *t) {
    struct server *s = t->data;
    uint64_t now = now_ms(s);

    for (unsigned i = 0; i < s->n_doors; i++) {
        conn_watch(&s->doors[i].conns, on_gone);
        make_room(&s->doors[i]);
    }
    if (now - s->swept_ms >= SWEEP_MS) {
        for (unsigned i = 0; i < s->n_doors; i++)
            sweep_door(&s->doors[i], (unsigned)(now - s->swept_ms));
        s->swept_ms = now;
    }
    run_doors(s);
    check_drained(s);
}

static void on_poll(uv_poll_t *p, int status, int events) {
    struct door *d = p->data;

    (void)status;
    (void)events;
    run_doors(d->server);
}

/* ---- life ---- */

static int start_mhd(struct door *d, struct error *err) {
    const struct server_options *o = &d->server->options;
    bool is_tls = o->tls_cert && !d->listener.is_unix;
    struct MHD_OptionItem tls[] = {{MHD_OPTION_HTTPS_MEM_CERT, 0, (void *)(uintptr_t)o->tls_cert},
        {MHD_OPTION_HTTPS_MEM_KEY, 0, (void *)(uintptr_t)o->tls_key},
        {MHD_OPTION_HTTPS_PRIORITIES, 0, (void *)(uintptr_t)TLS_PRIORITIES},
        {o->client_ca ? MHD_OPTION_HTTPS_MEM_TRUST : MHD_OPTION_END, 0, (void *)(uintptr_t)o->client_ca},
        {MHD_OPTION_END, 0, NULL}};
    struct MHD_OptionItem plain[] = {{MHD_OPTION_END, 0, NULL}};
    const union MHD_DaemonInfo *info;

    d->mhd = MHD_start_daemon(
        MHD_USE_EPOLL | MHD_ALLOW_SUSPEND_RESUME | MHD_USE_ERROR_LOG | (is_tls ? (unsigned)MHD_USE_TLS : 0u),
        0, NULL, NULL, on_access, d, MHD_OPTION_EXTERNAL_LOGGER, pass_over_message, NULL,
        MHD_OPTION_LISTEN_SOCKET, d->listener.fd, MHD_OPTION_CONNECTION_LIMIT, o->connections,
        MHD_OPTION_CONNECTION_MEMORY_LIMIT, (size_t)MEMORY_LIMIT, MHD_OPTION_CONNECTION_TIMEOUT,
        o->idle_ms / 1000 + 60, MHD_OPTION_STRICT_FOR_CLIENT, 1, MHD_OPTION_NOTIFY_COMPLETED, on_completed, d,
        MHD_OPTION_NOTIFY_CONNECTION, on_connection, d, MHD_OPTION_URI_LOG_CALLBACK, on_target, d,
        MHD_OPTION_UNESCAPE_CALLBACK, keep_escaped, NULL, MHD_OPTION_ARRAY, is_tls ? tls : plain,
        MHD_OPTION_END);
    info = d->mhd ? MHD_get_daemon_info(d->mhd, MHD_DAEMON_INFO_EPOLL_FD) : NULL;
    if (!info)
        return error_set(err, -EIO, "cannot serve on %s%s", d->listener.url,
            is_tls ? ": are certificate and key valid and a pair?" : "");
    d->listener.fd = -1; /* libmicrohttpd's from here on */
    d->poll.data = d;
    uv_poll_init(d->server->api->loop, &d->poll, info->epoll_fd);
    uv_poll_start(&d->poll, UV_READABLE, on_poll);
    return 0;
}

/* Refuses what would be open to the network (api.md 8). */
static int check_openness(const struct door *d, const struct auth *auth, struct error *err) {
    const struct server_options *o = &d->server->options;

    if (d->listener.is_unix || d->listener.is_loopback || o->is_insecure)
        return 0;
    if (o->tls_cert && auth_has_tokens(auth))
        return 0;
    return error_code(err, -EPERM, "forbidden",
        "%s is not a loopback address: it needs TLS (tls_cert, tls_key) and tokens (token_file), or --insecure",
        d->listener.url);
}

static int add_door(struct server *s, const struct auth *auth, const char *spec, int fd, struct error *err) {
    struct door *d = &s->doors[s->n_doors];
    bool is_tls = s->options.tls_cert != NULL;
    int rc;

    if (s->n_doors == MAX_DOORS)
        return error_set(err, -EINVAL, "more than %d listeners", MAX_DOORS);
    d->server = s;
    rc =
        spec ? listener_open(spec, is_tls, &d->listener, err) : listener_adopt(fd, is_tls, &d->listener, err);
    if (!rc)
        rc = check_openness(d, auth, err);
    d->env = (struct exchange_env){.api = s->api,
        .auth = auth,
        .guard = {s->options.server_names, s->options.origins},
        .scheme = is_tls && !d->listener.is_unix ? "https" : "http",
        .tmp_dir = s->options.tmp_dir};
    if (!rc)
        rc = start_mhd(d, err);
    if (rc) {
        listener_done(&d->listener);
        return rc;
    }
    s->n_doors++;
    return 0;
}

/* The usual soft limit of 1,024 descriptors is less than the connections of one listener. */
static void raise_fd_limit(const struct server_options *o) {
    rlim_t want = (rlim_t)o->connections * MAX_DOORS + 1024;
    struct rlimit l;

    if (getrlimit(RLIMIT_NOFILE, &l) || l.rlim_cur >= want)
        return;
    l.rlim_cur = l.rlim_max < want ? l.rlim_max : want;
    setrlimit(RLIMIT_NOFILE, &l);
}

int server_new(struct api *api, const struct auth *auth, const struct server_options *o, struct server **ret,
    struct error *err) {
    struct server *s = calloc(1, sizeof(*s));
    int rc = 0;

    if (!s)
        return error_oom(err);
    s->api = api;
    s->options = *o;
    pthread_mutex_init(&s->lock, NULL);
    raise_fd_limit(o);
    signal(SIGPIPE, SIG_IGN); /* sendfile() has no MSG_NOSIGNAL */
    s->async.data = s->tick.data = s->soon.data = s;
    uv_async_init(api->loop, &s->async, on_async);
    uv_timer_init(api->loop, &s->soon);
    uv_timer_init(api->loop, &s->tick);
    uv_timer_start(&s->tick, on_tick, TICK_MS, TICK_MS);
    for (int i = 0; !rc && i < o->n_inherited; i++)
        rc = add_door(s, auth, NULL, 3 + i, err);
    for (size_t i = 0; !rc && !o->n_inherited && o->listen && o->listen[i]; i++)
        rc = add_door(s, auth, o->listen[i], -1, err);
    if (rc) {
        server_free(s);
        return rc;
    }
    *ret = s;
    return 0;
}

const char *server_url(const struct server *s, unsigned i) {
    unsigned n = 0;

    for (int pass = 0; pass < 2; pass++) /* TCP first */
        for (unsigned d = 0; d < s->n_doors; d++)
            if (s->doors[d].listener.is_unix == (pass == 1) && n++ == i)
                return s->doors[d].listener.url;
    return NULL;
}

void server_drain(struct server *s, unsigned grace_ms, void (*done)(void *ctx), void *ctx) {
    atomic_store(&s->api->is_draining, true);
    s->is_draining = true;
    s->drained = done;
    s->drained_ctx = ctx;
    s->drain_until_ms = now_ms(s) + grace_ms;
    for (unsigned i = 0; i < s->n_doors; i++) {
        _cleanup_(closep) int fd = MHD_quiesce_daemon(s->doors[i].mhd);

        (void)fd;
        for (struct conn *c = s->doors[i].conns.first; c; c = c->next) {
            struct call *call = c->call;

            if (call && call->is_streaming)
                stream_end(call->x->reply.stream);
        }
        conn_cut_idle(&s->doors[i].conns, s->doors[i].conns.n);
    }
}

static void on_closed(uv_handle_t *h) {
    struct server *s = h->data;

    s->n_closing--;
}

static void on_door_closed(uv_handle_t *h) {
    struct door *d = h->data;

    d->server->n_closing--;
}

struct server *server_free(struct server *s) {
    if (!s)
        return NULL;
    s->n_closing = 3 + s->n_doors;
    uv_close((uv_handle_t *)&s->async, on_closed);
    uv_close((uv_handle_t *)&s->tick, on_closed);
    uv_close((uv_handle_t *)&s->soon, on_closed);
    for (unsigned i = 0; i < s->n_doors; i++)
        uv_close((uv_handle_t *)&s->doors[i].poll, on_door_closed);
    while (s->n_closing)
        uv_run(s->api->loop, UV_RUN_NOWAIT);
    for (unsigned i = 0; i < s->n_doors; i++) {
        /* libmicrohttpd may not be stopped with suspended connections: the process is about to end anyway */
        if (!s->doors[i].conns.n_waiting)
            MHD_stop_daemon(s->doors[i].mhd);
        listener_done(&s->doors[i].listener);
    }
    pthread_mutex_destroy(&s->lock);
    free(s);
    return NULL;
}
