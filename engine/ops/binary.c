/* Elementwise operators of two or more broadcast operands: arithmetic, comparison, logic, in every type ONNX
 * allows. */
#include "engine/ops/common.h"
#include "engine/ops/element.h"
#include "engine/ops/grad.h"
#include "engine/ops/rows.h"

enum binary_types {
    TYPES_NUMBER, /* floats and integers */
    TYPES_ANY,    /* and bool */
    TYPES_FLOAT,  /* floats only */
    TYPES_BOOL,   /* bool only */
};

struct binary_fn {
    const char *name;
    double (*f)(double a, double b);      /* floats; narrower ones are rounded once more, which for the four
                                             operations gives what the narrow operation gives */
    int64_t (*i)(int64_t a, int64_t b);   /* integers of up to 63 bits and int64 */
    int64_t (*u)(uint64_t a, uint64_t b); /* uint64 where it differs from int64; NULL: as `i` */
    enum binary_types types;
    bool gives_bool;
};

static double f_add(double a, double b) {
    return a + b;
}
static double f_sub(double a, double b) {
    return a - b;
}
static double f_mul(double a, double b) {
    return a * b;
}
static double f_div(double a, double b) {
    return a / b;
}
static double f_max(double a, double b) {
    return a > b || a != a ? a : b;
}
static double f_min(double a, double b) {
    return a < b || a != a ? a : b;
}
static double f_equal(double a, double b) {
    return a == b;
}
static double f_greater(double a, double b) {
    return a > b;
}
static double f_greater_equal(double a, double b) {
    return a >= b;
}
static double f_less(double a, double b) {
    return a < b;
}
static double f_less_equal(double a, double b) {
    return a <= b;
}

/* PRelu: the second operand is the slope. */
static double f_prelu(double a, double b) {
    return a < 0 ? a * b : a;
}

/* Integers wrap as in two's complement, as NumPy's do. */
static int64_t i_add(int64_t a, int64_t b) {
    return (int64_t)((uint64_t)a + (uint64_t)b);
}
static int64_t i_sub(int64_t a, int64_t b) {
    return (int64_t)((uint64_t)a - (uint64_t)b);
}
static int64_t i_mul(int64_t a, int64_t b) {
    return (int64_t)((uint64_t)a * (uint64_t)b);
}
static int64_t i_div(int64_t a, int64_t b) {
    return b == 0 ? 0 : b == -1 ? i_sub(0, a) : a / b;
}
static int64_t u_div(uint64_t a, uint64_t b) {
    return b == 0 ? 0 : (int64_t)(a / b);
}
static int64_t i_max(int64_t a, int64_t b) {
    return a > b ? a : b;
}
static int64_t u_max(uint64_t a, uint64_t b) {
    return (int64_t)(a > b ? a : b);
}
static int64_t i_min(int64_t a, int64_t b) {
    return a < b ? a : b;
}
static int64_t u_min(uint64_t a, uint64_t b) {
    return (int64_t)(a < b ? a : b);
}
static int64_t i_prelu(int64_t a, int64_t b) {
    return a < 0 ? i_mul(a, b) : a;
}
static int64_t u_prelu(uint64_t a, uint64_t b) {
    (void)b;
    return (int64_t)a;
}
static int64_t i_equal(int64_t a, int64_t b) {
    return a == b;
}
static int64_t i_greater(int64_t a, int64_t b) {
    return a > b;
}
static int64_t u_greater(uint64_t a, uint64_t b) {
    return a > b;
}
static int64_t i_greater_equal(int64_t a, int64_t b) {
    return a >= b;
}
static int64_t u_greater_equal(uint64_t a, uint64_t b) {
    return a >= b;
}
static int64_t i_less(int64_t a, int64_t b) {
    return a < b;
}
static int64_t u_less(uint64_t a, uint64_t b) {
    return a < b;
}
static int64_t i_less_equal(int64_t a, int64_t b) {
    return a <= b;
}
static int64_t u_less_equal(uint64_t a, uint64_t b) {
    return a <= b;
}
static int64_t i_and(int64_t a, int64_t b) {
    return a & b;
}
static int64_t i_or(int64_t a, int64_t b) {
    return a | b;
}
static int64_t i_xor(int64_t a, int64_t b) {
    return a ^ b;
}

