/* TensorProto: the elements are in raw_data, or in one of five typed fields, packed or not. */
#include <endian.h>
#include <errno.h>
#include <string.h>

#include "engine/onnx.h"
#include "engine/onnx_proto.h"
#include "engine/onnx_read.h"

_Static_assert(__BYTE_ORDER == __LITTLE_ENDIAN, "initialisers are used as they lie in the file");

struct typed_field {
    uint32_t number;
    enum wire_type element;
};

struct read_tensor {
    struct graph *g;
    const char *what, *name;
    struct shape shape;
    int64_t dtype;
    bool has_raw, is_external, has_segment;
    struct bytes raw;
    struct wire_field typed; /* the first typed field; later ones of the same number are walked again */
    size_t n_typed;          /* fields */
};

static int add_dim(void *arg, uint64_t value, struct error *err) {
    struct read_tensor *t = arg;

    if (t->shape.rank == SHAPE_MAX_RANK)
        return error_code(err, -EBADMSG, "invalid_model", "%s '%.100s': more than %d dimensions", t->what,
            t->name, SHAPE_MAX_RANK);
    if (value > INT64_MAX)
        return error_code(err, -EBADMSG, "invalid_model", "%s '%.100s': dimension %d is negative", t->what,
            t->name, t->shape.rank);
    t->shape.dim[t->shape.rank++] = (int64_t)value;
    return 0;
}

static int read_field(
    struct read_tensor *t, const struct wire *w, const struct wire_field *f, struct error *err) {
    int64_t location;
    int r;

    switch (f->number) {
    case T_DIMS: return wire_each_number(w, f, WIRE_VARINT, add_dim, t, err);
    case T_DATA_TYPE: return wire_get_int(w, f, &t->dtype, err);
    case T_RAW_DATA: t->has_raw = true; return wire_get_bytes(w, f, &t->raw, err);
    case T_SEGMENT: t->has_segment = true; return 0;
    case T_EXTERNAL_DATA: t->is_external = true; return 0;
    case T_DATA_LOCATION:
        r = wire_get_int(w, f, &location, err);
        t->is_external = t->is_external || (r == 0 && location != 0);
        return r;
    case T_FLOAT_DATA:
    case T_INT32_DATA:
    case T_INT64_DATA:
    case T_DOUBLE_DATA:
    case T_UINT64_DATA:
        if (t->n_typed && t->typed.number != f->number)
            return error_code(err, -EBADMSG, "invalid_model", "%s '%.100s': its elements are given twice",
                t->what, t->name);
        if (!t->n_typed)
            t->typed = *f;
        t->n_typed++;
        return 0;
    default: return 0;
    }
}

/* Which field holds the elements of a type, when raw_data does not (onnx.proto, TensorProto). */
static struct typed_field typed_field_of(enum dtype t) {
    static const struct {
        enum dtype dtype;
        struct typed_field field;
    } others[] = {
        {DT_F32, {T_FLOAT_DATA, WIRE_FIXED32}},
        {DT_S64, {T_INT64_DATA, WIRE_VARINT}},
        {DT_F64, {T_DOUBLE_DATA, WIRE_FIXED64}},
        {DT_U32, {T_UINT64_DATA, WIRE_VARINT}},
        {DT_U64, {T_UINT64_DATA, WIRE_VARINT}},
    };

    for (size_t i = 0; i < sizeof(others) / sizeof(others[0]); i++)
        if (others[i].dtype == t)
            return others[i].field;
    return (struct typed_field){T_INT32_DATA, WIRE_VARINT};
}

struct count {
    size_t n;
};

static int count_one(void *arg, uint64_t value, struct error *err) {
    struct count *c = arg;

    (void)value;
    (void)err;
    c->n++;
    return 0;
}

struct fill {
    uint8_t *to;
    size_t width; /* bytes of a stored element */
};

static int store_one(void *arg, uint64_t value, struct error *err) {
    struct fill *f = arg;

    (void)err;
    memcpy(f->to, &value, f->width); /* low bytes: little endian */
    f->to += f->width;
    return 0;
}

static int walk_typed(const struct read_tensor *t, struct wire w, struct typed_field field, wire_each *each,
    void *arg, struct error *err) {
    struct wire_field f;
    int r;

    while ((r = wire_next(&w, &f, err)) > 0) {
        if (f.number != t->typed.number)
            continue;
        r = wire_each_number(&w, &f, field.element, each, arg, err);
        if (r < 0)
            return r;
    }
    return r;
}

