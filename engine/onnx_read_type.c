/* ValueInfoProto > TypeProto > TypeProto.Tensor > TensorShapeProto > Dimension. */
#include <errno.h>
#include <string.h>

#include "engine/onnx_proto.h"
#include "engine/onnx_read.h"

struct read_info {
    struct graph *g;
    const char *name;
    int64_t dtype;
    struct shape shape;
    const char **param;
};

static int read_dim(
    struct read_info *v, const struct wire *w, const struct wire_field *f, struct error *err) {
    struct wire in;
    struct wire_field d;
    int64_t value = -1;
    int r = wire_enter(&in, w, f, err);

    if (r < 0)
        return r;
    if (v->shape.rank == SHAPE_MAX_RANK)
        return error_code(err, -EBADMSG, "invalid_model", "value '%.100s': more than %d dimensions", v->name,
            SHAPE_MAX_RANK);
    while ((r = wire_next(&in, &d, err)) > 0) {
        if (d.number == DIM_VALUE)
            r = wire_get_int(&in, &d, &value, err);
        else if (d.number == DIM_PARAM && d.bytes.size)
            r = onnx_read_name(v->g, &in, &d, &v->param[v->shape.rank], err);
        if (r < 0)
            return r;
    }
    v->shape.dim[v->shape.rank++] = value < 0 ? -1 : value;
    return r;
}

static int read_shape(
    struct read_info *v, const struct wire *w, const struct wire_field *f, struct error *err) {
    struct wire in;
    struct wire_field d;
    int r = wire_enter(&in, w, f, err);

    if (r < 0)
        return r;
    v->shape.rank = 0;
    if (!v->param)
        v->param = graph_alloc(v->g, SHAPE_MAX_RANK * sizeof(*v->param));
    if (!v->param)
        return error_oom(err);
    while (r >= 0 && (r = wire_next(&in, &d, err)) > 0)
        r = d.number == SHAPE_DIM ? read_dim(v, &in, &d, err) : 0;
    return r;
}

static int read_tensor_type(
    struct read_info *v, const struct wire *w, const struct wire_field *f, struct error *err) {
    struct wire in;
    struct wire_field d;
    int r = wire_enter(&in, w, f, err);

    while (r >= 0 && (r = wire_next(&in, &d, err)) > 0) {
        if (d.number == TT_ELEM_TYPE)
            r = wire_get_int(&in, &d, &v->dtype, err);
        else if (d.number == TT_SHAPE)
            r = read_shape(v, &in, &d, err);
    }
    return r;
}

/* Sequences, maps and the like leave the type unknown. */
static int read_type(
    struct read_info *v, const struct wire *w, const struct wire_field *f, struct error *err) {
    struct wire in;
    struct wire_field d;
    int r = wire_enter(&in, w, f, err);

    while (r >= 0 && (r = wire_next(&in, &d, err)) > 0)
        r = d.number == TYPE_TENSOR ? read_tensor_type(v, &in, &d, err) : 0;
    return r;
}

static int keep_info(struct read_info *v, int id, struct bytes whole, struct error *err) {
    struct value *value = &v->g->values[id];
    struct value_kept *kept = graph_alloc(v->g, sizeof(*kept));

    if (!kept)
        return error_oom(err);
    if (value->kept)
        *kept = *value->kept;
    kept->name = value->name;
    kept->info = whole;
    kept->dtype = (enum dtype)v->dtype;
    kept->shape = v->shape;
    value->kept = kept;
    value->dtype = (enum dtype)v->dtype;
    value->shape = v->shape;
    value->dim_param = v->param;
    return 0;
}

int onnx_read_value_info(
    struct graph *g, const struct wire *w, const struct wire_field *f, int *ret, struct error *err) {
    struct read_info v = {.g = g, .shape.rank = -1};
    struct wire in, again;
    struct wire_field d;
    int r = wire_enter(&in, w, f, err);

    if (r < 0)
        return r;
    again = in;
    while (r >= 0 && (r = wire_next(&again, &d, err)) > 0)
        r = d.number == V_NAME ? onnx_read_name(g, &again, &d, &v.name, err) : 0;
    if (r < 0)
        return r;
    if (!v.name || !v.name[0])
        return error_code(err, -EBADMSG, "invalid_model", "a value at byte %zu has no name", f->offset);
    while (r >= 0 && (r = wire_next(&in, &d, err)) > 0)
        r = d.number == V_TYPE ? read_type(&v, &in, &d, err) : 0;
    if (r == 0)
        r = onnx_value_id(g, v.name, ret, err);
    return r < 0 ? r : keep_info(&v, *ret, f->bytes, err);
}
