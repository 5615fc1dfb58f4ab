/* One request in the hands of libmicrohttpd: its callbacks drive an exchange, and what the exchange says next
 * is suspend, resume, reply or close. */
#include <errno.h>
#include <gnutls/gnutls.h>
#include <gnutls/x509.h>
#include <stdlib.h>
#include <string.h>

#include "api/server_priv.h"
#include "api/stream.h"
#include "base/cleanup.h"

#define STREAM_BLOCK (16 * 1024)

/* ---- waking: from any thread to the loop ---- */

/* A request that is completed may be answered and freed as soon as the loop sees so: that is set under the
 * lock, which call_on_completed() takes before it frees, and nothing of the call is touched after it. */
static void wake(struct call *c, bool is_completed) {
    struct server *s = c->door->server;

    pthread_mutex_lock(&s->lock);
    if (is_completed)
        atomic_store(&c->x->is_completed, true);
    if (!s->is_closed && !c->is_woken) {
        c->is_woken = true;
        c->next_woken = s->woken;
        s->woken = c;
        uv_async_send(&s->async);
    }
    pthread_mutex_unlock(&s->lock);
}

static void wake_call(void *ctx) {
    wake(ctx, false);
}

static void wake_exchange(struct exchange *x, bool is_completed) {
    wake(x->owner, is_completed);
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

void call_resume_woken(struct server *s) {
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
}

void call_gone(struct conn *conn) {
    struct call *c = conn->call;

    exchange_gone(c->x);
    if (c->is_streaming)
        resume(c);
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
    conn_enter(c->conn, CONN_BUSY, server_now_ms(c->door->server));
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
    conn_enter(c->conn, CONN_BODY, server_now_ms(c->door->server));
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

enum MHD_Result call_on_access(void *cls, struct MHD_Connection *mhd, const char *url, const char *method,
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
    conn_enter(c->conn, CONN_BUSY, server_now_ms(c->door->server));
    return go_on(c, exchange_end(c->x));
}

/* The request line is complete: what the callback returns becomes *con_cls. */
void *call_on_target(void *cls, const char *target, struct MHD_Connection *mhd) {
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

void call_on_completed(
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
    conn_enter(c->conn, CONN_IDLE, server_now_ms(d->server));
    exchange_free(c->x);
    free(c);
    d->server->n_calls--;
}

void call_on_connection(
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
        info ? conn_new(&d->conns, info->connect_fd, d->listener.is_unix, server_now_ms(d->server)) : NULL;
    if (*socket_context)
        atomic_fetch_add(&d->server->api->n_connections, 1);
}

/* We decode ourselves, by segment and once (exchange_new has the raw target). */
size_t call_keep_escaped(void *cls, struct MHD_Connection *mhd, char *s) {
    (void)cls;
    (void)mhd;
    return strlen(s);
}
