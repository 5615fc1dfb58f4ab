#include "engine/ops/unary.h"

#include "engine/ops/common.h"
#include "engine/ops/element.h"
#include "engine/ops/grad.h"
#include "engine/ops/rows.h"

static float f_relu(float x, const struct unary_param *p) {
    (void)p;
    return x > 0 ? x : x != x ? x : 0;
}

static float f_clip(float x, const struct unary_param *p) {
    x = x < p->alpha ? p->alpha : x;
    return x > p->beta ? p->beta : x;
}

static float f_leaky_relu(float x, const struct unary_param *p) {
    return x < 0 ? p->alpha * x : x;
}

static float f_elu(float x, const struct unary_param *p) {
    return x < 0 ? p->alpha * expm1f(x) : x;
}

static float f_celu(float x, const struct unary_param *p) {
    return x < 0 ? p->alpha * expm1f(x / p->alpha) : x;
}

static float f_selu(float x, const struct unary_param *p) {
    return p->beta * (x > 0 ? x : p->alpha * expm1f(x));
}

static float f_sigmoid(float x, const struct unary_param *p) {
    (void)p;
    return 1.0f / (1.0f + expf(-x));
}

static float f_hard_sigmoid(float x, const struct unary_param *p) {
    float y = p->alpha * x + p->beta;

    return y < 0 ? 0 : y > 1 ? 1 : y;
}

static float f_hard_swish(float x, const struct unary_param *p) {
    return x * f_hard_sigmoid(x, p);
}

static float f_softplus(float x, const struct unary_param *p) {
    (void)p;
    return x > 20 ? x : log1pf(expf(x));
}

static float f_mish(float x, const struct unary_param *p) {
    return x * tanhf(f_softplus(x, p));
}

static float f_tanh(float x, const struct unary_param *p) {
    (void)p;
    return tanhf(x);
}

static float f_exp(float x, const struct unary_param *p) {
    (void)p;
    return expf(x);
}

static float f_log(float x, const struct unary_param *p) {
    (void)p;
    return logf(x);
}

static float f_sqrt(float x, const struct unary_param *p) {
    (void)p;
    return sqrtf(x);
}

static float f_erf(float x, const struct unary_param *p) {
    (void)p;
    return erff(x);
}

static float f_abs(float x, const struct unary_param *p) {
    (void)p;
    return fabsf(x);
}

static float f_neg(float x, const struct unary_param *p) {
    (void)p;
    return -x;
}

static float f_floor(float x, const struct unary_param *p) {
    (void)p;
    return floorf(x);
}

static float f_ceil(float x, const struct unary_param *p) {
    (void)p;
    return ceilf(x);
}

static float f_round(float x, const struct unary_param *p) {
    (void)p;
    return nearbyintf(x);
}

static float f_reciprocal(float x, const struct unary_param *p) {
    (void)p;
    return 1.0f / x;
}

static float f_gelu(float x, const struct unary_param *p) {
    (void)p;
    return 0.5f * x * (1.0f + erff(x * (float)M_SQRT1_2));
}

static float f_sign(float x, const struct unary_param *p) {
    (void)p;
    return x > 0 ? 1 : x < 0 ? -1 : x;
}

static float f_softsign(float x, const struct unary_param *p) {
    (void)p;
    return x / (1 + fabsf(x));
}

static float f_swish(float x, const struct unary_param *p) {
    return x / (1.0f + expf(-p->alpha * x));
}

static float f_thresholded_relu(float x, const struct unary_param *p) {
    return x > p->alpha ? x : 0;
}

/* Hendrycks and Gimpel's approximation, by attribute. */
static float f_gelu_tanh(float x, const struct unary_param *p) {
    (void)p;
    return 0.5f * x * (1.0f + tanhf((float)(M_2_SQRTPI * M_SQRT1_2) * (x + 0.044715f * x * x * x)));
}

