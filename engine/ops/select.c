/* Operators that pick or invert: Where, Not, BitwiseNot, ArgMax, ArgMin, Hardmax. */
#include "engine/ops/common.h"
#include "engine/ops/element.h"
#include "engine/ops/grad.h"
#include "engine/ops/rows.h"

static int not_shape(
    const struct node *n, const struct tensor *const *in, struct tensor *out, struct error *err) {
    if (in[0]->dtype != DT_BOOL)
        return error_code(err, -EBADMSG, "invalid_model", "the input is not bool");
    return op_shape_same(n, in, out, err);
}

static void not_forward(
    const struct node *n, const struct tensor *const *in, struct tensor *out, void *scratch) {
    int64_t count = op_count(&out[0]);

    (void)n;
    (void)scratch;
    for (int64_t i = 0; i < count; i++)
        ((uint8_t *)out[0].data)[i] = !((const uint8_t *)in[0]->data)[i];
}

static int bitwise_not_shape(
    const struct node *n, const struct tensor *const *in, struct tensor *out, struct error *err) {
    if (!element_is_known(in[0]->dtype) || element_is_float(in[0]->dtype) || in[0]->dtype == DT_BOOL)
        return error_code(err, -EBADMSG, "invalid_model", "the input is not of integers");
    return op_shape_same(n, in, out, err);
}

static void bitwise_not_forward(
    const struct node *n, const struct tensor *const *in, struct tensor *out, void *scratch) {
    int64_t count = op_count(&out[0]);

    (void)n;
    (void)scratch;
    for (int64_t i = 0; i < count; i++)
        element_set_int(&out[0], i, ~element_get_int(in[0], i));
}

static int where_shape(
    const struct node *n, const struct tensor *const *in, struct tensor *out, struct error *err) {
    struct shape s;
    int r;

    (void)n;
    if (in[0]->dtype != DT_BOOL)
        return error_code(err, -EBADMSG, "invalid_model", "the condition is not bool");
    if (in[1]->dtype != in[2]->dtype)
        return error_code(err, -EBADMSG, "invalid_model", "inputs 1 and 2 have different types");
    if (!element_is_known(in[1]->dtype))
        return error_code(err, -EBADMSG, "unsupported_operator", "this type is not supported here");
    r = op_broadcast(&in[0]->shape, &in[1]->shape, &s, err);
    if (r == 0)
        r = op_broadcast(&s, &in[2]->shape, &s, err);
    if (r < 0)
        return r;
    out[0].dtype = in[1]->dtype;
    out[0].shape = s;
    return 0;
}

static void where_forward(
    const struct node *n, const struct tensor *const *in, struct tensor *out, void *scratch) {
    const struct shape *s = &out[0].shape;
    bool is_float = element_is_float(out[0].dtype);
    int64_t count = op_count(&out[0]);

    (void)n;
    (void)scratch;
    for (int64_t i = 0; i < count; i++) {
        bool is_first = ((const uint8_t *)in[0]->data)[op_broadcast_index(&in[0]->shape, s, i)];
        const struct tensor *from = is_first ? in[1] : in[2];
        int64_t at = op_broadcast_index(&from->shape, s, i);

        if (is_float)
            element_set(&out[0], i, element_get(from, at));
        else
            element_set_int(&out[0], i, element_get_int(from, at));
    }
}

static int arg_shape(
    const struct node *n, const struct tensor *const *in, struct tensor *out, struct error *err) {
    bool keeps = node_attr_int(n, "keepdims", 1) != 0;
    int axis, r = op_axis(node_attr_int(n, "axis", 0), in[0]->shape.rank, false, &axis, err);

    if (r < 0)
        return r;
    if (!element_is_known(in[0]->dtype) || in[0]->dtype == DT_BOOL)
        return error_code(err, -EBADMSG, "unsupported_operator", "this type is not supported here");
    if (in[0]->shape.dim[axis] == 0)
        return error_code(err, -EBADMSG, "shape_mismatch", "axis %d is empty", axis);
    out[0].dtype = DT_S64;
    out[0].shape = (struct shape){0};
    for (int i = 0; i < in[0]->shape.rank; i++)
        if (keeps || i != axis)
            out[0].shape.dim[out[0].shape.rank++] = i == axis ? 1 : in[0]->shape.dim[i];
    return 0;
}

/* 64-bit integers beyond 2^53 are compared as the doubles nearest to them. */
static int64_t arg_row(
    const struct tensor *x, int64_t start, int64_t n, int64_t step, bool is_min, bool takes_last) {
    int64_t best = 0;
    double value = element_get(x, start);

    for (int64_t i = 1; i < n; i++) {
        double v = element_get(x, start + i * step);
        bool is_better = is_min ? v < value : v > value;

        if (!is_better && !(takes_last && v == value))
            continue;
        best = i;
        value = v;
    }
    return best;
}

