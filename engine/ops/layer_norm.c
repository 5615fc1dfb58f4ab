/* Normalisations whose mean and variance come from the input itself: LayerNormalization (over the last
 * dimensions), InstanceNormalization (over each plane), GroupNormalization (over groups of planes),
 * MeanVarianceNormalization (over given axes), LpNormalization (a length of 1 along an axis). */
#include "engine/ops/layer_norm.h"

#include "engine/ops/common.h"
#include "engine/ops/element.h"
#include "engine/ops/grad.h"
#include "engine/ops/rows.h"

struct moments {
    double mean, inv; /* inv: 1 / sqrt(variance + epsilon) */
};

/* Sum of (x - mean)^power, power 1 or 2, in eight sums that run side by side. */
static double sum_of(const float *x, int64_t n, double mean, bool is_square) {
    double part[8] = {0}, sum = 0;
    int64_t whole = n / 8 * 8;

    for (int64_t i = 0; i < whole; i += 8)
        for (int k = 0; k < 8; k++) {
            double d = (double)x[i + k] - mean;

            part[k] += is_square ? d * d : d;
        }
    for (int k = 0; k < 8; k++)
        sum += part[k];
    for (int64_t i = whole; i < n; i++) {
        double d = (double)x[i] - mean;

        sum += is_square ? d * d : d;
    }
    return sum;
}

static struct moments moments_of(const float *x, int64_t n, float epsilon) {
    double mean = n ? sum_of(x, n, 0, false) / (double)n : 0;
    double variance = n ? sum_of(x, n, mean, true) / (double)n : 0;

    return (struct moments){mean, 1 / sqrt(variance + (double)epsilon)};
}

/* y = (x - mean) inv scale + bias for a run with one scale and bias */
static void normalise(struct moments m, const float *x, float scale, float bias, int64_t n, float *y) {
    float a = (float)m.inv * scale, b = bias - (float)(m.mean * m.inv) * scale;

    for (int64_t i = 0; i < n; i++)
        y[i] = x[i] * a + b;
}

/* y = (x - mean) inv scale[i] + bias[i] */
static void normalise_row(
    struct moments m, const float *x, const float *scale, const float *bias, int64_t n, float *y) {
    float mean = (float)m.mean, inv = (float)m.inv;

    for (int64_t i = 0; i < n; i++)
        y[i] = (x[i] - mean) * inv * scale[i];
    for (int64_t i = 0; bias && i < n; i++)
        y[i] += bias[i];
}

static int check_floats(const struct node *n, const struct tensor *const *in, struct error *err) {
    for (int i = 0; i < n->n_in; i++)
        if (in[i] && op_check_float(in[i], err) < 0)
            return -EBADMSG;
    return 0;
}

static int layer_axis(const struct node *n, const struct tensor *x, int *ret, struct error *err) {
    return op_axis(node_attr_int(n, "axis", -1), x->shape.rank, false, ret, err);
}

static int layer_norm_shape(
    const struct node *n, const struct tensor *const *in, struct tensor *out, struct error *err) {
    const struct shape *x = &in[0]->shape;
    char a[SHAPE_TEXT_MAX], b[SHAPE_TEXT_MAX];
    struct shape rest = {0};
    int axis, r = layer_axis(n, in[0], &axis, err);

    if (r < 0 || (r = check_floats(n, in, err)) < 0)
        return r;
    for (int i = axis; i < x->rank; i++)
        rest.dim[rest.rank++] = x->dim[i];
    for (int i = 1; i < n->n_in; i++)
        if (in[i] && !shape_equal(&in[i]->shape, &rest))
            return error_code(err, -EBADMSG, "shape_mismatch",
                "input %d is %s, the normalised dimensions are %s", i, shape_text(&in[i]->shape, a),
                shape_text(&rest, b));
    for (int k = 0; k < n->n_out; k++) {
        out[k].dtype = DT_F32;
        out[k].shape = *x;
        for (int i = axis; k && i < x->rank; i++)
            out[k].shape.dim[i] = 1;
    }
    return 0;
}

