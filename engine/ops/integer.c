/* Operators of a quantised file's other spelling: ConvInteger, MatMulInteger, QLinearConv, QLinearMatMul and
 * DynamicQuantizeLinear. Sums of products of codes less their zero points, in int32; the QLinear ones go on
 * to codes of the result. */
#include "engine/ops/common.h"
#include "engine/ops/conv.h"
#include "engine/ops/element.h"
#include "engine/ops/gemm.h"
#include "engine/ops/rows.h"

static bool is_code(enum dtype t) {
    return t == DT_U8 || t == DT_S8;
}

static const struct tensor *input_at(const struct node *n, const struct tensor *const *in, int i) {
    return i < n->n_in ? in[i] : NULL;
}

static int32_t code_at(const struct tensor *t, int64_t i) {
    return t->dtype == DT_U8 ? ((const uint8_t *)t->data)[i] : ((const int8_t *)t->data)[i];
}

/* The zero point of channel i; 0 where none is given. */
static int32_t zero_at(const struct tensor *zero, int64_t i) {
    return zero ? code_at(zero, op_count(zero) == 1 ? 0 : i) : 0;
}

static float scale_at(const struct tensor *scale, int64_t i) {
    return (float)element_get(scale, op_count(scale) == 1 ? 0 : i);
}

/* Which inputs an operator takes its numbers from; -1: it has none of the kind. */
struct places {
    int x, x_scale, x_zero, w, w_scale, w_zero, y_scale, y_zero, bias;
};

static const struct places integer_places = {0, -1, 2, 1, -1, 3, -1, -1, -1};
static const struct places linear_places = {0, 1, 2, 3, 4, 5, 6, 7, 8};

static const struct places *places_of(const struct node *n) {
    return n->op == &op_qlinear_conv || n->op == &op_qlinear_matmul ? &linear_places : &integer_places;
}

/* One number, or one for each of `count`. */
static int check_list(const struct tensor *t, const char *what, int64_t count, struct error *err) {
    int64_t n = t ? op_count(t) : 1;

    if (n == 1 || n == count)
        return 0;
    return error_code(err, -EBADMSG, "shape_mismatch", "the %s has %lld numbers, not 1 or %lld", what,
        (long long)n, (long long)count);
}

static int check_scale(const struct tensor *t, const char *what, int64_t count, struct error *err) {
    if (!element_is_float(t->dtype))
        return error_code(err, -EBADMSG, "invalid_model", "the %s scale is not of floats", what);
    return check_list(t, what, count, err);
}

static int check_zero(
    const struct tensor *t, const char *what, enum dtype dtype, int64_t count, struct error *err) {
    if (t && t->dtype != dtype)
        return error_code(
            err, -EBADMSG, "invalid_model", "the %s zero point is not of the type of its data", what);
    return check_list(t, what, count, err);
}

/* Types, zero points and scales; `rows` and `columns`: channels of x and w that may have their own. */
static int check_codes(
    const struct node *n, const struct tensor *const *in, int64_t rows, int64_t columns, struct error *err) {
    const struct places *p = places_of(n);
    const struct tensor *x = in[p->x], *w = in[p->w],
                        *bias = input_at(n, in, p->bias < 0 ? n->n_in : p->bias);
    int r;

    if (!is_code(x->dtype) || !is_code(w->dtype))
        return error_code(err, -EBADMSG, "unsupported_operator", "only uint8 and int8 are supported here");
    r = check_zero(input_at(n, in, p->x_zero), "input's", x->dtype, rows, err);
    if (r == 0)
        r = check_zero(input_at(n, in, p->w_zero), "weights'", w->dtype, columns, err);
    if (r < 0 || p->x_scale < 0)
        return r;
    r = check_scale(in[p->x_scale], "input's", rows, err);
    if (r == 0)
        r = check_scale(in[p->w_scale], "weights'", columns, err);
    if (r == 0)
        r = check_scale(in[p->y_scale], "output's", 1, err);
    if (r == 0)
        r = check_zero(in[p->y_zero], "output's", in[p->y_zero]->dtype, 1, err);
    if (r < 0)
        return r;
    if (!is_code(in[p->y_zero]->dtype))
        return error_code(err, -EBADMSG, "unsupported_operator", "only uint8 and int8 are supported here");
    if (bias && (bias->dtype != DT_S32 || op_count(bias) != columns))
        return error_code(err, -EBADMSG, "shape_mismatch",
            "the bias is not one int32 for each of %lld channels", (long long)columns);
    return 0;
}

