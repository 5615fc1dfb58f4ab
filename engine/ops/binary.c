/* Elementwise operators of two or more broadcast operands: arithmetic, comparison, logic, in every type ONNX
 * allows. */
#include <stdio.h>

#include "engine/ops/binary_fn.h"
#include "engine/ops/common.h"
#include "engine/ops/element.h"
#include "engine/ops/grad.h"
#include "engine/ops/rows.h"

/* Operators with an attribute have a function for each of its values. */
static int binary_parse(struct graph *g, struct node *n, struct error *err) {
    const char *direction = node_attr_string(n, "direction", "");
    char name[64];

    if (n->op == &op_bit_shift)
        snprintf(name, sizeof(name), "BitShift %.16s", direction);
    else
        snprintf(name, sizeof(name), "%s%s", n->op->name,
            n->op == &op_mod && node_attr_int(n, "fmod", 0) ? " fmod"
            : n->op == &op_prelu && g->opset < 7            ? " 1"
                                                            : "");
    n->param = binary_fn_find(name);
    if (!n->param)
        return error_code(
            err, -EBADMSG, "invalid_model", "direction is '%.32s', not LEFT or RIGHT", direction);
    return 0;
}

static bool takes_type(const struct binary_fn *fn, enum dtype t) {
    bool is_float = element_is_float(t), is_bool = t == DT_BOOL;
    bool is_signed = element_is_known(t) && dtype_info(t)->is_signed;

    if (!element_is_known(t))
        return false;
    switch (fn->types) {
    case TYPES_ANY: return true;
    case TYPES_FLOAT: return is_float;
    case TYPES_BOOL: return is_bool;
    case TYPES_INT: return !is_bool && !is_float;
    case TYPES_UINT: return !is_bool && !is_float && !is_signed;
    case TYPES_NUMBER:
    default: return !is_bool;
    }
}

/* Before opset 7 `axis` says where the second operand's dimensions stand; only the end, which is what later
 * opsets mean, is supported. */
static int check_legacy_axis(
    const struct node *n, const struct shape *a, const struct shape *b, struct error *err) {
    int64_t end = a->rank - b->rank, axis = node_attr_int(n, "axis", end);

    if (!node_attr_int(n, "broadcast", 0) || axis == end || axis + a->rank == end)
        return 0;
    return error_code(err, -EBADMSG, "unsupported_operator",
        "broadcasting from axis %lld of %d is not supported, only at the end", (long long)axis, a->rank);
}

static int binary_shape(
    const struct node *n, const struct tensor *const *in, struct tensor *out, struct error *err) {
    const struct binary_fn *fn = n->param;
    struct shape s = in[0]->shape, other;
    const struct dtype_info *type = dtype_info(in[0]->dtype);

    for (int i = 1; i < n->n_in; i++) {
        int r;

        if (!in[i])
            return error_code(err, -EBADMSG, "invalid_model", "input %d is missing", i);
        if (in[i]->dtype != in[0]->dtype && (n->op != &op_pow || !takes_type(fn, in[i]->dtype)))
            return error_code(err, -EBADMSG, "invalid_model", "its inputs have different types");
        other = binary_second_shape(n, &in[0]->shape, &in[i]->shape);
        r = check_legacy_axis(n, &in[0]->shape, &other, err);
        if (r == 0)
            r = op_broadcast(&s, &other, &s, err);
        if (r < 0)
            return r;
    }
    if (!takes_type(fn, in[0]->dtype))
        return error_code(
            err, -EBADMSG, "unsupported_operator", "type %s is not supported here", type ? type->name : "?");
    out[0].dtype = fn->gives_bool ? DT_BOOL : in[0]->dtype;
    out[0].shape = s;
    return 0;
}

static void strides_of(const struct shape *t, const struct shape *s, int64_t *stride) {
    int64_t step = 1;

    for (int i = s->rank - 1; i >= 0; i--) {
        int k = i - (s->rank - t->rank);

        stride[i] = k < 0 || t->dim[k] == 1 ? 0 : step;
        if (k >= 0)
            step *= t->dim[k];
    }
}

