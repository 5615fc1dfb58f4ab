/* Small messages built by hand, right and wrong ones. */
#ifndef TESTS_UNIT_PROTO_H
#define TESTS_UNIT_PROTO_H

#include <string.h>

#include "base/buf.h"

/* A message of at most 64 MiB; initialise with PROTO. */
#define PROTO ((struct buf){.max = (size_t)64 << 20})

static inline void proto_varint(struct buf *b, uint64_t v) {
    for (; v >= 0x80; v >>= 7)
        buf_append(b, &(uint8_t){(uint8_t)(v | 0x80)}, 1);
    buf_append(b, &(uint8_t){(uint8_t)v}, 1);
}

static inline void proto_int(struct buf *b, unsigned field, uint64_t v) {
    proto_varint(b, (uint64_t)field << 3);
    proto_varint(b, v);
}

static inline void proto_bytes(struct buf *b, unsigned field, const void *data, size_t size) {
    proto_varint(b, (uint64_t)field << 3 | 2);
    proto_varint(b, size);
    buf_append(b, data, size);
}

static inline void proto_string(struct buf *b, unsigned field, const char *s) {
    proto_bytes(b, field, s, strlen(s));
}

/* Puts `inner` as a field and frees it. */
static inline void proto_message(struct buf *b, unsigned field, struct buf *inner) {
    proto_bytes(b, field, inner->data ? inner->data : "", inner->size);
    buf_done(inner);
}

/* A node with one input and one output; "" for none. */
static inline struct buf proto_node(const char *op, const char *name, const char *in, const char *out) {
    struct buf n = PROTO;

    if (*in)
        proto_string(&n, 1, in);
    if (*out)
        proto_string(&n, 2, out);
    proto_string(&n, 3, name);
    proto_string(&n, 4, op);
    return n;
}

/* A float value of shape [2,3]. */
static inline struct buf proto_value(const char *name) {
    struct buf v = PROTO, type = PROTO, tensor = PROTO, shape = PROTO;

    for (uint64_t d = 2; d <= 3; d++) {
        struct buf dim = PROTO;

        proto_int(&dim, 1, d);
        proto_message(&shape, 1, &dim);
    }
    proto_int(&tensor, 1, 1);
    proto_message(&tensor, 2, &shape);
    proto_message(&type, 1, &tensor);
    proto_string(&v, 1, name);
    proto_message(&v, 2, &type);
    return v;
}

/* A model of IR 8, opset 13 around a graph, which is freed. Input "x" and output "y" are put in. */
static inline struct buf proto_model(struct buf *graph) {
    struct buf m = PROTO, opset = PROTO, x = proto_value("x"), y = proto_value("y");

    proto_message(graph, 11, &x);
    proto_message(graph, 12, &y);
    proto_string(graph, 2, "g");
    proto_string(&opset, 1, "");
    proto_int(&opset, 2, 13);
    proto_int(&m, 1, 8);
    proto_message(&m, 7, graph);
    proto_message(&m, 8, &opset);
    return m;
}

#endif
