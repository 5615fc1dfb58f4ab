/* The body of an endless reply (SSE, NDJSON): a bounded byte queue between whoever has news and one client.
 * Counted: the reply holds one reference, the producer another. Safe from any thread. */
#ifndef API_STREAM_H
#define API_STREAM_H

#include <stdbool.h>
#include <stddef.h>

struct stream;

/* `max` bytes may wait unread. `heartbeat` (static, may be NULL) is written by the server after 15 s of
 * silence. */
struct stream *stream_new(size_t max, const char *heartbeat);
struct stream *stream_ref(struct stream *s);
struct stream *stream_unref(struct stream *s);

/* 0; -EPIPE: the client has gone, or the stream was ended; -ENOBUFS: the client is too slow: the write was
 * dropped whole (say so with a reset event when there is room, or end the stream). */
int stream_write(struct stream *s, const void *data, size_t size);
int stream_printf(struct stream *s, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* What waits is still sent, then the reply ends. */
void stream_end(struct stream *s);
bool stream_is_closed(struct stream *s);

/* Called on the loop, once, when the client has gone or all was sent after stream_end(): the producer
 * unsubscribes and drops its reference here. */
void stream_on_close(struct stream *s, void (*fn)(void *ctx), void *ctx);

/* For the server. `wake` is called, from any thread, when an empty stream got something or ended. */
void stream_attach(struct stream *s, void (*wake)(void *ctx), void *ctx);
void stream_detach(struct stream *s); /* client gone or done: closes, calls on_close */
/* Bytes taken, 0: nothing now, -1: ended and empty. */
long stream_read(struct stream *s, char *ret, size_t max);
/* Called about once a second with CLOCK_MONOTONIC milliseconds. */
void stream_tick(struct stream *s, unsigned long long now_ms);

#endif
