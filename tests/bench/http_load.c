/* A bounded HTTP client for benchmarks: every connection sends the same POST, waits for the whole reply,
 * sends again; at once (a closed loop), or when the next arrival of a Poisson process is due (an open loop,
 * in which a request that finds all connections busy waits and its latency with it). One thread, loopback
 * only.
 *
 *   http_load PORT PATH CONTENT-TYPE BODY-FILE CONNECTIONS [HEADER: VALUE]
 *
 * Speaks the protocol of interleave.mjs: prints "ready", then answers each line "N" on its input with the
 * wall microseconds per request over N requests, the median latency of one, and the median of what of that
 * latency is not the server's own `infer` of Server-Timing (-1 without that header). "N RATE" is N requests
 * at so many a second, answered with the same and the 99th percentile.
 */
#include <arpa/inet.h>
#include <math.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/clock.h"

#define MAX_CONNECTIONS 64
#define MAX_REQUESTS    1000000
#define REPLY_CAP       (1u << 20)
#define PATIENCE_MS     10000

struct load_conn {
    int fd;
    double sent_us;
    size_t got;
    char *reply;
};

struct load {
    char *request;
    size_t request_size;
    int port;
    unsigned n_conns;
    struct load_conn conn[MAX_CONNECTIONS];
    double *latency, *added; /* MAX_REQUESTS each */
    size_t n_done;
    double rate, due_us; /* of arrivals; 0: as soon as a connection is free */
    uint64_t chance;
};

__attribute__((noreturn)) static void die(const char *what) {
    fprintf(stderr, "http_load: %s\n", what);
    exit(1);
}

static char *read_file(const char *path, size_t *size) {
    FILE *f = fopen(path, "rbe");
    char *data = malloc(16u << 20);

    if (!f || !data)
        die("cannot read the body");
    *size = fread(data, 1, 16u << 20, f);
    fclose(f);
    return data;
}

static void make_request(struct load *l, char **argv, const char *extra) {
    size_t body_size = 0;
    char *body = read_file(argv[4], &body_size);
    int head;

    l->request = malloc(body_size + 4096);
    if (!l->request)
        die("no memory");
    head = snprintf(l->request, 4096,
        "POST %s HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nContent-Type: %s\r\nContent-Length: %zu\r\n%s%s\r\n",
        argv[2], l->port, argv[3], body_size, extra ? extra : "", extra ? "\r\n" : "");
    if (head < 0 || head >= 4096)
        die("the request's head is too long");
    memcpy(l->request + head, body, body_size);
    l->request_size = (size_t)head + body_size;
    free(body);
}

static int open_connection(int port) {
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    int one = 1, fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (fd < 0 || connect(fd, (struct sockaddr *)&to, sizeof(to)))
        die("cannot connect");
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
    return fd;
}

static void send_request(struct load *l, struct load_conn *c) {
    size_t sent = 0;

    c->got = 0;
    c->sent_us = l->rate > 0 ? l->due_us : clock_now_us();
    while (sent < l->request_size) {
        ssize_t n = send(c->fd, l->request + sent, l->request_size - sent, MSG_NOSIGNAL);

        if (n <= 0)
            die("the server closed the connection");
        sent += (size_t)n;
    }
}

/* The value of a header of the reply, or NULL. */
static const char *find_header(const char *reply, const char *end, const char *name) {
    size_t n = strlen(name);

    for (const char *p = strstr(reply, "\r\n"); p && p < end; p = strstr(p + 2, "\r\n"))
        if (!strncasecmp(p + 2, name, n))
            return p + 2 + n;
    return NULL;
}

/* Has all of the reply come? Then it is counted. */
static int take_reply(struct load *l, struct load_conn *c) {
    const char *end, *length, *timing, *infer;
    double us;

    c->reply[c->got] = 0;
    end = strstr(c->reply, "\r\n\r\n");
    if (!end)
        return 0;
    length = find_header(c->reply, end, "content-length:");
    if (!length)
        die("a reply without Content-Length");
    if (c->got < (size_t)(end + 4 - c->reply) + strtoull(length, NULL, 10))
        return 0;
    if (strncmp(c->reply, "HTTP/1.1 200", 12) != 0)
        die(c->reply);
    us = clock_now_us() - c->sent_us;
    timing = find_header(c->reply, end, "server-timing:");
    infer = timing ? strstr(timing, "infer;dur=") : NULL;
    l->latency[l->n_done] = us;
    l->added[l->n_done] = infer ? us - strtod(infer + 10, NULL) * 1e3 : -1;
    l->n_done++;
    return 1;
}

static int compare(const void *a, const void *b) {
    const double *x = a, *y = b;

    return (*x > *y) - (*x < *y);
}