static void apply_same(const struct binary_fn *fn, const float *a, const float *b, float *y, int64_t n) {
    if (fn->f == binary_fn_add)
        for (int64_t i = 0; i < n; i++)
            y[i] = a[i] + b[i];
    else if (fn->f == binary_fn_mul)
        for (int64_t i = 0; i < n; i++)
            y[i] = a[i] * b[i];
    else
        for (int64_t i = 0; i < n; i++)
            y[i] = (float)fn->f((double)a[i], (double)b[i]);
}

static void apply_one(const struct binary_fn *fn, const struct tensor *a, int64_t ia, const struct tensor *b,
    int64_t ib, struct tensor *y, int64_t i) {
    if (element_is_float(a->dtype) || element_is_float(b->dtype))
        element_set(y, i, fn->f(element_get(a, ia), element_get(b, ib)));
    else if (a->dtype == DT_U64 && fn->u)
        element_set_int(y, i, fn->u((uint64_t)element_get_int(a, ia), (uint64_t)element_get_int(b, ib)));
    else
        element_set_int(y, i, fn->i(element_get_int(a, ia), element_get_int(b, ib)));
}

/* The exponents of everyday networks. */
static bool apply_power(const float *a, float b, float *y, int64_t n) {
    bool is_square = b <= 2 && b >= 2, is_root = b <= 0.5f && b >= 0.5f, is_cube = b <= 3 && b >= 3;

    for (int64_t i = 0; is_square && i < n; i++)
        y[i] = a[i] * a[i];
    for (int64_t i = 0; is_cube && i < n; i++)
        y[i] = a[i] * a[i] * a[i];
    for (int64_t i = 0; is_root && i < n; i++)
        y[i] = a[i] == -HUGE_VALF ? HUGE_VALF : sqrtf(a[i]);
    return is_square || is_cube || is_root;
}

/* y = a op b with broadcasting; a may be y itself when it has y's shape. */
static void apply(
    const struct binary_fn *fn, const struct tensor *a, const struct tensor *b, struct tensor *y) {
    const struct shape *s = &y->shape;
    bool is_float = y->dtype == DT_F32 && a->dtype == DT_F32 && b->dtype == DT_F32;
    bool has_a = is_float && shape_equal(&a->shape, s);
    int64_t sa[SHAPE_MAX_RANK] = {0}, sb[SHAPE_MAX_RANK] = {0}, n = op_count(y), row;
    int last = s->rank - 1;

    if (has_a && shape_equal(&b->shape, s)) {
        apply_same(fn, a->data, b->data, y->data, n);
        return;
    }
    if (has_a && fn->f == pow && op_count(b) == 1 &&
        apply_power(a->data, *(const float *)b->data, y->data, n))
        return;
    strides_of(&a->shape, s, sa);
    strides_of(&b->shape, s, sb);
    row = last < 0 ? 1 : s->dim[last];
    for (int64_t i = 0; row && i < n; i += row) {
        int64_t rest = i / row, ia = 0, ib = 0;

        for (int d = last - 1; d >= 0; d--) {
            ia += rest % s->dim[d] * sa[d];
            ib += rest % s->dim[d] * sb[d];
            rest /= s->dim[d];
        }
        for (int64_t j = 0; j < row; j++)
            apply_one(
                fn, a, ia + (last < 0 ? 0 : j * sa[last]), b, ib + (last < 0 ? 0 : j * sb[last]), y, i + j);
    }
}

static void binary_forward(
    const struct node *n, const struct tensor *const *in, struct tensor *out, void *scratch) {
    const struct binary_fn *fn = n->param;
    struct tensor b = *in[1];

    (void)scratch;
    b.shape = binary_second_shape(n, &in[0]->shape, &b.shape);
    apply(fn, in[0], &b, &out[0]);
}

/* Max, Min, Sum, Mean take any number of operands. */
static void variadic_forward(
    const struct node *n, const struct tensor *const *in, struct tensor *out, void *scratch) {
    const struct binary_fn *fn = n->param;
    struct tensor first = *in[0];
    int64_t count = op_count(&out[0]);

    (void)scratch;
    if (n->n_in == 1)
        memcpy(out[0].data, in[0]->data, op_bytes(&out[0]));
    for (int i = 1; i < n->n_in; i++) {
        apply(fn, &first, in[i], &out[0]);
        first = out[0];
    }
    if (!strcmp(n->op->name, "Mean"))
        for (int64_t i = 0; i < count; i++)
            element_set(&out[0], i, element_get(&out[0], i) / n->n_in);
}