static void layer_norm_forward(
    const struct node *n, const struct tensor *const *in, struct tensor *out, void *scratch) {
    const float *bias = n->n_in > 2 && in[2] ? in[2]->data : NULL;
    float epsilon = node_attr_float(n, "epsilon", 1e-5f);
    int64_t rows = 1, size = 1;
    int axis = 0;

    (void)scratch;
    (void)layer_axis(n, in[0], &axis, NULL);
    for (int i = 0; i < in[0]->shape.rank; i++)
        *(i < axis ? &rows : &size) *= in[0]->shape.dim[i];
    for (int64_t k = 0; k < rows; k++) {
        const float *x = (const float *)in[0]->data + k * size;
        struct moments m = moments_of(x, size, epsilon);

        normalise_row(m, x, in[1]->data, bias, size, (float *)out[0].data + k * size);
        if (n->n_out > 1 && out[1].data)
            ((float *)out[1].data)[k] = (float)m.mean;
        if (n->n_out > 2 && out[2].data)
            ((float *)out[2].data)[k] = (float)m.inv;
    }
}

static int group_norm_parse(struct graph *g, struct node *n, struct error *err) {
    struct group_param *p = graph_alloc(g, sizeof(*p));

    if (!p)
        return error_oom(err);
    *p = (struct group_param){.epsilon = node_attr_float(n, "epsilon", 1e-5f)};
    n->param = p;
    if (n->op == &op_instance_normalization)
        return 0;
    p->groups = node_attr_int(n, "num_groups", 0);
    p->scales_are_groups = g->opset < 21;
    if (p->groups < 1)
        return error_code(err, -EBADMSG, "invalid_model", "num_groups is %lld", (long long)p->groups);
    return 0;
}

static int group_norm_shape(
    const struct node *n, const struct tensor *const *in, struct tensor *out, struct error *err) {
    const struct group_param *p = n->param;
    const struct shape *x = &in[0]->shape;
    int64_t channels, want;

    if (check_floats(n, in, err) < 0)
        return -EBADMSG;
    if (x->rank < 2)
        return error_code(err, -EBADMSG, "shape_mismatch", "the input has no channels");
    channels = x->dim[1];
    if (p->groups && channels % p->groups)
        return error_code(err, -EBADMSG, "shape_mismatch", "%lld channels are not %lld equal groups",
            (long long)channels, (long long)p->groups);
    want = p->scales_are_groups ? p->groups : channels;
    for (int i = 1; i < 3; i++)
        if (in[i]->shape.rank != 1 || in[i]->shape.dim[0] != want)
            return error_code(err, -EBADMSG, "shape_mismatch", "input %d has %lld values, %lld are needed", i,
                (long long)op_count(in[i]), (long long)want);
    return op_shape_same(n, in, out, err);
}

static void group_norm_forward(
    const struct node *n, const struct tensor *const *in, struct tensor *out, void *scratch) {
    const struct group_param *p = n->param;
    const float *scale = in[1]->data, *bias = in[2]->data;
    int64_t batch, channels, plane, each;

    (void)scratch;
    op_split_shape(&in[0]->shape, 1, &batch, &channels, &plane);
    each = p->groups ? channels / p->groups : 1;
    for (int64_t k = 0; k < batch * channels; k += each) {
        const float *x = (const float *)in[0]->data + k * plane;
        struct moments m = moments_of(x, each * plane, p->epsilon);

        for (int64_t c = 0; c < each; c++) {
            int64_t channel = (k + c) % channels, s = p->scales_are_groups ? channel / each : channel;

            normalise(m, x + c * plane, scale[s], bias[s], plane, (float *)out[0].data + (k + c) * plane);
        }
    }
}

int variance_axes(const struct node *n, int rank, unsigned *ret, struct error *err) {
    static const int64_t dflt[] = {0, 2, 3};
    const struct attr *a = node_attr(n, "axes");
    const int64_t *axes = a && a->type == ATTR_INTS ? a->ints : dflt;
    size_t count = a && a->type == ATTR_INTS ? a->n : 3;

    *ret = 0;
    for (size_t i = 0; i < count; i++) {
        int axis, r = op_axis(axes[i], rank, false, &axis, err);

        if (r < 0)
            return r;
        *ret |= 1u << axis;
    }
    return 0;
}

static int variance_shape(
    const struct node *n, const struct tensor *const *in, struct tensor *out, struct error *err) {
    unsigned axes;
    int r = op_check_float(in[0], err);

    if (r == 0)
        r = variance_axes(n, in[0]->shape.rank, &axes, err);
    return r < 0 ? r : op_shape_same(n, in, out, err);
}

