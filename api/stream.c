#include "api/stream.h"

#include <errno.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"

#define HEARTBEAT_MS 15000

struct stream {
    atomic_uint refs;
    size_t max;
    const char *heartbeat;
    pthread_mutex_t lock; /* protects all below */
    char *data;           /* a ring of `max` bytes */
    size_t start, size;
    bool is_ended, is_closed;
    unsigned long long last_ms; /* of the last write seen by a tick */
    bool has_written;
    void (*wake)(void *ctx);
    void *wake_ctx;
    void (*on_close)(void *ctx);
    void *close_ctx;
};

struct stream *stream_new(size_t max, const char *heartbeat) {
    struct stream *s = calloc(1, sizeof(*s));

    if (!s)
        return NULL;
    s->data = malloc(max);
    if (!s->data) {
        free(s);
        return NULL;
    }
    atomic_init(&s->refs, 1);
    s->max = max;
    s->heartbeat = heartbeat;
    pthread_mutex_init(&s->lock, NULL);
    return s;
}

struct stream *stream_ref(struct stream *s) {
    atomic_fetch_add(&s->refs, 1);
    return s;
}

struct stream *stream_unref(struct stream *s) {
    if (!s || atomic_fetch_sub(&s->refs, 1) != 1)
        return NULL;
    pthread_mutex_destroy(&s->lock);
    free(s->data);
    free(s);
    return NULL;
}

static void ring_put(struct stream *s, const char *data, size_t size) {
    size_t end = (s->start + s->size) % s->max;
    size_t n = size < s->max - end ? size : s->max - end;

    memcpy(s->data + end, data, n);
    memcpy(s->data, data + n, size - n);
    s->size += size;
}

int stream_write(struct stream *s, const void *data, size_t size) {
    void (*wake)(void *) = NULL;
    void *ctx = NULL;
    int rc = 0;

    pthread_mutex_lock(&s->lock);
    if (s->is_closed || s->is_ended)
        rc = -EPIPE;
    else if (size > s->max - s->size)
        rc = -ENOBUFS;
    if (!rc && size) {
        if (!s->size) {
            wake = s->wake;
            ctx = s->wake_ctx;
        }
        ring_put(s, data, size);
        s->has_written = true;
        /* under the lock: stream_detach() after this call may not free what wake() touches */
        if (wake)
            wake(ctx);
    }
    pthread_mutex_unlock(&s->lock);
    return rc;
}

int stream_printf(struct stream *s, const char *fmt, ...) {
    _cleanup_(freep) char *text = NULL;
    va_list ap;
    int n;

    va_start(ap, fmt);
    n = vasprintf(&text, fmt, ap);
    va_end(ap);
    if (n < 0) {
        text = NULL;
        return -ENOMEM;
    }
    return stream_write(s, text, (size_t)n);
}

void stream_end(struct stream *s) {
    pthread_mutex_lock(&s->lock);
    if (!s->is_ended && !s->is_closed) {
        s->is_ended = true;
        if (s->wake)
            s->wake(s->wake_ctx);
    }
    pthread_mutex_unlock(&s->lock);
}

bool stream_is_closed(struct stream *s) {
    bool is_closed;

    pthread_mutex_lock(&s->lock);
    is_closed = s->is_closed;
    pthread_mutex_unlock(&s->lock);
    return is_closed;
}

void stream_on_close(struct stream *s, void (*fn)(void *ctx), void *ctx) {
    pthread_mutex_lock(&s->lock);
    s->on_close = fn;
    s->close_ctx = ctx;
    pthread_mutex_unlock(&s->lock);
}

void stream_attach(struct stream *s, void (*wake)(void *ctx), void *ctx) {
    pthread_mutex_lock(&s->lock);
    s->wake = wake;
    s->wake_ctx = ctx;
    pthread_mutex_unlock(&s->lock);
}

void stream_detach(struct stream *s) {
    void (*fn)(void *) = NULL;
    void *ctx = NULL;

    pthread_mutex_lock(&s->lock);
    s->wake = NULL;
    if (!s->is_closed) {
        s->is_closed = true;
        fn = s->on_close;
        ctx = s->close_ctx;
    }
    pthread_mutex_unlock(&s->lock);
    if (fn)
        fn(ctx);
}

long stream_read(struct stream *s, char *ret, size_t max) {
    size_t n, first;
    long rc;

    pthread_mutex_lock(&s->lock);
    n = s->size < max ? s->size : max;
    first = n < s->max - s->start ? n : s->max - s->start;
    memcpy(ret, s->data + s->start, first);
    memcpy(ret + first, s->data, n - first);
    s->start = (s->start + n) % s->max;
    s->size -= n;
    rc = n ? (long)n : s->is_ended ? -1 : 0;
    pthread_mutex_unlock(&s->lock);
    return rc;
}

void stream_tick(struct stream *s, unsigned long long now_ms) {
    bool is_due;

    pthread_mutex_lock(&s->lock);
    if (s->has_written || !s->last_ms)
        s->last_ms = now_ms;
    s->has_written = false;
    is_due = s->heartbeat && now_ms - s->last_ms >= HEARTBEAT_MS;
    pthread_mutex_unlock(&s->lock);
    if (is_due)
        stream_write(s, s->heartbeat, strlen(s->heartbeat));
}
