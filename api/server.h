/* The HTTP server: libmicrohttpd by external epoll in a libuv loop. server.c has the listeners, the ticks,
 * beginning and end; call.c one request; all of it runs on the loop thread.
 *
 * What 0.9.75 needs, each found by a failing test: after a resume the loop must be told (a wake-up of ours);
 * a tick at least each 100 ms (at the connection limit it forgets the listening socket); the body callback
 * takes all or suspends; a suspended connection is not watched, so we watch its socket; its time-out is an
 * idle one, so a sweep cuts those that drip. */
#ifndef API_SERVER_H
#define API_SERVER_H

#include <stdbool.h>
#include <uv.h>

#include "base/error.h"

struct api;
struct auth;
struct server;

struct server_options {
    const char *const *listen; /* ended by NULL; ignored when sockets are inherited */
    int n_inherited;           /* listener_inherited(): descriptors 3 and up */
    const char *tls_cert;      /* PEM texts, not paths; NULL: no TLS */
    const char *tls_key;
    const char *client_ca; /* PEM text: certificates of clients are asked for; NULL: no */
    bool is_insecure;      /* open addresses without TLS and tokens are allowed */
    const char *const *server_names;
    const char *const *origins;
    const char *tmp_dir;    /* folder of bodies streamed to disk */
    unsigned connections;   /* per listener */
    unsigned idle_ms;       /* keep-alive: 75,000 */
    unsigned headers_ms;    /* from accept to complete headers: 15,000 */
    unsigned body_grace_ms; /* then a body must have come at body_rate on average: 30,000 */
    unsigned body_rate;     /* bytes a second: 1,024 */
};

/* The defaults above; the lists NULL. */
void server_default_options(struct server_options *o);

/* Listens, and serves once the loop runs. Refuses an address that is not loopback without TLS and tokens
 * (-EPERM), unless is_insecure. */
int server_new(struct api *api, const struct auth *auth, const struct server_options *o, struct server **ret,
    struct error *err);

/* URL of listener i; NULL past the last. TCP first. */
const char *server_url(const struct server *s, unsigned i);

/* Takes no new connections, ends the event streams, closes idle connections, lets requests end; then calls
 * `done` on the loop, at the latest after grace_ms. */
void server_drain(struct server *s, unsigned grace_ms, void (*done)(void *ctx), void *ctx);

/* After a drain. Runs the loop until its handles are closed. */
struct server *server_free(struct server *s);

#endif