static double median(double *v, size_t n) {
    qsort(v, n, sizeof(*v), compare);
    return v[n / 2];
}

/* Until the next arrival of an open loop: exponential, by a generator of its own (splitmix64). */
static double next_gap_us(struct load *l) {
    uint64_t x = l->chance += 0x9e3779b97f4a7c15u;

    x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9u;
    x = (x ^ x >> 27) * 0x94d049bb133111ebu;
    x ^= x >> 31;
    return -log(((double)(x >> 11) + 0.5) / 9007199254740992.0) * 1e6 / l->rate;
}

/* Sends on idle connections (fd -1) what is due. */
static void send_due(struct load *l, struct pollfd *p, size_t *n_sent, size_t n) {
    for (unsigned i = 0; i < l->n_conns && *n_sent < n; i++) {
        if (p[i].fd >= 0)
            continue;
        if (l->rate > 0 && l->due_us > clock_now_us())
            return;
        send_request(l, &l->conn[i]);
        p[i].fd = l->conn[i].fd;
        ++*n_sent;
        if (l->rate > 0)
            l->due_us += next_gap_us(l);
    }
}

/* Until a reply comes or the next request is due. */
static void wait_for_reply(const struct load *l, struct pollfd *p, bool has_next) {
    bool is_idle = false;
    double us = PATIENCE_MS * 1e3;
    struct timespec wait;
    int r;

    for (unsigned i = 0; i < l->n_conns; i++)
        is_idle = is_idle || p[i].fd < 0;
    if (l->rate > 0 && has_next && is_idle)
        us = fmax(0, l->due_us - clock_now_us());
    wait = (struct timespec){(time_t)(us / 1e6), (long)(fmod(us, 1e6) * 1e3)};
    r = ppoll(p, l->n_conns, &wait, NULL);
    if (r < 0 || (r == 0 && us >= PATIENCE_MS * 1e3))
        die("no reply");
}

static void run(struct load *l, size_t n) {
    struct pollfd p[MAX_CONNECTIONS];
    size_t n_sent = 0;
    double begin = clock_now_us(), wall, p50;

    l->n_done = 0;
    l->due_us = begin;
    for (unsigned i = 0; i < l->n_conns; i++)
        p[i] = (struct pollfd){.fd = -1, .events = POLLIN};
    while (l->n_done < n) {
        send_due(l, p, &n_sent, n);
        wait_for_reply(l, p, n_sent < n);
        for (unsigned i = 0; i < l->n_conns; i++) {
            struct load_conn *c = &l->conn[i];
            ssize_t got;

            if (p[i].fd < 0 || !p[i].revents)
                continue;
            got = recv(c->fd, c->reply + c->got, REPLY_CAP - c->got, 0);
            if (got <= 0)
                die("the server closed the connection");
            c->got += (size_t)got;
            if (take_reply(l, c))
                p[i].fd = -1;
        }
    }
    wall = clock_now_us() - begin;
    p50 = median(l->latency, n); /* sorts them */
    printf("%.2f %.2f %.2f", wall / (double)n, p50, median(l->added, n));
    if (l->rate > 0)
        printf(" %.2f", l->latency[n * 99 / 100]);
    printf("\n");
    fflush(stdout);
}

int main(int argc, char **argv) {
    static struct load l;
    char line[64];

    if (argc < 6)
        die("usage: http_load PORT PATH CONTENT-TYPE BODY-FILE CONNECTIONS [HEADER: VALUE]");
    l.port = atoi(argv[1]);
    l.n_conns = (unsigned)atoi(argv[5]);
    if (l.n_conns < 1 || l.n_conns > MAX_CONNECTIONS)
        die("1 to 64 connections");
    make_request(&l, argv, argc > 6 ? argv[6] : NULL);
    l.latency = malloc(MAX_REQUESTS * sizeof(*l.latency));
    l.added = malloc(MAX_REQUESTS * sizeof(*l.added));
    if (!l.latency || !l.added)
        die("no memory");
    for (unsigned i = 0; i < l.n_conns; i++) {
        l.conn[i].fd = open_connection(l.port);
        l.conn[i].reply = malloc(REPLY_CAP + 1);
        if (!l.conn[i].reply)
            die("no memory");
    }
    printf("ready\n");
    fflush(stdout);
    while (fgets(line, sizeof(line), stdin)) {
        char *rest;
        size_t n = strtoull(line, &rest, 10);

        if (n < 1 || n > MAX_REQUESTS)
            die("1 to 1000000 requests");
        l.rate = strtod(rest, NULL);
        run(&l, n);
    }
    return 0;
}
