/* What server.c (listeners, ticks, beginning and end) and call.c (one request) share. The only file that
 * includes microhttpd.h; everything here is the loop thread's, except where it says so. */
#ifndef API_SERVER_PRIV_H
#define API_SERVER_PRIV_H

#include <microhttpd.h>
#include <pthread.h>

#include "api/api.h"
#include "api/conn.h"
#include "api/exchange.h"
#include "api/listener.h"
#include "api/server.h"

#define MAX_DOORS 8

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
    pthread_mutex_t lock; /* protects the rest and the calls' next_woken, is_woken */
    struct call *woken;
    bool is_closed; /* nothing is woken any more: `async` is closed */
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

static inline uint64_t server_now_ms(const struct server *s) {
    return uv_now(s->api->loop);
}

/* libmicrohttpd's callbacks; `cls` is the door. */
enum MHD_Result call_on_access(void *cls, struct MHD_Connection *mhd, const char *url, const char *method,
    const char *version, const char *data, size_t *data_size, void **con_cls);
void *call_on_target(void *cls, const char *target, struct MHD_Connection *mhd);
void call_on_completed(
    void *cls, struct MHD_Connection *mhd, void **con_cls, enum MHD_RequestTerminationCode why);
void call_on_connection(
    void *cls, struct MHD_Connection *mhd, void **socket_context, enum MHD_ConnectionNotificationCode code);
size_t call_keep_escaped(void *cls, struct MHD_Connection *mhd, char *s);

/* Resumes what was woken, from any thread, since the last time. */
void call_resume_woken(struct server *s);

/* The client of a waiting connection has gone. */
void call_gone(struct conn *conn);

#endif