int64_t variance_group_of(const struct shape *s, unsigned axes, int64_t i) {
    int64_t to = 0, step = 1;

    for (int d = s->rank - 1; d >= 0; d--) {
        if (!(axes & 1u << d)) {
            to += i % s->dim[d] * step;
            step *= s->dim[d];
        }
        i /= s->dim[d];
    }
    return to;
}

int64_t variance_count_groups(const struct shape *s, unsigned axes) {
    int64_t n = 1;

    for (int d = 0; d < s->rank; d++)
        n *= axes & 1u << d ? 1 : s->dim[d];
    return n;
}

/* Sums and sums of squares of each group. */
static size_t variance_scratch(
    const struct node *n, const struct tensor *const *in, const struct tensor *out) {
    unsigned axes = 0;

    (void)out;
    (void)variance_axes(n, in[0]->shape.rank, &axes, NULL);
    return (size_t)variance_count_groups(&in[0]->shape, axes) * 2 * sizeof(double);
}

/* y = (x - mean) / (deviation + 1e-9), as ONNX spells it as a function */
static void variance_forward(
    const struct node *n, const struct tensor *const *in, struct tensor *out, void *scratch) {
    const struct shape *s = &in[0]->shape;
    const float *x = in[0]->data;
    int64_t count = op_count(in[0]), groups;
    double *mean = scratch, *square, each;
    unsigned axes = 0;

    (void)variance_axes(n, s->rank, &axes, NULL);
    groups = variance_count_groups(s, axes);
    square = mean + groups;
    each = groups ? (double)count / (double)groups : 1;
    memset(mean, 0, (size_t)groups * 2 * sizeof(*mean));
    for (int64_t i = 0; i < count; i++)
        mean[variance_group_of(s, axes, i)] += (double)x[i] / each;
    for (int64_t i = 0; i < count; i++) {
        int64_t k = variance_group_of(s, axes, i);

        square[k] += ((double)x[i] - mean[k]) * ((double)x[i] - mean[k]) / each;
    }
    for (int64_t i = 0; i < count; i++) {
        int64_t k = variance_group_of(s, axes, i);

        ((float *)out[0].data)[i] = (float)(((double)x[i] - mean[k]) / (sqrt(square[k]) + 1e-9));
    }
}

static int length_shape(
    const struct node *n, const struct tensor *const *in, struct tensor *out, struct error *err) {
    int64_t p = node_attr_int(n, "p", 2);
    int axis, r = op_axis(node_attr_int(n, "axis", -1), in[0]->shape.rank, false, &axis, err);

    if (r < 0)
        return r;
    if (!element_is_float(in[0]->dtype))
        return error_code(err, -EBADMSG, "unsupported_operator", "only floats are supported here");
    if (p != 1 && p != 2)
        return error_code(err, -EBADMSG, "invalid_model", "p is %lld, not 1 or 2", (long long)p);
    return op_shape_same(n, in, out, err);
}

static size_t length_scratch(const struct node *n, const struct tensor *const *in, const struct tensor *out) {
    int64_t outer, mid, inner;
    int axis = 0;

    (void)out;
    (void)op_axis(node_attr_int(n, "axis", -1), in[0]->shape.rank, false, &axis, NULL);
    op_split_shape(&in[0]->shape, axis, &outer, &mid, &inner);
    return (size_t)inner * sizeof(double);
}

/* One outer index: x[mid][inner], a length for each of the inner elements. */
static void length_floats(
    const float *x, int64_t mid, int64_t inner, bool is_absolute, double *sum, float *y) {
    for (int64_t j = 0; j < inner; j++)
        sum[j] = 0;
    for (int64_t i = 0; i < mid; i++)
        for (int64_t j = 0; j < inner; j++) {
            double v = (double)x[i * inner + j];

            sum[j] += is_absolute ? fabs(v) : v * v;
        }
    for (int64_t j = 0; j < inner; j++) {
        sum[j] = is_absolute ? sum[j] : sqrt(sum[j]);
        sum[j] = sum[j] > 0 ? 1 / sum[j] : 0;
    }
    for (int64_t i = 0; i < mid; i++)
        for (int64_t j = 0; j < inner; j++)
            y[i * inner + j] = (float)((double)x[i * inner + j] * sum[j]);
}