static void store(const struct node *n, const struct tensor *const *in, struct tensor *y, int64_t i,
    uint32_t sum, int64_t row, int64_t column) {
    const struct places *p = places_of(n);
    const struct tensor *bias;
    float v, low, high;

    if (p->x_scale < 0) {
        ((int32_t *)y->data)[i] = (int32_t)sum;
        return;
    }
    bias = input_at(n, in, p->bias);
    sum += bias ? (uint32_t)((const int32_t *)bias->data)[column] : 0;
    v = scale_at(in[p->x_scale], row) * scale_at(in[p->w_scale], column) / scale_at(in[p->y_scale], 0);
    v = nearbyintf((float)(int32_t)sum * v) + (float)code_at(in[p->y_zero], 0);
    low = y->dtype == DT_U8 ? 0 : -128;
    high = low + 255;
    v = v < low ? low : v > high ? high : v == v ? v : 0;
    ((uint8_t *)y->data)[i] = (uint8_t)(int)v;
}

static enum dtype result_type(const struct node *n, const struct tensor *const *in) {
    const struct places *p = places_of(n);

    return p->y_zero < 0 ? DT_S32 : in[p->y_zero]->dtype;
}

static int conv_codes_shape(
    const struct node *n, const struct tensor *const *in, struct tensor *out, struct error *err) {
    const struct places *p = places_of(n);
    const struct conv_param *param = n->param;
    const struct shape *x = &in[p->x]->shape, *w = &in[p->w]->shape;
    char tx[SHAPE_TEXT_MAX], tw[SHAPE_TEXT_MAX];
    struct window_at at;
    int r;

    if (x->rank != w->rank || x->rank < 3 || x->dim[1] != w->dim[1] * param->group ||
        w->dim[0] % param->group)
        return error_code(err, -EBADMSG, "shape_mismatch",
            "weights %s with %lld groups do not fit the input %s", shape_text(w, tw), (long long)param->group,
            shape_text(x, tx));
    r = check_codes(n, in, 1, w->dim[0], err);
    if (r == 0)
        r = conv_place(n, x, w, &at, err);
    if (r < 0)
        return r;
    out[0].dtype = result_type(n, in);
    out[0].shape = (struct shape){.rank = x->rank, .dim = {x->dim[0], w->dim[0]}};
    for (int i = 0; i < at.dims; i++)
        out[0].shape.dim[i + 2] = at.out[i];
    return 0;
}

struct conv_codes {
    struct window_at at; /* three dimensions */
    const struct tensor *x, *w;
    int64_t channels, plane_in, plane_out, taps;
    int32_t x_zero;
};

/* One output element: `x` and `w` are where its group's input and its filter begin. Padding is the zero
 * point, so it adds nothing. Sums wrap. */
static uint32_t sum_window(const struct conv_codes *c, int64_t x, int64_t w, int32_t w_zero, int64_t out) {
    const struct window_at *p = &c->at;
    int64_t o[3] = {out / (p->out[1] * p->out[2]), out / p->out[2] % p->out[1], out % p->out[2]};
    uint32_t sum = 0;

    for (int64_t t = 0; t < c->taps; t++) {
        int64_t k[3] = {t / (p->kernel[1] * p->kernel[2]), t / p->kernel[2] % p->kernel[1], t % p->kernel[2]};
        int64_t at = 0;
        bool is_inside = true;

        for (int d = 0; d < 3; d++) {
            int64_t i = o[d] * p->stride[d] + k[d] * p->dilation[d] - p->begin[d];

            is_inside = is_inside && i >= 0 && i < p->in[d];
            at = at * p->in[d] + i;
        }
        for (int64_t i = 0; is_inside && i < c->channels; i++)
            sum += (uint32_t)((code_at(c->x, x + i * c->plane_in + at) - c->x_zero) *
                              (code_at(c->w, w + i * c->taps + t) - w_zero));
    }
    return sum;
}