static int refuse_size(const struct read_tensor *t, size_t need, size_t have, struct error *err) {
    char text[SHAPE_TEXT_MAX];

    return error_code(err, -EBADMSG, "invalid_model",
        "%s '%.100s': shape %s needs %zu bytes, the file has %zu", t->what, t->name,
        shape_text(&t->shape, text), need, have);
}

/* `size` bytes of elements from the typed field. */
static int read_typed(
    const struct read_tensor *t, struct wire w, size_t size, const void **ret, struct error *err) {
    struct typed_field field = typed_field_of((enum dtype)t->dtype);
    const struct dtype_info *info = dtype_info((enum dtype)t->dtype);
    size_t width = info->bits < 8 ? 1 : info->bits / 8, have;
    struct count c = {0};
    struct fill fill = {.width = width};
    int r;

    if (t->n_typed && t->typed.number != field.number)
        return error_code(err, -EBADMSG, "invalid_model",
            "%s '%.100s': elements of type %s are not in the field of that type", t->what, t->name,
            info->name);
    if (t->n_typed == 1 && t->typed.type == WIRE_BYTES && field.element != WIRE_VARINT) {
        if (t->typed.bytes.size != size)
            return refuse_size(t, size, t->typed.bytes.size, err);
        *ret = t->typed.bytes.data;
        return 0;
    }
    r = t->n_typed ? walk_typed(t, w, field, count_one, &c, err) : 0;
    if (r < 0)
        return r;
    have = c.n * width;
    if (have != size)
        return refuse_size(t, size, have, err);
    fill.to = graph_alloc(t->g, size);
    if (!fill.to)
        return error_oom(err);
    *ret = fill.to;
    return t->n_typed ? walk_typed(t, w, field, store_one, &fill, err) : 0;
}

static int read_elements(const struct read_tensor *t, struct wire w, const void **ret, struct error *err) {
    char text[SHAPE_TEXT_MAX];
    size_t size;

    if (t->is_external)
        return error_code(
            err, -EBADMSG, "invalid_model", "%s '%.100s': external data is not accepted", t->what, t->name);
    if (t->has_segment)
        return error_code(err, -EBADMSG, "invalid_model", "%s '%.100s': segmented tensors are not supported",
            t->what, t->name);
    *ret = NULL;
    if (!dtype_info((enum dtype)t->dtype))
        return 0;
    if (!shape_bytes(&t->shape, (enum dtype)t->dtype, &size))
        return error_code(err, -EBADMSG, "invalid_model",
            "%s '%.100s': shape %s has more elements than can be counted", t->what, t->name,
            shape_text(&t->shape, text));
    if (!t->has_raw || (t->raw.size == 0 && t->n_typed))
        return read_typed(t, w, size, ret, err);
    if (t->n_typed)
        return error_code(
            err, -EBADMSG, "invalid_model", "%s '%.100s': its elements are given twice", t->what, t->name);
    if (t->raw.size != size)
        return refuse_size(t, size, t->raw.size, err);
    *ret = t->raw.data;
    return 0;
}

int onnx_read_tensor_proto(struct graph *g, struct wire w, const char *what, const char **ret_name,
    struct tensor *ret, struct error *err) {
    struct read_tensor t = {.g = g, .what = what, .name = ""};
    struct wire again = w;
    struct wire_field f;
    const void *data = NULL;
    int r;

    /* the name first: errors need it, and writers put it behind the dimensions */
    while ((r = wire_next(&again, &f, err)) > 0) {
        if (f.number != T_NAME)
            continue;
        r = onnx_read_name(g, &again, &f, &t.name, err);
        if (r < 0)
            return r;
    }
    again = w;
    while (r >= 0 && (r = wire_next(&again, &f, err)) > 0)
        r = read_field(&t, &again, &f, err);
    if (r == 0)
        r = read_elements(&t, w, &data, err);
    if (r < 0)
        return r;
    *ret = tensor_view((enum dtype)t.dtype, &t.shape, data);
    if (ret_name)
        *ret_name = t.name;
    return 0;
}

int onnx_read_tensor(struct graph *g, const void *data, size_t size, const char **ret_name,
    struct tensor *ret, struct error *err) {
    struct wire w;
    int r;

    wire_init(&w, data, size);
    r = onnx_read_tensor_proto(g, w, "tensor", ret_name, ret, err);
    if (r == 0 && !ret->data)
        return error_code(err, -EBADMSG, "invalid_model",
            "tensor '%.100s': elements of type %d are not supported", ret_name ? *ret_name : "",
            (int)ret->dtype);
    return r;
}
