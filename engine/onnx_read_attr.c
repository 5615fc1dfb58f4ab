/* AttributeProto: scalars and lists are copied to the arena, tensors stay views, graphs and other types stay
 * raw bytes that only the writer sees. */
#include <errno.h>
#include <string.h>

#include "engine/onnx_proto.h"
#include "engine/onnx_read.h"

struct read_attr {
    struct graph *g;
    struct attr a;
    int64_t type;  /* 0: not said (IR 1) */
    uint32_t seen; /* the number of the value field that came, the last one */
    size_t n_floats, n_ints, n_strings, at;
    float *floats;
    int64_t *ints;
    struct bytes *strings;
};

static int count_float(void *arg, uint64_t v, struct error *err) {
    (void)v;
    (void)err;
    ((struct read_attr *)arg)->n_floats++;
    return 0;
}

static int count_int(void *arg, uint64_t v, struct error *err) {
    (void)v;
    (void)err;
    ((struct read_attr *)arg)->n_ints++;
    return 0;
}

static int store_float(void *arg, uint64_t v, struct error *err) {
    struct read_attr *r = arg;
    uint32_t bits = (uint32_t)v;

    (void)err;
    memcpy(&r->floats[r->at++], &bits, sizeof(bits));
    return 0;
}

static int store_int(void *arg, uint64_t v, struct error *err) {
    struct read_attr *r = arg;

    (void)err;
    r->ints[r->at++] = (int64_t)v;
    return 0;
}

/* A zero is put behind the copy, so that node_attr_string can hand it out. */
static int copy_string(struct read_attr *r, struct bytes in, struct bytes *ret, struct error *err) {
    const char *copy = graph_strdup(r->g, (const char *)in.data, in.size);

    if (!copy)
        return error_oom(err);
    *ret = (struct bytes){.data = (const uint8_t *)copy, .size = in.size};
    return 0;
}

static int read_tensor(
    struct read_attr *r, const struct wire *w, const struct wire_field *f, struct error *err) {
    struct tensor *t = graph_alloc(r->g, sizeof(*t));
    struct wire inner;
    int rc = wire_enter(&inner, w, f, err);

    if (rc < 0)
        return rc;
    if (r->a.t)
        return error_code(err, -EBADMSG, "invalid_model", "attribute '%.100s' has two tensors", r->a.name);
    if (!t)
        return error_oom(err);
    r->a.t = t;
    rc = onnx_read_tensor_proto(r->g, inner, "attribute", NULL, t, err);
    return rc < 0 ? error_prefix(err, rc, "attribute '%.60s'", r->a.name) : 0;
}

/* First walk: the name, the type, how many elements. */
static int read_head(
    struct read_attr *r, const struct wire *w, const struct wire_field *f, struct error *err) {
    if (f->number >= A_F && f->number <= A_STRINGS)
        r->seen = f->number;
    switch (f->number) {
    case A_NAME: return onnx_read_name(r->g, w, f, &r->a.name, err);
    case A_TYPE: return wire_get_int(w, f, &r->type, err);
    case A_FLOATS: return wire_each_number(w, f, WIRE_FIXED32, count_float, r, err);
    case A_INTS: return wire_each_number(w, f, WIRE_VARINT, count_int, r, err);
    case A_STRINGS: r->n_strings++; return 0;
    case A_REF_NAME:
        return error_code(err, -EBADMSG, "invalid_model",
            "attribute '%.100s' refers to a function's attribute", r->a.name ? r->a.name : "");
    default: return 0;
    }
}

/* Second walk: the value of the attribute's type. */
static int read_value(
    struct read_attr *r, const struct wire *w, const struct wire_field *f, struct error *err) {
    struct bytes b;
    int rc;

    switch (f->number) {
    case A_F: return r->a.type == ATTR_FLOAT ? wire_get_float(w, f, &r->a.f, err) : 0;
    case A_I: return r->a.type == ATTR_INT ? wire_get_int(w, f, &r->a.i, err) : 0;
    case A_T: return r->a.type == ATTR_TENSOR ? read_tensor(r, w, f, err) : 0;
    case A_FLOATS: return r->floats ? wire_each_number(w, f, WIRE_FIXED32, store_float, r, err) : 0;
    case A_INTS: return r->ints ? wire_each_number(w, f, WIRE_VARINT, store_int, r, err) : 0;
    case A_S:
        rc = wire_get_bytes(w, f, &b, err);
        return rc == 0 && r->a.type == ATTR_STRING ? copy_string(r, b, &r->a.s, err) : rc;
    case A_STRINGS:
        rc = wire_get_bytes(w, f, &b, err);
        return rc == 0 && r->strings ? copy_string(r, b, &r->strings[r->at++], err) : rc;
    default: return 0;
    }
}

/* Room for the lists; also for empty ones, which ONNX writes as nothing at all. */
static int make_room(struct read_attr *r, struct error *err) {
    struct attr *a = &r->a;

    if (a->type == ATTR_FLOATS) {
        a->floats = r->floats = graph_alloc(r->g, r->n_floats * sizeof(*r->floats));
        a->n = r->n_floats;
        return r->floats ? 0 : error_oom(err);
    }
    if (a->type == ATTR_INTS) {
        a->ints = r->ints = graph_alloc(r->g, r->n_ints * sizeof(*r->ints));
        a->n = r->n_ints;
        return r->ints ? 0 : error_oom(err);
    }
    if (a->type == ATTR_STRINGS) {
        a->strings = r->strings = graph_alloc(r->g, r->n_strings * sizeof(*r->strings));
        a->n = r->n_strings;
        return r->strings ? 0 : error_oom(err);
    }
    if (a->type == ATTR_STRING)
        a->s = (struct bytes){.data = (const uint8_t *)"", .size = 0};
    return 0;
}

static enum attr_type type_of(const struct read_attr *r) {
    static const enum attr_type by_field[] = {
        [A_F] = ATTR_FLOAT,
        [A_I] = ATTR_INT,
        [A_S] = ATTR_STRING,
        [A_T] = ATTR_TENSOR,
        [A_G] = ATTR_GRAPH,
        [A_FLOATS] = ATTR_FLOATS,
        [A_INTS] = ATTR_INTS,
        [A_STRINGS] = ATTR_STRINGS,
    };

    if (r->type >= ATTR_FLOAT && r->type <= ATTR_STRINGS)
        return (enum attr_type)r->type;
    return r->type == 0 ? by_field[r->seen] : ATTR_OTHER;
}

int onnx_read_attr(
    struct graph *g, const struct wire *w, const struct wire_field *f, struct attr *ret, struct error *err) {
    struct read_attr r = {.g = g, .a.raw = f->bytes};
    struct wire inner, again;
    struct wire_field in;
    int rc = wire_enter(&inner, w, f, err);

    again = inner;
    while (rc >= 0 && (rc = wire_next(&again, &in, err)) > 0)
        rc = read_head(&r, &again, &in, err);
    if (rc < 0)
        return rc;
    if (!r.a.name || !r.a.name[0])
        return error_code(err, -EBADMSG, "invalid_model", "an attribute at byte %zu has no name", f->offset);
    r.a.type = type_of(&r);
    rc = make_room(&r, err);
    again = inner;
    while (rc >= 0 && (rc = wire_next(&again, &in, err)) > 0)
        rc = read_value(&r, &again, &in, err);
    if (rc < 0)
        return rc;
    if (r.a.type == ATTR_TENSOR && !r.a.t)
        return error_code(err, -EBADMSG, "invalid_model", "attribute '%.100s' has no tensor", r.a.name);
    *ret = r.a;
    return 0;
}