/* The same for other types, one row of stride `inner` at a time. */
static void length_row(
    const struct tensor *x, struct tensor *y, int64_t first, int64_t mid, int64_t inner, bool is_absolute) {
    double sum = 0;

    for (int64_t i = 0; i < mid; i++) {
        double v = element_get(x, first + i * inner);

        sum += is_absolute ? fabs(v) : v * v;
    }
    sum = is_absolute ? sum : sqrt(sum);
    for (int64_t i = 0; i < mid; i++)
        element_set(y, first + i * inner, sum > 0 ? element_get(x, first + i * inner) / sum : 0);
}

/* y = x / |x|_p along the axis; zeros stay zeros */
static void length_forward(
    const struct node *n, const struct tensor *const *in, struct tensor *out, void *scratch) {
    bool is_absolute = node_attr_int(n, "p", 2) == 1, is_float = in[0]->dtype == DT_F32;
    int64_t outer, mid, inner;
    int axis = 0;

    (void)op_axis(node_attr_int(n, "axis", -1), in[0]->shape.rank, false, &axis, NULL);
    op_split_shape(&in[0]->shape, axis, &outer, &mid, &inner);
    for (int64_t o = 0; o < outer; o++) {
        int64_t first = o * mid * inner;

        if (is_float)
            length_floats((const float *)in[0]->data + first, mid, inner, is_absolute, scratch,
                (float *)out[0].data + first);
        for (int64_t j = 0; !is_float && j < inner; j++)
            length_row(in[0], &out[0], first + j, mid, inner, is_absolute);
    }
}

const struct op op_layer_normalization = {
    .name = "LayerNormalization",
    .domain = "",
    .since = 17,
    .until = OPSET_LAST,
    .min_in = 2,
    .max_in = 3,
    .min_out = 1,
    .max_out = 3,
    .shape = layer_norm_shape,
    .forward = layer_norm_forward,
    .backward = layer_norm_backward,
    .cost = op_cost_elementwise,
    .params = 1u << 1 | 1u << 2,
    .saves = OP_SAVES_IN,
    .couple = OP_COUPLE_NONE,
    .quant = OP_QUANT_FLOAT,
};

#define OWN_NORM_ROW(variable, onnx_name, first, inputs, parse_fn, shape_fn, scratch_fn, run, gradient,      \
    gradient_scratch, coupling)                                                                              \
    const struct op variable = {                                                                             \
        .name = onnx_name,                                                                                   \
        .domain = "",                                                                                        \
        .since = first,                                                                                      \
        .until = OPSET_LAST,                                                                                 \
        .min_in = inputs,                                                                                    \
        .max_in = inputs,                                                                                    \
        .min_out = 1,                                                                                        \
        .max_out = 1,                                                                                        \
        .parse = parse_fn,                                                                                   \
        .shape = shape_fn,                                                                                   \
        .scratch = scratch_fn,                                                                               \
        .forward = run,                                                                                      \
        .backward = gradient,                                                                                \
        .backward_scratch = gradient_scratch,                                                                \
        .params = inputs == 3 ? 1u << 1 | 1u << 2 : 0,                                                       \
        .cost = op_cost_elementwise,                                                                         \
        .saves = OP_SAVES_IN,                                                                                \
        .couple = coupling,                                                                                  \
        .quant = OP_QUANT_FLOAT,                                                                             \
    }

OWN_NORM_ROW(op_group_normalization, "GroupNormalization", 18, 3, group_norm_parse, group_norm_shape, NULL,
    group_norm_forward, group_norm_backward, NULL, OP_COUPLE_NONE);
OWN_NORM_ROW(op_instance_normalization, "InstanceNormalization", 1, 3, group_norm_parse, group_norm_shape,
    NULL, group_norm_forward, group_norm_backward, NULL, OP_COUPLE_SAME);
OWN_NORM_ROW(op_lp_normalization, "LpNormalization", 1, 1, NULL, length_shape, length_scratch, length_forward,
    length_backward, NULL, OP_COUPLE_NONE);
OWN_NORM_ROW(op_mean_variance_normalization, "MeanVarianceNormalization", 9, 1, NULL, variance_shape,
    variance_scratch, variance_forward, variance_backward, variance_backward_scratch, OP_COUPLE_NONE);
