#include "api/conn.h"

#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/cleanup.h"

#define MAX_GROUPS 256

static bool is_in_our_group(int fd, const struct ucred *peer) {
    gid_t groups[MAX_GROUPS];
    socklen_t len = sizeof(groups);

    if (peer->gid == getegid())
        return true;
    if (getsockopt(fd, SOL_SOCKET, SO_PEERGROUPS, groups, &len))
        return false;
    for (size_t i = 0; i < len / sizeof(groups[0]); i++)
        if (groups[i] == getegid())
            return true;
    return false;
}

static void find_peer(int fd, struct auth_peer *peer) {
    struct ucred cred = {.uid = (uid_t)-1, .gid = (gid_t)-1};
    socklen_t len = sizeof(cred);

    peer->is_unix = true;
    peer->uid = (uid_t)-1;
    if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &cred, &len))
        return;
    peer->uid = cred.uid;
    peer->in_group = is_in_our_group(fd, &cred);
}

struct conn *conn_new(struct conn_list *list, int fd, bool is_unix, uint64_t now_ms) {
    struct conn *c = calloc(1, sizeof(*c));

    if (!c)
        return NULL;
    c->fd = fd;
    if (is_unix)
        find_peer(fd, &c->peer);
    conn_enter(c, CONN_HEADERS, now_ms);
    c->next = list->first;
    if (list->first)
        list->first->prev = c;
    list->first = c;
    list->n++;
    return c;
}

void conn_free(struct conn_list *list, struct conn *c) {
    conn_set_waiting(list, c, false);
    if (c->prev)
        c->prev->next = c->next;
    else
        list->first = c->next;
    if (c->next)
        c->next->prev = c->prev;
    list->n--;
    free(c);
}

void conn_enter(struct conn *c, enum conn_phase phase, uint64_t now_ms) {
    c->phase = phase;
    c->phase_ms = now_ms;
    c->body_bytes = 0;
}

void conn_set_waiting(struct conn_list *list, struct conn *c, bool is_waiting) {
    if (is_waiting && !c->is_waiting)
        list->n_waiting++;
    else if (!is_waiting && c->is_waiting)
        list->n_waiting--;
    c->is_waiting = is_waiting;
}

bool conn_is_overdue(struct conn *c, const struct conn_limits *l, uint64_t now_ms, unsigned since_last_ms) {
    uint64_t age = now_ms > c->phase_ms ? now_ms - c->phase_ms : 0;

    if (c->is_cut)
        return false;
    switch (c->phase) {
    case CONN_HEADERS: return age > l->headers_ms;
    case CONN_IDLE: return age > l->idle_ms;
    case CONN_BODY:
        if (c->is_waiting) { /* our disk's time, not the client's; a body may be younger than the last sweep
                              */
            uint64_t ours = age < since_last_ms ? age : since_last_ms;

            c->phase_ms += ours;
            age -= ours;
        }
        return age > l->body_grace_ms && c->body_bytes < age * l->body_rate / 1000;
    case CONN_BUSY: return false;
    }
    return false;
}

void conn_cut(struct conn *c) {
    c->is_cut = true;
    shutdown(c->fd, SHUT_RDWR);
}

void conn_cut_idle(struct conn_list *list, size_t n) {
    for (size_t i = 0; i < n; i++) {
        struct conn *oldest = NULL;

        for (struct conn *c = list->first; c; c = c->next)
            if (!c->is_cut && !c->call && (!oldest || c->phase_ms < oldest->phase_ms))
                oldest = c;
        if (!oldest)
            return;
        conn_cut(oldest);
    }
}

void conn_watch(struct conn_list *list, void (*gone)(struct conn *c)) {
    size_t n = 0;
    _cleanup_(freep) struct pollfd *fds = list->n_waiting ? calloc(list->n_waiting, sizeof(*fds)) : NULL;
    _cleanup_(freep) struct conn **who = fds ? calloc(list->n_waiting, sizeof(struct conn *)) : NULL;

    if (!who)
        return;
    for (struct conn *c = list->first; c; c = c->next)
        if (c->is_waiting) {
            fds[n] = (struct pollfd){.fd = c->fd, .events = POLLRDHUP};
            who[n++] = c;
        }
    if (poll(fds, n, 0) <= 0)
        return;
    for (size_t i = 0; i < n; i++)
        if (fds[i].revents & (POLLRDHUP | POLLHUP | POLLERR))
            gone(who[i]);
}
