/* BatchNormalization (inference), LRN, Softmax, LogSoftmax. */
#include "engine/ops/norm.h"
#include "engine/ops/common.h"
#include "engine/ops/grad.h"
#include "engine/ops/rows.h"

static int batch_norm_parse(struct graph *g, struct node *n, struct error *err) {
    struct batch_norm_param *p = graph_alloc(g, sizeof(*p));

    if (!p)
        return error_oom(err);
    p->epsilon = node_attr_float(n, "epsilon", 1e-5f);
    n->param = p;
    /* before opset 7 a batch norm says that it is not training */
    if (node_attr_int(n, "training_mode", 0) || n->n_out > 1 ||
        (g->opset < 7 && !node_attr_int(n, "is_test", 0)))
        return error_code(err, -EBADMSG, "unsupported_operator", "training mode is not supported");
    if (!node_attr_int(n, "spatial", 1))
        return error_code(
            err, -EBADMSG, "unsupported_operator", "statistics of each pixel are not supported");
    return 0;
}

static int batch_norm_shape(
    const struct node *n, const struct tensor *const *in, struct tensor *out, struct error *err) {
    int64_t channels = in[0]->shape.rank > 1 ? in[0]->shape.dim[1] : 1;

    for (int i = 0; i < 5; i++) {
        if (op_check_float(in[i], err) < 0)
            return -EBADMSG;
        if (i && op_count(in[i]) != channels)
            return error_code(err, -EBADMSG, "shape_mismatch", "input %d has %lld values for %lld channels",
                i, (long long)op_count(in[i]), (long long)channels);
    }
    return op_shape_same(n, in, out, err);
}

static void batch_norm_forward(
    const struct node *n, const struct tensor *const *in, struct tensor *out, void *scratch) {
    const struct batch_norm_param *p = n->param;
    const float *gamma = in[1]->data, *beta = in[2]->data, *mean = in[3]->data, *var = in[4]->data;
    int64_t outer, channels, plane;

    (void)scratch;
    op_split_shape(&in[0]->shape, 1, &outer, &channels, &plane);
    for (int64_t k = 0; k < outer * channels; k++) {
        int64_t c = k % channels;
        float scale = gamma[c] / sqrtf(var[c] + p->epsilon), shift = beta[c] - mean[c] * scale;
        const float *x = (const float *)in[0]->data + k * plane;
        float *y = (float *)out[0].data + k * plane;

        for (int64_t i = 0; i < plane; i++)
            y[i] = x[i] * scale + shift;
    }
}

const struct op op_batch_normalization = {
    .name = "BatchNormalization",
    .domain = "",
    .since = 1,
    .until = OPSET_LAST,
    .min_in = 5,
    .max_in = 5,
    .min_out = 1,
    .max_out = 5,
    .parse = batch_norm_parse,
    .shape = batch_norm_shape,
    .forward = batch_norm_forward,
    .backward = batch_norm_backward,
    .params = 1u << 1 | 1u << 2,
    .stats = 1u << 3 | 1u << 4,
    .cost = op_cost_elementwise,
    .saves = OP_SAVES_IN,
    .couple = OP_COUPLE_SAME,
    .quant = OP_QUANT_FLOAT,
};

static int lrn_parse(struct graph *g, struct node *n, struct error *err) {
    struct lrn_param *p = graph_alloc(g, sizeof(*p));

    if (!p)
        return error_oom(err);
    *p = (struct lrn_param){
        .size = node_attr_int(n, "size", 0),
        .alpha = node_attr_float(n, "alpha", 1e-4f),
        .beta = node_attr_float(n, "beta", 0.75f),
        .bias = node_attr_float(n, "bias", 1),
    };
    n->param = p;
    if (p->size < 1)
        return error_code(err, -EBADMSG, "invalid_model", "size is %lld", (long long)p->size);
    return 0;
}

static int float_same_shape(
    const struct node *n, const struct tensor *const *in, struct tensor *out, struct error *err) {
    int r = op_check_float(in[0], err);

    if (r < 0)
        return r;
    return op_shape_same(n, in, out, err);
}