static void conv_codes_forward(
    const struct node *n, const struct tensor *const *in, struct tensor *out, void *scratch) {
    const struct places *p = places_of(n);
    const struct conv_param *param = n->param;
    const struct shape *x = &in[p->x]->shape, *w = &in[p->w]->shape;
    int64_t outputs = w->dim[0], per_group = outputs / param->group;
    struct conv_codes c = {.x = in[p->x], .w = in[p->w], .channels = w->dim[1]};
    struct window_at at;

    (void)scratch;
    if (conv_place(n, x, w, &at, NULL) < 0)
        return; /* shape() placed it before */
    c.at = window_to_3d(&at);
    c.plane_in = c.at.in[0] * c.at.in[1] * c.at.in[2];
    c.plane_out = c.at.out[0] * c.at.out[1] * c.at.out[2];
    c.taps = c.at.kernel[0] * c.at.kernel[1] * c.at.kernel[2];
    c.x_zero = zero_at(input_at(n, in, p->x_zero), 0);
    for (int64_t k = 0; k < x->dim[0] * outputs; k++) {
        int64_t o = k % outputs, first = k / outputs * x->dim[1] + o / per_group * c.channels;
        int32_t w_zero = zero_at(input_at(n, in, p->w_zero), o);

        for (int64_t i = 0; i < c.plane_out; i++)
            store(n, in, &out[0], k * c.plane_out + i,
                sum_window(&c, first * c.plane_in, o * c.channels * c.taps, w_zero, i), 0, o);
    }
}

static void conv_codes_cost(
    const struct node *n, const struct tensor *const *in, const struct tensor *out, struct op_cost *ret) {
    const struct tensor *w = in[places_of(n)->w];

    op_cost_move(n, in, out, ret);
    ret->macs = w->shape.dim[0] ? op_count(&out[0]) * (op_count(w) / w->shape.dim[0]) : 0;
}

static int matmul_codes_shape(
    const struct node *n, const struct tensor *const *in, struct tensor *out, struct error *err) {
    const struct places *p = places_of(n);
    const struct shape *a = &in[p->x]->shape, *b = &in[p->w]->shape;
    struct matmul s;
    int r = matmul_sizes(a, b, &s, err);

    if (r == 0)
        r = check_codes(n, in, s.m, s.n, err);
    if (r < 0)
        return r;
    out[0].dtype = result_type(n, in);
    out[0].shape = s.batch;
    if (a->rank > 1)
        out[0].shape.dim[out[0].shape.rank++] = s.m;
    if (b->rank > 1)
        out[0].shape.dim[out[0].shape.rank++] = s.n;
    return 0;
}

static void matmul_codes_forward(
    const struct node *n, const struct tensor *const *in, struct tensor *out, void *scratch) {
    const struct places *p = places_of(n);
    const struct tensor *a = in[p->x], *b = in[p->w];
    const struct tensor *a_zero = input_at(n, in, p->x_zero), *b_zero = input_at(n, in, p->w_zero);
    int64_t count = op_count(&out[0]);
    struct matmul s;

    (void)scratch;
    if (matmul_sizes(&a->shape, &b->shape, &s, NULL) < 0)
        return; /* shape() checked it */
    for (int64_t i = 0; i < count; i++) {
        int64_t row = i / s.n % s.m, column = i % s.n, batch = i / (s.m * s.n);
        int64_t ia = matmul_offset(&a->shape, &s.batch, batch, s.m * s.k) + row * s.k;
        int64_t ib = matmul_offset(&b->shape, &s.batch, batch, s.k * s.n) + column;
        int32_t za = zero_at(a_zero, row), zb = zero_at(b_zero, column);
        uint32_t sum = 0;

        for (int64_t k = 0; k < s.k; k++)
            sum += (uint32_t)((code_at(a, ia + k) - za) * (code_at(b, ib + k * s.n) - zb));
        store(n, in, &out[0], i, sum, row, column);
    }
}