/* Defaults of the attributes alpha, beta by operator (ONNX Operators). */
static const struct unary_fn {
    const char *name;
    float (*f)(float x, const struct unary_param *p);
    float alpha, beta;
} functions[] = {
    {"Abs", f_abs, 0, 0},
    {"Ceil", f_ceil, 0, 0},
    {"Celu", f_celu, 1, 0},
    {"Clip", f_clip, -HUGE_VALF, HUGE_VALF},
    {"Elu", f_elu, 1, 0},
    {"Erf", f_erf, 0, 0},
    {"Exp", f_exp, 0, 0},
    {"Floor", f_floor, 0, 0},
    {"Gelu", f_gelu, 0, 0},
    {"HardSigmoid", f_hard_sigmoid, 0.2f, 0.5f},
    {"HardSwish", f_hard_swish, 1.0f / 6, 0.5f},
    {"LeakyRelu", f_leaky_relu, 0.01f, 0},
    {"Log", f_log, 0, 0},
    {"Mish", f_mish, 0, 0},
    {"Neg", f_neg, 0, 0},
    {"Reciprocal", f_reciprocal, 0, 0},
    {"Relu", f_relu, 0, 0},
    {"Round", f_round, 0, 0},
    {"Selu", f_selu, 1.67326319217681884765625f, 1.05070102214813232421875f},
    {"Sigmoid", f_sigmoid, 0, 0},
    {"Sign", f_sign, 0, 0},
    {"Softplus", f_softplus, 0, 0},
    {"Softsign", f_softsign, 0, 0},
    {"Sqrt", f_sqrt, 0, 0},
    {"Swish", f_swish, 1, 0},
    {"Tanh", f_tanh, 0, 0},
    {"ThresholdedRelu", f_thresholded_relu, 1, 0},
};

static const struct unary_fn gelu_tanh = {"Gelu", f_gelu_tanh, 0, 0};

static const struct unary_fn *function_of(const char *name) {
    for (size_t i = 0; i < sizeof(functions) / sizeof(functions[0]); i++)
        if (!strcmp(functions[i].name, name))
            return &functions[i];
    return NULL;
}

struct unary_node {
    struct unary_param param; /* first: kernels see only this */
    const struct unary_fn *fn;
};

static int unary_parse(struct graph *g, struct node *n, struct error *err) {
    struct unary_node *u = graph_alloc(g, sizeof(*u));
    bool is_selu = !strcmp(n->op_type, "Selu"), is_clip = !strcmp(n->op_type, "Clip");

    if (!u)
        return error_oom(err);
    u->fn = function_of(n->op->name);
    if (n->op == &op_gelu && !strcmp(node_attr_string(n, "approximate", "none"), "tanh"))
        u->fn = &gelu_tanh;
    u->param.alpha = node_attr_float(n, is_clip ? "min" : "alpha", u->fn->alpha);
    u->param.beta = node_attr_float(n, is_clip ? "max" : is_selu ? "gamma" : "beta", u->fn->beta);
    /* Clip's bounds became inputs with opset 11; constant ones are the rule */
    for (int i = 1; is_clip && i < n->n_in && i < 3; i++) {
        const struct tensor *t = n->in[i] >= 0 ? g->values[n->in[i]].init : NULL;

        if (t && t->dtype == DT_F32 && t->data && op_count(t) == 1)
            memcpy(i == 1 ? &u->param.alpha : &u->param.beta, t->data, sizeof(float));
    }
    n->param = u;
    return 0;
}

/* Integers, of which only these operators take any. Clip's bounds are the type's own where none are given. */
static int64_t apply_int(const struct op *op, int64_t x, int64_t low, int64_t high) {
    if (op == &op_abs)
        return x < 0 ? (int64_t)(0 - (uint64_t)x) : x;
    if (op == &op_neg)
        return (int64_t)(0 - (uint64_t)x);
    if (op == &op_sign)
        return (x > 0) - (x < 0);
    x = x < low ? low : x;
    return x > high ? high : x;
}

static bool takes_integers(const struct op *op, enum dtype t) {
    return element_is_known(t) && t != DT_BOOL && t != DT_U64 &&
           (op == &op_abs || op == &op_clip || op == &op_neg || op == &op_relu || op == &op_sign);
}

static int unary_shape(
    const struct node *n, const struct tensor *const *in, struct tensor *out, struct error *err) {
    const struct dtype_info *type = dtype_info(in[0]->dtype);

    if (!element_is_float(in[0]->dtype) && !takes_integers(n->op, in[0]->dtype))
        return error_code(
            err, -EBADMSG, "unsupported_operator", "type %s is not supported here", type ? type->name : "?");
    for (int i = 1; i < n->n_in; i++)
        if (in[i] && (in[i]->dtype != in[0]->dtype || op_count(in[i]) != 1))
            return error_code(
                err, -EBADMSG, "invalid_model", "input %d is not one number of the data's type", i);
    return op_shape_same(n, in, out, err);
}

static const struct tensor *bound(const struct node *n, const struct tensor *const *in, int i) {
    return n->n_in > i && in[i] && in[i]->data ? in[i] : NULL;
}

static void integers_forward(const struct node *n, const struct tensor *const *in, struct tensor *out) {
    const struct tensor *least = bound(n, in, 1), *most = bound(n, in, 2);
    int64_t low = least ? element_get_int(least, 0) : n->op == &op_relu ? 0 : INT64_MIN;
    int64_t high = most ? element_get_int(most, 0) : INT64_MAX, count = op_count(&out[0]);

    for (int64_t i = 0; i < count; i++)
        element_set_int(&out[0], i, apply_int(n->op, element_get_int(in[0], i), low, high));
}