/* y = x / (bias + alpha / size * sum of squares of the neighbours)^beta (Krizhevsky 2012, section 3.3) */
static void lrn_forward(
    const struct node *n, const struct tensor *const *in, struct tensor *out, void *scratch) {
    const struct lrn_param *p = n->param;
    int64_t outer, channels, plane, before = (p->size - 1) / 2, after = p->size - 1 - before;

    (void)scratch;
    op_split_shape(&in[0]->shape, 1, &outer, &channels, &plane);
    for (int64_t b = 0; b < outer; b++)
        for (int64_t c = 0; c < channels; c++)
            for (int64_t i = 0; i < plane; i++) {
                const float *x = (const float *)in[0]->data + b * channels * plane + i;
                float sum = 0;

                for (int64_t k = c > before ? c - before : 0; k <= c + after && k < channels; k++)
                    sum += x[k * plane] * x[k * plane];
                ((float *)out[0].data)[(b * channels + c) * plane + i] =
                    x[c * plane] / powf(p->bias + p->alpha / (float)p->size * sum, p->beta);
            }
}

const struct op op_lrn = {
    .name = "LRN",
    .domain = "",
    .since = 1,
    .until = OPSET_LAST,
    .min_in = 1,
    .max_in = 1,
    .min_out = 1,
    .max_out = 1,
    .parse = lrn_parse,
    .shape = float_same_shape,
    .forward = lrn_forward,
    .backward = lrn_backward,
    .cost = op_cost_elementwise,
    .saves = OP_SAVES_IN,
    .couple = OP_COUPLE_NONE, /* neighbours share a sum */
    .quant = OP_QUANT_FLOAT,
};

static int softmax_parse(struct graph *g, struct node *n, struct error *err) {
    struct softmax_param *p = graph_alloc(g, sizeof(*p));

    if (!p)
        return error_oom(err);
    p->is_flat = g->opset < 13;
    p->axis = node_attr_int(n, "axis", p->is_flat ? 1 : -1);
    n->param = p;
    return 0;
}

static int softmax_shape(
    const struct node *n, const struct tensor *const *in, struct tensor *out, struct error *err) {
    const struct softmax_param *p = n->param;
    int axis;

    if (op_axis(p->axis, in[0]->shape.rank, p->is_flat, &axis, err) < 0)
        return -EBADMSG;
    return float_same_shape(n, in, out, err);
}

static void softmax_row(const float *x, float *y, int64_t n, int64_t step, bool is_log) {
    float max = -HUGE_VALF;
    double sum = 0;

    for (int64_t i = 0; i < n; i++)
        max = x[i * step] > max ? x[i * step] : max;
    for (int64_t i = 0; i < n; i++) {
        y[i * step] = is_log ? x[i * step] - max : expf(x[i * step] - max);
        sum += is_log ? exp((double)y[i * step]) : (double)y[i * step];
    }
    for (int64_t i = 0; i < n; i++)
        y[i * step] = is_log ? y[i * step] - (float)log(sum) : (float)((double)y[i * step] / sum);
}

static void softmax_forward(
    const struct node *n, const struct tensor *const *in, struct tensor *out, void *scratch) {
    const struct softmax_param *p = n->param;
    bool is_log = n->op == &op_log_softmax;
    int64_t outer, mid, inner;
    int axis = 0;

    (void)scratch;
    (void)op_axis(p->axis, in[0]->shape.rank, p->is_flat, &axis, NULL);
    op_split_shape(&in[0]->shape, axis, &outer, &mid, &inner);
    if (p->is_flat) { /* before opset 13 everything from the axis on is one row */
        mid *= inner;
        inner = 1;
    }
    for (int64_t o = 0; o < outer; o++)
        for (int64_t i = 0; i < inner; i++)
            softmax_row((const float *)in[0]->data + o * mid * inner + i,
                (float *)out[0].data + o * mid * inner + i, mid, inner, is_log);
}

#define SOFTMAX_ROW(variable, onnx_name)                                                                     \
    const struct op variable = {                                                                             \
        .name = onnx_name,                                                                                   \
        .domain = "",                                                                                        \
        .since = 1,                                                                                          \
        .until = OPSET_LAST,                                                                                 \
        .min_in = 1,                                                                                         \
        .max_in = 1,                                                                                         \
        .min_out = 1,                                                                                        \
        .max_out = 1,                                                                                        \
        .parse = softmax_parse,                                                                              \
        .shape = softmax_shape,                                                                              \
        .forward = softmax_forward,                                                                          \
        .backward = softmax_backward,                                                                        \
        .cost = op_cost_elementwise,                                                                         \
        .saves = OP_SAVES_OUT,                                                                               \
        .couple = OP_COUPLE_NONE,                                                                            \
        .quant = OP_QUANT_FLOAT,                                                                             \
    }

SOFTMAX_ROW(op_log_softmax, "LogSoftmax");
SOFTMAX_ROW(op_softmax, "Softmax");