static void matmul_codes_cost(
    const struct node *n, const struct tensor *const *in, const struct tensor *out, struct op_cost *ret) {
    op_cost_move(n, in, out, ret);
    ret->macs = op_count(&out[0]) * in[0]->shape.dim[in[0]->shape.rank - 1];
}

static int dynamic_shape(
    const struct node *n, const struct tensor *const *in, struct tensor *out, struct error *err) {
    int r = op_check_float(in[0], err);

    (void)n;
    if (r < 0)
        return r;
    for (int i = 0; i < 3; i++)
        out[i] = (struct tensor){.dtype = i == 1 ? DT_F32 : DT_U8};
    out[0].shape = in[0]->shape;
    return 0;
}

/* The range of the data, widened to hold 0, onto 0 to 255. */
static void dynamic_forward(
    const struct node *n, const struct tensor *const *in, struct tensor *out, void *scratch) {
    const float *x = in[0]->data;
    int64_t count = op_count(in[0]);
    float low = 0, high = 0, scale, zero;

    (void)n;
    (void)scratch;
    for (int64_t i = 0; i < count; i++) {
        low = x[i] < low ? x[i] : low;
        high = x[i] > high ? x[i] : high;
    }
    scale = (high - low) / 255;
    scale = scale > 0 ? scale : 1; /* all zero */
    zero = nearbyintf(-low / scale);
    zero = zero > 255 ? 255 : zero > 0 ? zero : 0; /* also where it is no number */
    for (int64_t i = 0; i < count; i++) {
        float v = nearbyintf(x[i] / scale) + zero;

        ((uint8_t *)out[0].data)[i] = (uint8_t)(int)(v < 0 ? 0 : v > 255 ? 255 : v == v ? v : 0);
    }
    *(float *)out[1].data = scale;
    *(uint8_t *)out[2].data = (uint8_t)(int)zero;
}

const struct op op_dynamic_quantize_linear = {
    .name = "DynamicQuantizeLinear",
    .domain = "",
    .since = 11,
    .until = OPSET_LAST,
    .min_in = 1,
    .max_in = 1,
    .min_out = 3,
    .max_out = 3,
    .shape = dynamic_shape,
    .forward = dynamic_forward,
    .cost = op_cost_move,
    .couple = OP_COUPLE_NONE,
    .quant = OP_QUANT_FLOAT,
    .sees_codes = true,
};

#define CODES_ROW(variable, onnx_name, first, least, most, parse_fn, shape_fn, run, cost_fn)                 \
    const struct op variable = {                                                                             \
        .name = onnx_name,                                                                                   \
        .domain = "",                                                                                        \
        .since = first,                                                                                      \
        .until = OPSET_LAST,                                                                                 \
        .min_in = least,                                                                                     \
        .max_in = most,                                                                                      \
        .min_out = 1,                                                                                        \
        .max_out = 1,                                                                                        \
        .parse = parse_fn,                                                                                   \
        .shape = shape_fn,                                                                                   \
        .forward = run,                                                                                      \
        .cost = cost_fn,                                                                                     \
        .couple = OP_COUPLE_NONE,                                                                            \
        .quant = OP_QUANT_FLOAT,                                                                             \
        .sees_codes = true,                                                                                  \
    }

CODES_ROW(op_conv_integer, "ConvInteger", 10, 2, 4, conv_parse, conv_codes_shape, conv_codes_forward,
    conv_codes_cost);
CODES_ROW(op_matmul_integer, "MatMulInteger", 10, 2, 4, NULL, matmul_codes_shape, matmul_codes_forward,
    matmul_codes_cost);
CODES_ROW(op_qlinear_conv, "QLinearConv", 10, 8, 9, conv_parse, conv_codes_shape, conv_codes_forward,
    conv_codes_cost);
CODES_ROW(op_qlinear_matmul, "QLinearMatMul", 10, 8, 8, NULL, matmul_codes_shape, matmul_codes_forward,
    matmul_codes_cost);
