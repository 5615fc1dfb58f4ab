/* Operators of shape subgraphs: Shape, Size, Constant, ConstantOfShape, Cast. */
#include "engine/ops/common.h"
#include "engine/ops/element.h"
#include "engine/ops/rows.h"

static int shape_shape(
    const struct node *n, const struct tensor *const *in, struct tensor *out, struct error *err) {
    int64_t start = node_attr_int(n, "start", 0), end = node_attr_int(n, "end", in[0]->shape.rank),
            rank = in[0]->shape.rank;

    (void)err;
    start = start < 0 ? start + rank : start;
    end = end < 0 ? end + rank : end;
    start = start < 0 ? 0 : start > rank ? rank : start;
    end = end < start ? start : end > rank ? rank : end;
    out[0].dtype = DT_S64;
    out[0].shape = (struct shape){.rank = 1, .dim = {end - start}};
    return 0;
}

static void shape_forward(
    const struct node *n, const struct tensor *const *in, struct tensor *out, void *scratch) {
    int64_t start = node_attr_int(n, "start", 0), rank = in[0]->shape.rank;

    (void)scratch;
    start = start < 0 ? start + rank : start;
    start = start < 0 ? 0 : start > rank ? rank : start;
    memcpy(out[0].data, in[0]->shape.dim + start, (size_t)out[0].shape.dim[0] * sizeof(int64_t));
}

const struct op op_shape = {
    .name = "Shape",
    .domain = "",
    .since = 1,
    .until = OPSET_LAST,
    .min_in = 1,
    .max_in = 1,
    .min_out = 1,
    .max_out = 1,
    .shape = shape_shape,
    .forward = shape_forward,
    .cost = op_cost_move,
    .couple = OP_COUPLE_NONE,
    .quant = OP_QUANT_FLOAT,
    .reads_shape_only = true,
};

static int size_shape(
    const struct node *n, const struct tensor *const *in, struct tensor *out, struct error *err) {
    (void)n;
    (void)in;
    (void)err;
    out[0].dtype = DT_S64;
    out[0].shape = (struct shape){0};
    return 0;
}

static void size_forward(
    const struct node *n, const struct tensor *const *in, struct tensor *out, void *scratch) {
    (void)n;
    (void)scratch;
    *(int64_t *)out[0].data = op_count(in[0]);
}

const struct op op_size = {
    .name = "Size",
    .domain = "",
    .since = 1,
    .until = OPSET_LAST,
    .min_in = 1,
    .max_in = 1,
    .min_out = 1,
    .max_out = 1,
    .shape = size_shape,
    .forward = size_forward,
    .cost = op_cost_move,
    .couple = OP_COUPLE_NONE,
    .quant = OP_QUANT_FLOAT,
    .reads_shape_only = true,
};

/* The tensor of a Constant node: from `value`, or made of the scalar and list attributes. */
static int constant_parse(struct graph *g, struct node *n, struct error *err) {
    const struct attr *a = n->n_attr ? &n->attr[0] : NULL;
    struct tensor *t;

    if (!a || n->n_attr != 1)
        return error_code(err, -EBADMSG, "invalid_model", "exactly one attribute is needed");
    if (a->type == ATTR_TENSOR) {
        n->param = a->t;
        return 0;
    }
    t = graph_alloc(g, sizeof(*t));
    if (!t)
        return error_oom(err);
    t->shape.rank = a->type == ATTR_FLOATS || a->type == ATTR_INTS;
    t->shape.dim[0] = (int64_t)a->n;
    t->dtype = a->type == ATTR_FLOAT || a->type == ATTR_FLOATS ? DT_F32 : DT_S64;
    if (a->type != ATTR_FLOAT && a->type != ATTR_FLOATS && a->type != ATTR_INT && a->type != ATTR_INTS)
        return error_code(err, -EBADMSG, "unsupported_operator", "attribute '%s' is not supported", a->name);
    t->data = graph_alloc(g, op_bytes(t) + 1);
    if (!t->data)
        return error_oom(err);
    if (a->type == ATTR_FLOAT || a->type == ATTR_INT)
        memcpy(t->data, a->type == ATTR_FLOAT ? (const void *)&a->f : (const void *)&a->i, op_bytes(t));
    else if (a->n)
        memcpy(
            t->data, a->type == ATTR_FLOATS ? (const void *)a->floats : (const void *)a->ints, op_bytes(t));
    n->param = t;
    return 0;
}

static int constant_shape(
    const struct node *n, const struct tensor *const *in, struct tensor *out, struct error *err) {
    const struct tensor *t = n->param;

    (void)in;
    (void)err;
    out[0].dtype = t->dtype;
    out[0].shape = t->shape;
    return 0;
}

static void constant_forward(
    const struct node *n, const struct tensor *const *in, struct tensor *out, void *scratch) {
    const struct tensor *t = n->param;

    (void)in;
    (void)scratch;
    if (op_bytes(t))
        memcpy(out[0].data, t->data, op_bytes(t));
}

