/* Protobuf's wire format: a cursor over the fields of one message. Knows nothing of ONNX. */
#ifndef ENGINE_WIRE_H
#define ENGINE_WIRE_H

#include "base/error.h"
#include "base/reader.h"
#include "engine/graph.h"

enum wire_type { WIRE_VARINT = 0, WIRE_FIXED64 = 1, WIRE_BYTES = 2, WIRE_FIXED32 = 5 };

struct wire {
    struct reader in; /* `start` is the file's, so that offsets in messages are the file's */
    const char *code; /* of errors: "bad_request" in the outermost message, "invalid_model" inside */
};

struct wire_field {
    uint32_t number;
    enum wire_type type;
    uint64_t value;     /* varint, fixed32, fixed64 */
    struct bytes bytes; /* WIRE_BYTES */
    struct bytes whole; /* tag and all */
    size_t offset;      /* of the tag in the file */
};

void wire_init(struct wire *w, const void *data, size_t size);

/* The message inside `f`, or an error when `f` holds none. */
int wire_enter(struct wire *w, const struct wire *outer, const struct wire_field *f, struct error *err);

/* 1: *ret is the next field; 0: end of the message; negative errno. */
int wire_next(struct wire *w, struct wire_field *ret, struct error *err);

/* The field as the schema has it, or an error. */
int wire_get_int(const struct wire *w, const struct wire_field *f, int64_t *ret, struct error *err);
int wire_get_float(const struct wire *w, const struct wire_field *f, float *ret, struct error *err);
int wire_get_bytes(const struct wire *w, const struct wire_field *f, struct bytes *ret, struct error *err);

/* Repeated numbers, packed or one a field: calls `each` for every element (value of varint, fixed32 or
 * fixed64 as `element` says). `each` returns 0 or a negative errno with err set. */
typedef int wire_each(void *arg, uint64_t value, struct error *err);
int wire_each_number(const struct wire *w, const struct wire_field *f, enum wire_type element,
    wire_each *each, void *arg, struct error *err);

#endif
