#include "engine/wire.h"

#include <errno.h>
#include <string.h>

void wire_init(struct wire *w, const void *data, size_t size) {
    reader_init(&w->in, data, size);
    w->code = "bad_request";
}

static int fail(const struct wire *w, size_t offset, struct error *err, const char *what) {
    return error_code(err, strcmp(w->code, "bad_request") == 0 ? -EINVAL : -EBADMSG, w->code,
        "not protobuf: byte %zu: %s", offset, what);
}

static int read_payload(struct wire *w, struct wire_field *f, struct error *err) {
    uint32_t v32;
    uint64_t size;

    switch (f->type) {
    case WIRE_VARINT:
        return reader_varint(&w->in, &f->value) ? 0
                                                : fail(w, f->offset, err, "a number is cut off or too long");
    case WIRE_FIXED64:
        return reader_u64le(&w->in, &f->value) ? 0 : fail(w, f->offset, err, "a number is cut off");
    case WIRE_FIXED32:
        if (!reader_u32le(&w->in, &v32))
            return fail(w, f->offset, err, "a number is cut off");
        f->value = v32;
        return 0;
    case WIRE_BYTES:
        if (!reader_varint(&w->in, &size))
            return fail(w, f->offset, err, "a length is cut off or too long");
        if (size > reader_left(&w->in))
            return error_code(err, strcmp(w->code, "bad_request") == 0 ? -EINVAL : -EBADMSG, w->code,
                "not protobuf: byte %zu: field %u claims %llu bytes, %zu are left", f->offset, f->number,
                (unsigned long long)size, reader_left(&w->in));
        reader_bytes(&w->in, (size_t)size, &f->bytes.data);
        f->bytes.size = (size_t)size;
        return 0;
    default: return fail(w, f->offset, err, "unknown wire type");
    }
}

int wire_next(struct wire *w, struct wire_field *ret, struct error *err) {
    struct wire_field f = {.offset = reader_offset(&w->in), .whole.data = w->in.pos};
    uint64_t tag;
    int r;

    if (reader_left(&w->in) == 0)
        return 0;
    if (!reader_varint(&w->in, &tag))
        return fail(w, f.offset, err, "a tag is cut off or too long");
    if (tag >> 3 == 0 || tag >> 32)
        return fail(w, f.offset, err, "a tag has no valid field number");
    f.number = (uint32_t)(tag >> 3);
    f.type = (enum wire_type)(tag & 7);
    r = read_payload(w, &f, err);
    if (r < 0)
        return r;
    f.whole.size = (size_t)(w->in.pos - f.whole.data);
    *ret = f;
    return 1;
}

static int expect(const struct wire *w, const struct wire_field *f, enum wire_type type, struct error *err) {
    return f->type == type ? 0 : fail(w, f->offset, err, "a field is of the wrong wire type");
}

int wire_enter(struct wire *w, const struct wire *outer, const struct wire_field *f, struct error *err) {
    int r = expect(outer, f, WIRE_BYTES, err);

    if (r < 0)
        return r;
    w->in.start = outer->in.start;
    w->in.pos = f->bytes.data;
    w->in.end = f->bytes.data + f->bytes.size;
    w->code = "invalid_model";
    return 0;
}

int wire_get_int(const struct wire *w, const struct wire_field *f, int64_t *ret, struct error *err) {
    int r = expect(w, f, WIRE_VARINT, err);

    if (r == 0)
        *ret = (int64_t)f->value;
    return r;
}

static float float_of_bits(uint64_t bits) {
    uint32_t v = (uint32_t)bits;
    float f;

    memcpy(&f, &v, sizeof(f));
    return f;
}

int wire_get_float(const struct wire *w, const struct wire_field *f, float *ret, struct error *err) {
    int r = expect(w, f, WIRE_FIXED32, err);

    if (r == 0)
        *ret = float_of_bits(f->value);
    return r;
}

int wire_get_bytes(const struct wire *w, const struct wire_field *f, struct bytes *ret, struct error *err) {
    int r = expect(w, f, WIRE_BYTES, err);

    if (r == 0)
        *ret = f->bytes;
    return r;
}

static bool read_element(struct reader *in, enum wire_type element, uint64_t *ret) {
    uint32_t v32;

    if (element == WIRE_VARINT)
        return reader_varint(in, ret);
    if (element == WIRE_FIXED64)
        return reader_u64le(in, ret);
    if (!reader_u32le(in, &v32))
        return false;
    *ret = v32;
    return true;
}

int wire_each_number(const struct wire *w, const struct wire_field *f, enum wire_type element,
    wire_each *each, void *arg, struct error *err) {
    struct wire packed;
    uint64_t v;
    int r = 0;

    if (f->type == element)
        return each(arg, f->value, err);
    r = wire_enter(&packed, w, f, err);
    while (r == 0 && reader_left(&packed.in) > 0) {
        if (!read_element(&packed.in, element, &v))
            return fail(&packed, reader_offset(&packed.in), err, "a packed number is cut off or too long");
        r = each(arg, v, err);
    }
    return r;
}
