/* Writing protobuf: to a descriptor through a small buffer, or only counting. A nested message is walked
 * twice, once to know its length: nothing big is ever copied. The first error stays; later calls do nothing.
 */
#ifndef ENGINE_WIRE_SINK_H
#define ENGINE_WIRE_SINK_H

#include "engine/wire.h"

#define WIRE_SINK_BUFFER ((size_t)64 << 10)

struct wire_sink {
    int fd;       /* -1: count only */
    uint8_t *buf; /* owned, WIRE_SINK_BUFFER; NULL when counting */
    size_t n_buf;
    size_t size; /* bytes put so far */
    int err;     /* negative errno of the first failure */
};

int wire_sink_init(struct wire_sink *s, int fd);
void wire_sink_done(struct wire_sink *s);

/* 0 or the first failure. */
int wire_sink_flush(struct wire_sink *s);

void wire_put_raw(struct wire_sink *s, const void *data, size_t size);
void wire_put_int(struct wire_sink *s, uint32_t field, int64_t v);
void wire_put_float(struct wire_sink *s, uint32_t field, float v);
void wire_put_bytes(struct wire_sink *s, uint32_t field, const void *data, size_t size);
void wire_put_string(struct wire_sink *s, uint32_t field, const char *v);

/* One string of two parts. */
void wire_put_strings(struct wire_sink *s, uint32_t field, const char *a, const char *b);

typedef void wire_put(struct wire_sink *s, const void *arg);
void wire_put_message(struct wire_sink *s, uint32_t field, wire_put *put, const void *arg);

#endif