/* Other floats than float are computed in float. */
static void unary_forward(
    const struct node *n, const struct tensor *const *in, struct tensor *out, void *scratch) {
    const struct unary_node *u = n->param;
    const float *x = in[0]->data;
    float *y = out[0].data;
    int64_t count = op_count(&out[0]);
    struct unary_param p = u->param;

    (void)scratch;
    if (!element_is_float(in[0]->dtype)) {
        integers_forward(n, in, out);
        return;
    }
    /* bounds that another node computes */
    if (bound(n, in, 1))
        p.alpha = (float)element_get(in[1], 0);
    if (bound(n, in, 2))
        p.beta = (float)element_get(in[2], 0);
    for (int64_t i = 0; in[0]->dtype == DT_F32 && i < count; i++)
        y[i] = u->fn->f(x[i], &p);
    for (int64_t i = 0; in[0]->dtype != DT_F32 && i < count; i++)
        element_set(&out[0], i, (double)u->fn->f((float)element_get(in[0], i), &p));
}

#define UNARY_ROW_UNTIL(variable, onnx_name, last, max_inputs, clamps, gradient)                             \
    const struct op variable = {                                                                             \
        .name = onnx_name,                                                                                   \
        .domain = "",                                                                                        \
        .since = 1,                                                                                          \
        .until = last,                                                                                       \
        .min_in = 1,                                                                                         \
        .max_in = max_inputs,                                                                                \
        .min_out = 1,                                                                                        \
        .max_out = 1,                                                                                        \
        .parse = unary_parse,                                                                                \
        .shape = unary_shape,                                                                                \
        .forward = unary_forward,                                                                            \
        .backward = gradient,                                                                                \
        .cost = op_cost_elementwise,                                                                         \
        .saves = OP_SAVES_IN,                                                                                \
        .couple = OP_COUPLE_SAME,                                                                            \
        .quant = OP_QUANT_OWN,                                                                               \
        .layouts = OP_LAYOUT_ANY,                                                                            \
        .is_clamp = clamps,                                                                                  \
        .is_unary = true,                                                                                    \
    }

#define UNARY_ROW(variable, onnx_name, max_inputs, clamps, gradient)                                         \
    UNARY_ROW_UNTIL(variable, onnx_name, OPSET_LAST, max_inputs, clamps, gradient)

UNARY_ROW(op_abs, "Abs", 1, false, unary_backward);
UNARY_ROW(op_ceil, "Ceil", 1, false, NULL);
UNARY_ROW_UNTIL(op_celu, "Celu", 28, 1, false, unary_backward);
UNARY_ROW(op_clip, "Clip", 3, true, unary_backward);
UNARY_ROW(op_elu, "Elu", 1, false, unary_backward);
UNARY_ROW(op_erf, "Erf", 1, false, unary_backward);
UNARY_ROW(op_exp, "Exp", 1, false, unary_backward);
UNARY_ROW(op_floor, "Floor", 1, false, NULL);
UNARY_ROW(op_gelu, "Gelu", 1, false, unary_backward);
UNARY_ROW(op_hard_sigmoid, "HardSigmoid", 1, false, unary_backward);
UNARY_ROW(op_hard_swish, "HardSwish", 1, false, unary_backward);
UNARY_ROW(op_leaky_relu, "LeakyRelu", 1, false, unary_backward);
UNARY_ROW(op_log, "Log", 1, false, unary_backward);
UNARY_ROW(op_mish, "Mish", 1, false, unary_backward);
UNARY_ROW(op_neg, "Neg", 1, false, unary_backward);
UNARY_ROW(op_reciprocal, "Reciprocal", 1, false, unary_backward);
UNARY_ROW(op_relu, "Relu", 1, true, unary_backward);
UNARY_ROW(op_round, "Round", 1, false, NULL);
UNARY_ROW(op_selu, "Selu", 1, false, unary_backward);
UNARY_ROW(op_sigmoid, "Sigmoid", 1, false, unary_backward);
UNARY_ROW(op_softplus, "Softplus", 1, false, unary_backward);
UNARY_ROW(op_sqrt, "Sqrt", 1, false, unary_backward);
UNARY_ROW(op_tanh, "Tanh", 1, false, unary_backward);
UNARY_ROW(op_sign, "Sign", 1, false, NULL);
UNARY_ROW(op_softsign, "Softsign", 1, false, unary_backward);
UNARY_ROW(op_swish, "Swish", 1, false, unary_backward);
UNARY_ROW(op_thresholded_relu, "ThresholdedRelu", 1, false, unary_backward);
