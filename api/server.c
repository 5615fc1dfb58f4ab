#include "api/server.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "api/server_priv.h"
#include "api/stream.h"
#include "base/cleanup.h"

#define TICK_MS           50
#define SWEEP_MS          500
#define MEMORY_LIMIT      (64 * 1024) /* per connection; also the limit of the headers */
#define RUNS_PER_TURN     4
#define SPARE_CONNECTIONS 8
#define CUT_AT_ONCE       32
#define TLS_PRIORITIES    "NORMAL:-VERS-ALL:+VERS-TLS1.3:+VERS-TLS1.2:%SERVER_PRECEDENCE"

void server_default_options(struct server_options *o) {
    *o = (struct server_options){.connections = 1024,
        .idle_ms = 75000,
        .headers_ms = 15000,
        .body_grace_ms = 30000,
        .body_rate = 1024};
}

/* ---- running ---- */

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

    call_resume_woken(s);
    run_doors(s);
}

static void __attribute__((format(printf, 2, 0))) pass_over_message(void *cls, const char *fmt, va_list ap) {
    (void)cls;
    (void)fmt;
    (void)ap;
}

/* ---- ticking ---- */

static void sweep_door(struct door *d, unsigned since_ms) {
    const struct server_options *o = &d->server->options;
    const struct conn_limits limits = {o->idle_ms, o->headers_ms, o->body_grace_ms, o->body_rate};
    uint64_t now = server_now_ms(d->server);

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

    if (!done || (s->n_calls && server_now_ms(s) < s->drain_until_ms))
        return;
    s->drained = NULL;
    done(s->drained_ctx);
}

static void on_tick(uv_timer_t *t) {
    struct server *s = t->data;
    uint64_t now = server_now_ms(s);

    for (unsigned i = 0; i < s->n_doors; i++) {
        conn_watch(&s->doors[i].conns, call_gone);
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
        0, NULL, NULL, call_on_access, d, MHD_OPTION_EXTERNAL_LOGGER, pass_over_message, NULL,
        MHD_OPTION_LISTEN_SOCKET, d->listener.fd, MHD_OPTION_CONNECTION_LIMIT, o->connections,
        MHD_OPTION_CONNECTION_MEMORY_LIMIT, (size_t)MEMORY_LIMIT, MHD_OPTION_CONNECTION_TIMEOUT,
        o->idle_ms / 1000 + 60, MHD_OPTION_STRICT_FOR_CLIENT, 1, MHD_OPTION_NOTIFY_COMPLETED,
        call_on_completed, d, MHD_OPTION_NOTIFY_CONNECTION, call_on_connection, d,
        MHD_OPTION_URI_LOG_CALLBACK, call_on_target, d, MHD_OPTION_UNESCAPE_CALLBACK, call_keep_escaped, NULL,
        MHD_OPTION_ARRAY, is_tls ? tls : plain, MHD_OPTION_END);
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
    s->swept_ms = server_now_ms(s);
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
    s->drain_until_ms = server_now_ms(s) + grace_ms;
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
    bool is_waited_for = false;

    if (!s)
        return NULL;
    pthread_mutex_lock(&s->lock);
    s->is_closed = true;
    pthread_mutex_unlock(&s->lock);
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
        if (s->doors[i].conns.n_waiting)
            is_waited_for = true;
        else
            MHD_stop_daemon(s->doors[i].mhd);
        listener_done(&s->doors[i].listener);
    }
    if (is_waited_for) /* what they wait for still wakes them */
        return NULL;
    pthread_mutex_destroy(&s->lock);
    free(s);
    return NULL;
}
