/* Connections as the deadlines see them: each is in a phase, and one that overstays is cut. libmicrohttpd's
 * own time-out counts idle time only, so a client that sends a byte now and then would stay for ever. */
#ifndef API_CONN_H
#define API_CONN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "api/auth.h"

enum conn_phase {
    CONN_HEADERS, /* connected, no request yet */
    CONN_IDLE,    /* between two requests */
    CONN_BODY,    /* a body is coming */
    CONN_BUSY,    /* handler or reply: no deadline of ours */
};

struct conn {
    struct conn *next, *prev;
    int fd; /* libmicrohttpd's */
    struct auth_peer peer;
    enum conn_phase phase;
    uint64_t phase_ms;   /* when the phase began */
    uint64_t body_bytes; /* received in CONN_BODY */
    bool is_waiting;     /* suspended: for us, not for the client */
    bool is_cut;
    void *call; /* the request at hand, NULL: none */
};

struct conn_limits {
    unsigned idle_ms, headers_ms, body_grace_ms, body_rate;
};

struct conn_list {
    struct conn *first;
    size_t n, n_waiting;
};

struct conn *conn_new(struct conn_list *list, int fd, bool is_unix, uint64_t now_ms);
void conn_free(struct conn_list *list, struct conn *c);
void conn_enter(struct conn *c, enum conn_phase phase, uint64_t now_ms);
void conn_set_waiting(struct conn_list *list, struct conn *c, bool is_waiting);

/* True when the connection has overstayed its phase. `since_last_ms`: since the last sweep. */
bool conn_is_overdue(struct conn *c, const struct conn_limits *l, uint64_t now_ms, unsigned since_last_ms);

/* Shuts the socket down; libmicrohttpd then sees its end. */
void conn_cut(struct conn *c);

/* Cuts up to n connections without a request, the longest idle ones first. */
void conn_cut_idle(struct conn_list *list, size_t n);

/* Calls gone() for each waiting connection whose client has closed or half-closed. */
void conn_watch(struct conn_list *list, void (*gone)(struct conn *c));

#endif
