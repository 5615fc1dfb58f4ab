#include "engine/wire_sink.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"

int wire_sink_init(struct wire_sink *s, int fd) {
    *s = (struct wire_sink){.fd = fd};
    if (fd >= 0) {
        s->buf = malloc(WIRE_SINK_BUFFER);
        if (!s->buf)
            return -ENOMEM;
    }
    return 0;
}

void wire_sink_done(struct wire_sink *s) {
    free(s->buf);
    s->buf = NULL;
}

static void write_all(struct wire_sink *s, const uint8_t *p, size_t size) {
    while (size && !s->err) {
        ssize_t n = write(s->fd, p, size);

        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0) {
            s->err = n < 0 ? -errno : -EIO;
            return;
        }
        p += n;
        size -= (size_t)n;
    }
}

int wire_sink_flush(struct wire_sink *s) {
    if (s->fd >= 0)
        write_all(s, s->buf, s->n_buf);
    s->n_buf = 0;
    return s->err;
}

void wire_put_raw(struct wire_sink *s, const void *data, size_t size) {
    if (s->err)
        return;
    if (__builtin_add_overflow(s->size, size, &s->size)) {
        s->err = -EFBIG;
        return;
    }
    if (s->fd < 0 || size == 0)
        return;
    if (size > WIRE_SINK_BUFFER - s->n_buf)
        wire_sink_flush(s);
    if (size > WIRE_SINK_BUFFER) {
        write_all(s, data, size);
        return;
    }
    memcpy(s->buf + s->n_buf, data, size);
    s->n_buf += size;
}

static void put_varint(struct wire_sink *s, uint64_t v) {
    uint8_t bytes[10];
    size_t n = 0;

    for (; v >= 0x80; v >>= 7)
        bytes[n++] = (uint8_t)(v | 0x80);
    bytes[n++] = (uint8_t)v;
    wire_put_raw(s, bytes, n);
}

static void put_tag(struct wire_sink *s, uint32_t field, enum wire_type type) {
    put_varint(s, (uint64_t)field << 3 | (uint64_t)type);
}

void wire_put_int(struct wire_sink *s, uint32_t field, int64_t v) {
    put_tag(s, field, WIRE_VARINT);
    put_varint(s, (uint64_t)v);
}

void wire_put_float(struct wire_sink *s, uint32_t field, float v) {
    put_tag(s, field, WIRE_FIXED32);
    wire_put_raw(s, &v, sizeof(v));
}

void wire_put_bytes(struct wire_sink *s, uint32_t field, const void *data, size_t size) {
    put_tag(s, field, WIRE_BYTES);
    put_varint(s, size);
    wire_put_raw(s, data, size);
}

void wire_put_string(struct wire_sink *s, uint32_t field, const char *v) {
    wire_put_bytes(s, field, v, strlen(v));
}

void wire_put_strings(struct wire_sink *s, uint32_t field, const char *a, const char *b) {
    put_tag(s, field, WIRE_BYTES);
    put_varint(s, strlen(a) + strlen(b));
    wire_put_raw(s, a, strlen(a));
    wire_put_raw(s, b, strlen(b));
}

void wire_put_message(struct wire_sink *s, uint32_t field, wire_put *put, const void *arg) {
    struct wire_sink count = {.fd = -1};

    if (s->err)
        return;
    put(&count, arg);
    if (count.err) {
        s->err = count.err;
        return;
    }
    put_tag(s, field, WIRE_BYTES);
    put_varint(s, count.size);
    if (s->fd < 0)
        s->size += count.size; /* counting: no need to walk again */
    else
        put(s, arg);
}