static void arg_forward(
    const struct node *n, const struct tensor *const *in, struct tensor *out, void *scratch) {
    bool takes_last = node_attr_int(n, "select_last_index", 0) != 0, is_min = n->op == &op_arg_min;
    int64_t outer, mid, inner, *to = out[0].data;
    int axis = 0;

    (void)scratch;
    (void)op_axis(node_attr_int(n, "axis", 0), in[0]->shape.rank, false, &axis, NULL);
    op_split_shape(&in[0]->shape, axis, &outer, &mid, &inner);
    for (int64_t o = 0; o < outer; o++)
        for (int64_t i = 0; i < inner; i++)
            *to++ = arg_row(in[0], o * mid * inner + i, mid, inner, is_min, takes_last);
}

struct hardmax_param {
    bool is_flat; /* before opset 13 everything from the axis on is one row */
};

static int hardmax_parse(struct graph *g, struct node *n, struct error *err) {
    struct hardmax_param *p = graph_alloc(g, sizeof(*p));

    if (!p)
        return error_oom(err);
    p->is_flat = g->opset < 13;
    n->param = p;
    return 0;
}

static int hardmax_axis(const struct node *n, int rank, int *ret, struct error *err) {
    const struct hardmax_param *p = n->param;

    return op_axis(node_attr_int(n, "axis", p->is_flat ? 1 : -1), rank, p->is_flat, ret, err);
}

static int hardmax_shape(
    const struct node *n, const struct tensor *const *in, struct tensor *out, struct error *err) {
    int axis, r = hardmax_axis(n, in[0]->shape.rank, &axis, err);

    if (r < 0)
        return r;
    if (!element_is_float(in[0]->dtype))
        return error_code(err, -EBADMSG, "unsupported_operator", "only floats are supported here");
    return op_shape_same(n, in, out, err);
}

/* 1 at the first maximum of each row, else 0 */
static void hardmax_forward(
    const struct node *n, const struct tensor *const *in, struct tensor *out, void *scratch) {
    const struct hardmax_param *p = n->param;
    int64_t outer, mid, inner;
    int axis = 0;

    (void)scratch;
    (void)hardmax_axis(n, in[0]->shape.rank, &axis, NULL);
    op_split_shape(&in[0]->shape, axis, &outer, &mid, &inner);
    if (p->is_flat) {
        mid *= inner;
        inner = 1;
    }
    if (op_bytes(&out[0]))
        memset(out[0].data, 0, op_bytes(&out[0]));
    for (int64_t row = 0; mid && row < outer * inner; row++) {
        int64_t first = row / inner * mid * inner + row % inner;

        element_set(&out[0], first + arg_row(in[0], first, mid, inner, false, false) * inner, 1);
    }
}

#define SELECT_ROW(variable, onnx_name, n_inputs, parse_fn, shape_fn, run, gradient, coupling)               \
    const struct op variable = {                                                                             \
        .name = onnx_name,                                                                                   \
        .domain = "",                                                                                        \
        .since = 1,                                                                                          \
        .until = OPSET_LAST,                                                                                 \
        .min_in = n_inputs,                                                                                  \
        .max_in = n_inputs,                                                                                  \
        .min_out = 1,                                                                                        \
        .max_out = 1,                                                                                        \
        .parse = parse_fn,                                                                                   \
        .shape = shape_fn,                                                                                   \
        .forward = run,                                                                                      \
        .backward = gradient,                                                                                \
        .cost = op_cost_elementwise,                                                                         \
        .couple = coupling,                                                                                  \
        .quant = OP_QUANT_FLOAT,                                                                             \
    }

SELECT_ROW(op_arg_max, "ArgMax", 1, NULL, arg_shape, arg_forward, NULL, OP_COUPLE_NONE);
SELECT_ROW(op_arg_min, "ArgMin", 1, NULL, arg_shape, arg_forward, NULL, OP_COUPLE_NONE);
SELECT_ROW(
    op_bitwise_not, "BitwiseNot", 1, NULL, bitwise_not_shape, bitwise_not_forward, NULL, OP_COUPLE_SAME);
SELECT_ROW(op_hardmax, "Hardmax", 1, hardmax_parse, hardmax_shape, hardmax_forward, NULL, OP_COUPLE_NONE);
SELECT_ROW(op_not, "Not", 1, NULL, not_shape, not_forward, NULL, OP_COUPLE_SAME);
SELECT_ROW(op_where, "Where", 3, NULL, where_shape, where_forward, where_backward, OP_COUPLE_NONE);
