/* The floor of a round trip on this machine: a server that does nothing. It waits with poll(), takes
 * a request whole, sends a constant reply with REPLY-SIZE bytes of body, on one connection after the other,
 * until its input ends. Prints its port. No HTTP is read: its only client is http_load.
 *
 *   bare_server REPLY-SIZE
 */
#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define REPLY_MAX 4096

static int listen_on_loopback(void) {
    struct sockaddr_in at = {.sin_family = AF_INET};
    socklen_t n = sizeof(at);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    at.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (fd < 0 || bind(fd, (struct sockaddr *)&at, n) || listen(fd, 1) ||
        getsockname(fd, (struct sockaddr *)&at, &n)) {
        perror("bare_server");
        exit(1);
    }
    printf("%d\n", ntohs(at.sin_port));
    fflush(stdout);
    return fd;
}

/* A request's size, once its head is there: nothing else is looked at. */
static size_t request_size(const char *got) {
    const char *end = strstr(got, "\r\n\r\n"), *length = strstr(got, "\r\nContent-Length: ");

    return end && length ? (size_t)(end + 4 - got) + strtoul(length + 18, NULL, 10) : 0;
}

static void serve(int fd, const char *reply, size_t reply_size) {
    static char got[1 << 20];
    size_t n = 0, want;

    for (;;) {
        struct pollfd p[2] = {{.fd = fd, .events = POLLIN}, {.fd = STDIN_FILENO, .events = POLLIN}};
        ssize_t r;

        if (poll(p, 2, -1) < 0 || !p[0].revents)
            return;
        r = recv(fd, got + n, sizeof(got) - 1 - n, 0);
        if (r <= 0)
            return;
        n += (size_t)r;
        got[n] = 0; /* what is looked for stands before the body, so that a zero in that does not matter */
        want = request_size(got);
        if (!want || n < want)
            continue;
        n = 0;
        if (send(fd, reply, reply_size, MSG_NOSIGNAL) != (ssize_t)reply_size)
            return;
    }
}

int main(int argc, char **argv) {
    static char reply[REPLY_MAX + 256];
    size_t size = argc > 1 ? strtoul(argv[1], NULL, 10) : 0;
    int head = snprintf(reply, sizeof(reply), "HTTP/1.1 200 OK\r\nContent-Length: %zu\r\n\r\n", size);
    int listener, one = 1;

    if (size < 1 || size > REPLY_MAX) {
        fprintf(stderr, "usage: bare_server REPLY-SIZE (1 to %d)\n", REPLY_MAX);
        return 2;
    }
    listener = listen_on_loopback();
    for (;;) {
        struct pollfd p[2] = {{.fd = listener, .events = POLLIN}, {.fd = STDIN_FILENO, .events = POLLIN}};
        int fd;

        if (poll(p, 2, -1) < 0 || p[1].revents)
            return 0;
        fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
        if (fd < 0)
            continue;
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
        serve(fd, reply, (size_t)head + size);
        close(fd);
    }
}
