#include "api/listener.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/cleanup.h"

#define BACKLOG   1024
#define FIRST_FD  3
#define UNIX_MODE 0660

union address {
    struct sockaddr any;
    struct sockaddr_in v4;
    struct sockaddr_in6 v6;
    struct sockaddr_un un;
};

static int parse_port(const char *s, in_port_t *ret) {
    char *end;
    unsigned long port = strtoul(s, &end, 10);

    if (!*s || *end || *s < '0' || *s > '9' || port > 65535)
        return -EINVAL;
    *ret = htons((in_port_t)port);
    return 0;
}

static int parse_inet(const char *spec, union address *a, socklen_t *len) {
    const char *colon = strrchr(spec, ':');
    char host[INET6_ADDRSTRLEN + 2];
    size_t n = colon ? (size_t)(colon - spec) : 0;

    if (!n || n >= sizeof(host))
        return -EINVAL;
    memcpy(host, spec, n);
    host[n] = 0;
    if (!strcmp(host, "localhost"))
        memcpy(host, "127.0.0.1", 10);
    if (host[0] == '[' && host[n - 1] == ']') {
        host[n - 1] = 0;
        a->v6.sin6_family = AF_INET6;
        *len = sizeof(a->v6);
        return inet_pton(AF_INET6, host + 1, &a->v6.sin6_addr) == 1 ? parse_port(colon + 1, &a->v6.sin6_port)
                                                                    : -EINVAL;
    }
    a->v4.sin_family = AF_INET;
    *len = sizeof(a->v4);
    return inet_pton(AF_INET, host, &a->v4.sin_addr) == 1 ? parse_port(colon + 1, &a->v4.sin_port) : -EINVAL;
}

/* Removes the socket file of a process that is gone; one that still answers stays, and bind() fails. */
static void remove_stale(const union address *a) {
    _cleanup_(closep) int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    struct stat st;

    if (fd < 0 || lstat(a->un.sun_path, &st) || !S_ISSOCK(st.st_mode))
        return;
    if (connect(fd, &a->any, sizeof(a->un)) && errno == ECONNREFUSED)
        unlink(a->un.sun_path);
}

static int open_unix(const char *path, struct listener *l, struct error *err) {
    union address a = {.un = {.sun_family = AF_UNIX}};
    mode_t old;
    int rc;

    if (!*path || strlen(path) >= sizeof(a.un.sun_path))
        return error_set(
            err, -EINVAL, "listen: the path of a Unix socket has 1 to %zu bytes", sizeof(a.un.sun_path) - 1);
    memcpy(a.un.sun_path, path, strlen(path) + 1);
    remove_stale(&a);
    l->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (l->fd < 0)
        return error_errno(err, "listen: socket");
    old = umask(0777 & ~UNIX_MODE);
    rc = bind(l->fd, &a.any, sizeof(a.un));
    umask(old);
    if (rc)
        return error_errno(err, "listen on the Unix socket");
    l->unlink_path = strdup(path);
    if (!l->unlink_path)
        return error_oom(err);
    return listen(l->fd, BACKLOG) ? error_errno(err, "listen on the Unix socket") : 0;
}

static int open_inet(const char *spec, struct listener *l, struct error *err) {
    union address a = {0};
    socklen_t len = 0;
    int one = 1;

    if (parse_inet(spec, &a, &len))
        return error_set(err, -EINVAL, "listen: '%s' is not ADDR:PORT, [V6]:PORT or unix:PATH", spec);
    l->fd = socket(a.any.sa_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (l->fd < 0 || setsockopt(l->fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one)))
        return error_errno(err, "listen: socket");
    if (a.any.sa_family == AF_INET6)
        setsockopt(l->fd, IPPROTO_IPV6, IPV6_V6ONLY, &one, sizeof(one));
    if (bind(l->fd, &a.any, len) || listen(l->fd, BACKLOG))
        return error_errno(err, "listen on %s", spec);
    return 0;
}

static bool is_loopback_address(const union address *a) {
    if (a->any.sa_family == AF_INET)
        return (ntohl(a->v4.sin_addr.s_addr) >> 24) == 127;
    return a->any.sa_family == AF_INET6 && IN6_IS_ADDR_LOOPBACK(&a->v6.sin6_addr);
}

/* Fills what follows from the bound address. */
static int describe(struct listener *l, bool is_tls, struct error *err) {
    union address a = {0};
    socklen_t len = sizeof(a);
    char host[INET6_ADDRSTRLEN];

    if (getsockname(l->fd, &a.any, &len))
        return error_errno(err, "listen: getsockname");
    l->is_unix = a.any.sa_family == AF_UNIX;
    l->is_loopback = is_loopback_address(&a);
    if (a.any.sa_family == AF_INET)
        snprintf(l->url, sizeof(l->url), "http%s://%s:%u", is_tls ? "s" : "",
            inet_ntop(AF_INET, &a.v4.sin_addr, host, sizeof(host)), ntohs(a.v4.sin_port));
    else if (a.any.sa_family == AF_INET6)
        snprintf(l->url, sizeof(l->url), "http%s://[%s]:%u", is_tls ? "s" : "",
            inet_ntop(AF_INET6, &a.v6.sin6_addr, host, sizeof(host)), ntohs(a.v6.sin6_port));
    else if (l->is_unix)
        snprintf(l->url, sizeof(l->url), "unix:%.*s", (int)sizeof(a.un.sun_path), a.un.sun_path);
    else
        return error_set(err, -EAFNOSUPPORT, "listen: an inherited socket is neither IP nor Unix");
    return 0;
}

int listener_open(const char *spec, bool is_tls, struct listener *ret, struct error *err) {
    struct listener l = {.fd = -1};
    int rc = strncmp(spec, "unix:", 5) ? open_inet(spec, &l, err) : open_unix(spec + 5, &l, err);

    if (!rc)
        rc = describe(&l, is_tls, err);
    if (rc) {
        listener_done(&l);
        return rc;
    }
    *ret = l;
    return 0;
}

int listener_adopt(int fd, bool is_tls, struct listener *ret, struct error *err) {
    struct listener l = {.fd = fd};
    int one = 0;
    socklen_t len = sizeof(one);
    int rc = 0;

    if (getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &one, &len) || !one)
        rc = error_set(err, -EINVAL, "descriptor %d is not a listening socket", fd);
    else if (fcntl(fd, F_SETFD, FD_CLOEXEC) || fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK))
        rc = error_errno(err, "listen: fcntl");
    if (!rc)
        rc = describe(&l, is_tls, err);
    if (rc) {
        listener_done(&l);
        return rc;
    }
    *ret = l;
    return 0;
}

void listener_done(struct listener *l) {
    if (l->fd >= 0)
        close(l->fd);
    if (l->unlink_path)
        unlink(l->unlink_path);
    free(l->unlink_path);
    *l = (struct listener){.fd = -1};
}

int listener_inherited(void) {
    const char *pid = getenv("LISTEN_PID");
    const char *fds = getenv("LISTEN_FDS");
    long n = 0;

    if (pid && fds && strtol(pid, NULL, 10) == getpid())
        n = strtol(fds, NULL, 10);
    unsetenv("LISTEN_PID");
    unsetenv("LISTEN_FDS");
    unsetenv("LISTEN_FDNAMES");
    return n > 0 && n <= 64 ? (int)n : 0;
}