/* By squaring, wrapping; a negative exponent leaves 0 of all but 1 and -1. */
static int64_t i_pow(int64_t a, int64_t b) {
    int64_t y = 1;

    if (b < 0)
        return a == 1 ? 1 : a == -1 ? (b % 2 ? -1 : 1) : 0;
    for (; b; b >>= 1, a = i_mul(a, a))
        if (b & 1)
            y = i_mul(y, a);
    return y;
}

static const struct binary_fn functions[] = {
    {"Add", f_add, i_add, NULL, TYPES_NUMBER, false},
    {"And", NULL, i_and, NULL, TYPES_BOOL, true},
    {"Div", f_div, i_div, u_div, TYPES_NUMBER, false},
    {"Equal", f_equal, i_equal, NULL, TYPES_ANY, true},
    {"Greater", f_greater, i_greater, u_greater, TYPES_NUMBER, true},
    {"GreaterOrEqual", f_greater_equal, i_greater_equal, u_greater_equal, TYPES_NUMBER, true},
    {"Less", f_less, i_less, u_less, TYPES_NUMBER, true},
    {"LessOrEqual", f_less_equal, i_less_equal, u_less_equal, TYPES_NUMBER, true},
    {"Max", f_max, i_max, u_max, TYPES_NUMBER, false},
    {"Mean", f_add, NULL, NULL, TYPES_FLOAT, false},
    {"Min", f_min, i_min, u_min, TYPES_NUMBER, false},
    {"Mul", f_mul, i_mul, NULL, TYPES_NUMBER, false},
    {"Or", NULL, i_or, NULL, TYPES_BOOL, true},
    {"PRelu", f_prelu, i_prelu, u_prelu, TYPES_NUMBER, false},
    {"Pow", pow, i_pow, NULL, TYPES_NUMBER, false},
    {"Sub", f_sub, i_sub, NULL, TYPES_NUMBER, false},
    {"Sum", f_add, NULL, NULL, TYPES_FLOAT, false},
    {"Xor", NULL, i_xor, NULL, TYPES_BOOL, true},
};

static int binary_parse(struct graph *g, struct node *n, struct error *err) {
    (void)g;
    for (size_t i = 0; i < sizeof(functions) / sizeof(functions[0]); i++)
        if (!strcmp(functions[i].name, n->op->name))
            n->param = &functions[i];
    return n->param ? 0 : error_set(err, -EINVAL, "no function");
}