#define BINARY_ROW(variable, onnx_name, first, least, most, run, gradient, learns, how)                      \
    const struct op variable = {                                                                             \
        .name = onnx_name,                                                                                   \
        .domain = "",                                                                                        \
        .since = first,                                                                                      \
        .until = OPSET_LAST,                                                                                 \
        .min_in = least,                                                                                     \
        .max_in = most,                                                                                      \
        .min_out = 1,                                                                                        \
        .max_out = 1,                                                                                        \
        .parse = binary_parse,                                                                               \
        .shape = binary_shape,                                                                               \
        .forward = run,                                                                                      \
        .params = learns,                                                                                    \
        .backward = gradient,                                                                                \
        .cost = op_cost_elementwise,                                                                         \
        .saves = OP_SAVES_IN,                                                                                \
        .couple = OP_COUPLE_JOIN,                                                                            \
        .quant = how,                                                                                        \
        .layouts = OP_LAYOUT_ANY,                                                                            \
    }

BINARY_ROW(op_add, "Add", 1, 2, 2, binary_forward, binary_backward, 0, OP_QUANT_OWN);
BINARY_ROW(op_and, "And", 1, 2, 2, binary_forward, NULL, 0, OP_QUANT_FLOAT);
BINARY_ROW(op_bit_shift, "BitShift", 11, 2, 2, binary_forward, NULL, 0, OP_QUANT_FLOAT);
BINARY_ROW(op_bitwise_and, "BitwiseAnd", 18, 2, 2, binary_forward, NULL, 0, OP_QUANT_FLOAT);
BINARY_ROW(op_bitwise_or, "BitwiseOr", 18, 2, 2, binary_forward, NULL, 0, OP_QUANT_FLOAT);
BINARY_ROW(op_bitwise_xor, "BitwiseXor", 18, 2, 2, binary_forward, NULL, 0, OP_QUANT_FLOAT);
BINARY_ROW(op_div, "Div", 1, 2, 2, binary_forward, binary_backward, 0, OP_QUANT_OWN);
BINARY_ROW(op_equal, "Equal", 1, 2, 2, binary_forward, NULL, 0, OP_QUANT_FLOAT);
BINARY_ROW(op_greater, "Greater", 1, 2, 2, binary_forward, NULL, 0, OP_QUANT_FLOAT);
BINARY_ROW(op_greater_or_equal, "GreaterOrEqual", 1, 2, 2, binary_forward, NULL, 0, OP_QUANT_FLOAT);
BINARY_ROW(op_less, "Less", 1, 2, 2, binary_forward, NULL, 0, OP_QUANT_FLOAT);
BINARY_ROW(op_less_or_equal, "LessOrEqual", 1, 2, 2, binary_forward, NULL, 0, OP_QUANT_FLOAT);
BINARY_ROW(op_max, "Max", 1, 1, 64, variadic_forward, variadic_backward, 0, OP_QUANT_OWN);
BINARY_ROW(op_mean, "Mean", 1, 1, 64, variadic_forward, variadic_backward, 0, OP_QUANT_FLOAT);
BINARY_ROW(op_min, "Min", 1, 1, 64, variadic_forward, variadic_backward, 0, OP_QUANT_OWN);
BINARY_ROW(op_mod, "Mod", 10, 2, 2, binary_forward, NULL, 0, OP_QUANT_FLOAT);
BINARY_ROW(op_mul, "Mul", 1, 2, 2, binary_forward, binary_backward, 0, OP_QUANT_OWN);
BINARY_ROW(op_or, "Or", 1, 2, 2, binary_forward, NULL, 0, OP_QUANT_FLOAT);
BINARY_ROW(op_pow, "Pow", 1, 2, 2, binary_forward, binary_backward, 0, OP_QUANT_FLOAT);
BINARY_ROW(op_prelu, "PRelu", 1, 2, 2, binary_forward, binary_backward, 1u << 1, OP_QUANT_FLOAT);
BINARY_ROW(op_sub, "Sub", 1, 2, 2, binary_forward, binary_backward, 0, OP_QUANT_OWN);
BINARY_ROW(op_sum, "Sum", 1, 1, 64, variadic_forward, variadic_backward, 0, OP_QUANT_FLOAT);
BINARY_ROW(op_xor, "Xor", 1, 2, 2, binary_forward, NULL, 0, OP_QUANT_FLOAT);