const struct op op_constant = {
    .name = "Constant",
    .domain = "",
    .since = 1,
    .until = OPSET_LAST,
    .min_in = 0,
    .max_in = 0,
    .min_out = 1,
    .max_out = 1,
    .parse = constant_parse,
    .shape = constant_shape,
    .forward = constant_forward,
    .cost = op_cost_move,
    .couple = OP_COUPLE_NONE,
    .quant = OP_QUANT_FLOAT,
};

static int constant_of_shape_shape(
    const struct node *n, const struct tensor *const *in, struct tensor *out, struct error *err) {
    const struct attr *a = node_attr(n, "value");
    struct shape s = {0};
    int r = op_read_ints(in[0], s.dim, SHAPE_MAX_RANK, &s.rank, err);
    size_t bytes;

    if (r < 0)
        return r;
    for (int i = 0; i < s.rank; i++)
        if (s.dim[i] < 0)
            return error_code(err, -EBADMSG, "invalid_model", "dimension %d is %lld", i, (long long)s.dim[i]);
    if (a && (a->type != ATTR_TENSOR || op_count(a->t) != 1 || op_bytes(a->t) < 1))
        return error_code(err, -EBADMSG, "invalid_model", "value is not a tensor of one element");
    out[0].dtype = a ? a->t->dtype : DT_F32;
    out[0].shape = s;
    if (!shape_bytes(&s, out[0].dtype, &bytes))
        return error_code(err, -EBADMSG, "shape_mismatch", "the result is too large");
    return 0;
}

static void constant_of_shape_forward(
    const struct node *n, const struct tensor *const *in, struct tensor *out, void *scratch) {
    const struct attr *a = node_attr(n, "value");
    size_t bytes = op_bytes(&out[0]), size;

    (void)in;
    (void)scratch;
    if (!a) {
        memset(out[0].data, 0, bytes);
        return;
    }
    size = op_bytes(a->t);
    for (size_t i = 0; i + size <= bytes; i += size)
        memcpy((char *)out[0].data + i, a->t->data, size);
}

const struct op op_constant_of_shape = {
    .name = "ConstantOfShape",
    .domain = "",
    .since = 9,
    .until = OPSET_LAST,
    .min_in = 1,
    .max_in = 1,
    .min_out = 1,
    .max_out = 1,
    .shape = constant_of_shape_shape,
    .forward = constant_of_shape_forward,
    .cost = op_cost_move,
    .couple = OP_COUPLE_NONE,
    .quant = OP_QUANT_FLOAT,
};

static int cast_shape(
    const struct node *n, const struct tensor *const *in, struct tensor *out, struct error *err) {
    bool is_like = n->n_in > 1;
    enum dtype to = is_like ? in[1]->dtype : (enum dtype)node_attr_int(n, "to", 0);
    const struct dtype_info *a = dtype_info(in[0]->dtype), *b = dtype_info(to);

    if (!element_is_known(in[0]->dtype) || !element_is_known(to))
        return error_code(err, -EBADMSG, "unsupported_operator", "a cast from %s to %s is not supported",
            a ? a->name : "?", b ? b->name : "?");
    out[0].dtype = to;
    out[0].shape = in[0]->shape;
    return 0;
}

static void cast_forward(
    const struct node *n, const struct tensor *const *in, struct tensor *out, void *scratch) {
    bool is_exact = !element_is_float(in[0]->dtype) && !element_is_float(out[0].dtype);
    int64_t count = op_count(&out[0]);

    (void)n;
    (void)scratch;
    if (out[0].dtype == DT_F32 && element_read_floats(in[0], 0, count, out[0].data))
        return;
    if (in[0]->dtype == DT_F32 && element_write_floats(&out[0], 0, count, in[0]->data))
        return;
    for (int64_t i = 0; i < count; i++)
        if (is_exact)
            element_set_int(&out[0], i, element_get_int(in[0], i));
        else
            element_set(&out[0], i, element_get(in[0], i));
}

const struct op op_cast = {
    .name = "Cast",
    .domain = "",
    .since = 6,
    .until = 28, /* as late as the operators that pass_widen puts it beside */
    .min_in = 1,
    .max_in = 1,
    .min_out = 1,
    .max_out = 1,
    .shape = cast_shape,
    .forward = cast_forward,
    .cost = op_cost_move,
    .couple = OP_COUPLE_SAME,
    .quant = OP_QUANT_FLOAT,
    .layouts = OP_LAYOUT_ANY,
};

const struct op op_cast_like = {
    .name = "CastLike",
    .domain = "",
    .since = 15,
    .until = OPSET_LAST,
    .min_in = 2,
    .max_in = 2,
    .min_out = 1,
    .max_out = 1,
    .shape = cast_shape,
    .forward = cast_forward,
    .cost = op_cost_move,
    .couple = OP_COUPLE_SAME,
    .quant = OP_QUANT_FLOAT,
};