static bool takes_type(const struct binary_fn *fn, enum dtype t) {
    bool is_float = element_is_float(t), is_bool = t == DT_BOOL;

    if (!element_is_known(t))
        return false;
    switch (fn->types) {
    case TYPES_ANY: return true;
    case TYPES_FLOAT: return is_float;
    case TYPES_BOOL: return is_bool;
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
    struct shape s = in[0]->shape;
    const struct dtype_info *type = dtype_info(in[0]->dtype);

    for (int i = 1; i < n->n_in; i++) {
        int r;

        if (!in[i])
            return error_code(err, -EBADMSG, "invalid_model", "input %d is missing", i);
        if (in[i]->dtype != in[0]->dtype && (n->op != &op_pow || !takes_type(fn, in[i]->dtype)))
            return error_code(err, -EBADMSG, "invalid_model", "its inputs have different types");
        r = check_legacy_axis(n, &in[0]->shape, &in[i]->shape, err);
        if (r == 0)
            r = op_broadcast(&s, &in[i]->shape, &s, err);
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
    if (fn->f == f_add)
        for (int64_t i = 0; i < n; i++)
            y[i] = a[i] + b[i];
    else if (fn->f == f_mul)
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

/* y = a op b with broadcasting; a may be y itself when it has y's shape. */
static void apply(
    const struct binary_fn *fn, const struct tensor *a, const struct tensor *b, struct tensor *y) {
    const struct shape *s = &y->shape;
    int64_t sa[SHAPE_MAX_RANK], sb[SHAPE_MAX_RANK], n = op_count(y);

    if (y->dtype == DT_F32 && a->dtype == DT_F32 && b->dtype == DT_F32 && shape_equal(&a->shape, s) &&
        shape_equal(&b->shape, s)) {
        apply_same(fn, a->data, b->data, y->data, n);
        return;
    }
    strides_of(&a->shape, s, sa);
    strides_of(&b->shape, s, sb);
    for (int64_t i = 0; i < n; i++) {
        int64_t rest = i, ia = 0, ib = 0;

        for (int d = s->rank - 1; d >= 0; d--) {
            int64_t c = rest % s->dim[d];

            rest /= s->dim[d];
            ia += c * sa[d];
            ib += c * sb[d];
        }
        apply_one(fn, a, ia, b, ib, y, i);
    }
}

static void binary_forward(
    const struct node *n, const struct tensor *const *in, struct tensor *out, void *scratch) {
    const struct binary_fn *fn = n->param;

    (void)scratch;
    apply(fn, in[0], in[1], &out[0]);
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

#define BINARY_ROW(variable, onnx_name, first, least, most, run, gradient, how)                              \
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
        .backward = gradient,                                                                                \
        .cost = op_cost_elementwise,                                                                         \
        .saves = OP_SAVES_IN,                                                                                \
        .couple = OP_COUPLE_JOIN,                                                                            \
        .quant = how,                                                                                        \
        .layouts = OP_LAYOUT_ANY,                                                                            \
    }

BINARY_ROW(op_add, "Add", 1, 2, 2, binary_forward, binary_backward, OP_QUANT_OWN);
BINARY_ROW(op_and, "And", 1, 2, 2, binary_forward, NULL, OP_QUANT_FLOAT);
BINARY_ROW(op_div, "Div", 1, 2, 2, binary_forward, binary_backward, OP_QUANT_OWN);
BINARY_ROW(op_equal, "Equal", 1, 2, 2, binary_forward, NULL, OP_QUANT_FLOAT);
BINARY_ROW(op_greater, "Greater", 1, 2, 2, binary_forward, NULL, OP_QUANT_FLOAT);
BINARY_ROW(op_greater_or_equal, "GreaterOrEqual", 1, 2, 2, binary_forward, NULL, OP_QUANT_FLOAT);
BINARY_ROW(op_less, "Less", 1, 2, 2, binary_forward, NULL, OP_QUANT_FLOAT);
BINARY_ROW(op_less_or_equal, "LessOrEqual", 1, 2, 2, binary_forward, NULL, OP_QUANT_FLOAT);
BINARY_ROW(op_max, "Max", 1, 1, 64, variadic_forward, variadic_backward, OP_QUANT_OWN);
BINARY_ROW(op_mean, "Mean", 1, 1, 64, variadic_forward, variadic_backward, OP_QUANT_FLOAT);
BINARY_ROW(op_min, "Min", 1, 1, 64, variadic_forward, variadic_backward, OP_QUANT_OWN);
BINARY_ROW(op_mul, "Mul", 1, 2, 2, binary_forward, binary_backward, OP_QUANT_OWN);
BINARY_ROW(op_or, "Or", 1, 2, 2, binary_forward, NULL, OP_QUANT_FLOAT);
BINARY_ROW(op_pow, "Pow", 1, 2, 2, binary_forward, binary_backward, OP_QUANT_FLOAT);
BINARY_ROW(op_prelu, "PRelu", 7, 2, 2, binary_forward, binary_backward, OP_QUANT_FLOAT);
BINARY_ROW(op_sub, "Sub", 1, 2, 2, binary_forward, binary_backward, OP_QUANT_OWN);
BINARY_ROW(op_sum, "Sum", 1, 1, 64, variadic_forward, variadic_backward, OP_QUANT_FLOAT);
BINARY_ROW(op_xor, "Xor", 1, 2, 2, binary_forward, NULL, OP_QUANT_FLOAT);
