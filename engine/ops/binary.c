/* Elementwise operators of two or more broadcast operands: arithmetic in float and the integer types of shape
 * subgraphs. */
#include "engine/ops/common.h"
#include "engine/ops/rows.h"

struct binary_fn {
    const char *name;
    float (*f)(float a, float b);
    int64_t (*i)(int64_t a, int64_t b); /* NULL: float only */
};

static float f_add(float a, float b) {
    return a + b;
}
static float f_sub(float a, float b) {
    return a - b;
}
static float f_mul(float a, float b) {
    return a * b;
}
static float f_div(float a, float b) {
    return a / b;
}
static float f_max(float a, float b) {
    return a > b ? a : b;
}
static float f_min(float a, float b) {
    return a < b ? a : b;
}
static float f_pow(float a, float b) {
    return powf(a, b);
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
static int64_t i_max(int64_t a, int64_t b) {
    return a > b ? a : b;
}
static int64_t i_min(int64_t a, int64_t b) {
    return a < b ? a : b;
}

/* PRelu: the second operand is the slope. */
static float f_prelu(float a, float b) {
    return a < 0 ? a * b : a;
}

static const struct binary_fn functions[] = {
    {"Add", f_add, i_add},
    {"Div", f_div, i_div},
    {"Max", f_max, i_max},
    {"Mean", f_add, NULL},
    {"Min", f_min, i_min},
    {"Mul", f_mul, i_mul},
    {"PRelu", f_prelu, NULL},
    {"Pow", f_pow, NULL},
    {"Sub", f_sub, i_sub},
    {"Sum", f_add, NULL},
};

static int binary_parse(struct graph *g, struct node *n, struct error *err) {
    (void)g;
    for (size_t i = 0; i < sizeof(functions) / sizeof(functions[0]); i++)
        if (!strcmp(functions[i].name, n->op->name))
            n->param = &functions[i];
    return n->param ? 0 : error_set(err, -EINVAL, "no function");
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
        if (in[i]->dtype != in[0]->dtype)
            return error_code(err, -EBADMSG, "invalid_model", "its inputs have different types");
        r = op_broadcast(&s, &in[i]->shape, &s, err);
        if (r < 0)
            return r;
    }
    if (in[0]->dtype != DT_F32 && !(fn->i && (in[0]->dtype == DT_S64 || in[0]->dtype == DT_S32)))
        return error_code(
            err, -EBADMSG, "unsupported_operator", "type %s is not supported here", type ? type->name : "?");
    out[0].dtype = in[0]->dtype;
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

static float load_f32(const struct tensor *t, int64_t i) {
    return ((const float *)t->data)[i];
}

static int64_t load_int(const struct tensor *t, int64_t i) {
    return t->dtype == DT_S64 ? ((const int64_t *)t->data)[i] : ((const int32_t *)t->data)[i];
}

static void store_int(struct tensor *t, int64_t i, int64_t v) {
    if (t->dtype == DT_S64)
        ((int64_t *)t->data)[i] = v;
    else
        ((int32_t *)t->data)[i] = (int32_t)v;
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
            y[i] = fn->f(a[i], b[i]);
}

/* y = a op b with broadcasting; a may be y itself when it has y's shape. */
static void apply(
    const struct binary_fn *fn, const struct tensor *a, const struct tensor *b, struct tensor *y) {
    const struct shape *s = &y->shape;
    int64_t sa[SHAPE_MAX_RANK], sb[SHAPE_MAX_RANK], n = op_count(y);

    if (y->dtype == DT_F32 && shape_equal(&a->shape, s) && shape_equal(&b->shape, s)) {
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
        if (y->dtype == DT_F32)
            ((float *)y->data)[i] = fn->f(load_f32(a, ia), load_f32(b, ib));
        else
            store_int(y, i, fn->i(load_int(a, ia), load_int(b, ib)));
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
            ((float *)out[0].data)[i] /= (float)n->n_in;
}

#define BINARY_ROW(variable, onnx_name, least, most, run, how)                                               \
    const struct op variable = {                                                                             \
        .name = onnx_name,                                                                                   \
        .domain = "",                                                                                        \
        .since = 7,                                                                                          \
        .until = OPSET_LAST,                                                                                 \
        .min_in = least,                                                                                     \
        .max_in = most,                                                                                      \
        .min_out = 1,                                                                                        \
        .max_out = 1,                                                                                        \
        .parse = binary_parse,                                                                               \
        .shape = binary_shape,                                                                               \
        .forward = run,                                                                                      \
        .cost = op_cost_elementwise,                                                                         \
        .saves = OP_SAVES_IN,                                                                                \
        .couple = OP_COUPLE_JOIN,                                                                            \
        .quant = how,                                                                                        \
        .layouts = OP_LAYOUT_ANY,                                                                            \
    }

BINARY_ROW(op_add, "Add", 2, 2, binary_forward, OP_QUANT_OWN);
BINARY_ROW(op_div, "Div", 2, 2, binary_forward, OP_QUANT_OWN);
BINARY_ROW(op_max, "Max", 1, 64, variadic_forward, OP_QUANT_OWN);
BINARY_ROW(op_mean, "Mean", 1, 64, variadic_forward, OP_QUANT_FLOAT);
BINARY_ROW(op_min, "Min", 1, 64, variadic_forward, OP_QUANT_OWN);
BINARY_ROW(op_mul, "Mul", 2, 2, binary_forward, OP_QUANT_OWN);
BINARY_ROW(op_pow, "Pow", 2, 2, binary_forward, OP_QUANT_FLOAT);
BINARY_ROW(op_prelu, "PRelu", 2, 2, binary_forward, OP_QUANT_FLOAT);
BINARY_ROW(op_sub, "Sub", 2, 2, binary_forward, OP_QUANT_OWN);
BINARY_ROW(op_sum, "Sum", 1, 64, variadic_forward, OP_QUANT_FLOAT);
