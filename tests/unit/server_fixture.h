/* A server over real sockets, with routes of the tests instead of the daemon's: `route_files` here is found
 * before the library's. Its loop runs in a thread of its own, the tests are the clients. */
#ifndef TESTS_UNIT_SERVER_FIXTURE_H
#define TESTS_UNIT_SERVER_FIXTURE_H

#include "tests/unit/cmocka_all.h"

#include <pthread.h>
#include <stdbool.h>
#include <string.h>
#include <unistd.h>

#include "api/api.h"
#include "api/auth.h"
#include "api/route.h"
#include "api/server.h"
#include "api/stream.h"

/* sha256 of the token "secret" */
#define DIGEST "2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b"
#define TOKEN  "secret"

struct fixture {
    struct api api;
    uv_loop_t loop;
    uv_async_t stop;
    struct auth *auth;
    struct server *server;
    pthread_t thread;
    char dir[32];
    char unix_spec[64];
    unsigned port;
    unsigned drain_ms; /* how long stop() lets requests end; 5 s unless a test says less */
};

extern atomic_int n_gone;                    /* requests of /pending whose client left */
extern _Atomic(struct request *) pending;    /* the last one of /pending */
extern _Atomic(struct stream *) open_stream; /* the last one of /stream, a reference */

/* `tokens`: the text of a token file; NULL: none. */
void start(struct fixture *f, const char *tokens);
/* Drains; asserts that nothing is counted any more and that the folder is empty. */
void stop(struct fixture *f);
void end_server(struct fixture *f); /* the first half of it: asserts nothing of requests */

int dial(const struct fixture *f);
void send_all(int fd, const char *data, size_t size);
void send_text(int fd, const char *s);

/* Reads until `until` was seen, the end (*is_eof), or 3 s of silence. Returns bytes read. */
size_t read_until(int fd, char *buf, size_t size, const char *until, bool *is_eof);

/* One raw request on a connection of its own; the whole answer to its end. Status, 0: none. */
int raw(const struct fixture *f, const char *request, size_t size, char *answer, size_t max);

#define RAW(f, text, answer) raw(f, text, sizeof(text) - 1, answer, sizeof(answer))
#define END                  "Host: localhost\r\nConnection: close\r\n\r\n"

#endif
