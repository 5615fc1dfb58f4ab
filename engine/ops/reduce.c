/* Reductions: ReduceMean, ReduceSum, ReduceMax, ReduceMin, ReduceProd, ReduceL1, ReduceL2, ReduceSumSquare,
 * ReduceLogSum, ReduceLogSumExp. */
#include "engine/ops/common.h"
#include "engine/ops/element.h"
#include "engine/ops/grad.h"
#include "engine/ops/rows.h"

struct reduce_fn {
    const char *name;
    double start;
    double (*add)(double sum, double x);
    double (*end)(double sum, double n);       /* NULL: the sum itself */
    double (*d)(double x, double y, double n); /* dy/dx; NULL: the element that is y */
};

static double add_sum(double s, double x) {
    return s + x;
}
static double add_max(double s, double x) {
    return x > s ? x : s;
}
static double add_min(double s, double x) {
    return x < s ? x : s;
}
static double add_product(double s, double x) {
    return s * x;
}
static double add_absolute(double s, double x) {
    return s + fabs(x);
}
static double add_square(double s, double x) {
    return s + x * x;
}
/* log(e^s + e^x), which neither overflows nor loses the smaller */
static double add_exponential(double s, double x) {
    double high = s > x ? s : x, low = s > x ? x : s;

    return isinf(high) ? high : high + log1p(exp(low - high));
}
static double end_mean(double s, double n) {
    return s / n;
}
static double end_root(double s, double n) {
    (void)n;
    return sqrt(s);
}
static double end_log(double s, double n) {
    (void)n;
    return log(s);
}

static double d_sum(double x, double y, double n) {
    (void)x;
    (void)y;
    (void)n;
    return 1;
}
static double d_mean(double x, double y, double n) {
    (void)x;
    (void)y;
    return 1 / n;
}
static double d_absolute(double x, double y, double n) {
    (void)y;
    (void)n;
    return x > 0 ? 1 : x < 0 ? -1 : 0;
}
static double d_root(double x, double y, double n) {
    (void)n;
    return y > 0 ? x / y : 0;
}
static double d_log(double x, double y, double n) {
    (void)x;
    (void)n;
    return exp(-y);
}
static double d_exponential(double x, double y, double n) {
    (void)n;
    return exp(x - y);
}
static double d_square(double x, double y, double n) {
    (void)y;
    (void)n;
    return 2 * x;
}

static const struct reduce_fn functions[] = {
    {"ReduceL1", 0, add_absolute, NULL, d_absolute},
    {"ReduceL2", 0, add_square, end_root, d_root},
    {"ReduceLogSum", 0, add_sum, end_log, d_log},
    {"ReduceLogSumExp", -HUGE_VAL, add_exponential, NULL, d_exponential},
    {"ReduceMax", -HUGE_VAL, add_max, NULL, NULL},
    {"ReduceMean", 0, add_sum, end_mean, d_mean},
    {"ReduceMin", HUGE_VAL, add_min, NULL, NULL},
    {"ReduceProd", 1, add_product, NULL, NULL},
    {"ReduceSum", 0, add_sum, NULL, d_sum},
    {"ReduceSumSquare", 0, add_square, NULL, d_square},
};

static int reduce_parse(struct graph *g, struct node *n, struct error *err) {
    (void)g;
    (void)err;
    for (size_t i = 0; i < sizeof(functions) / sizeof(functions[0]); i++)
        if (!strcmp(functions[i].name, n->op->name))
            n->param = &functions[i];
    return 0;
}

/* Reduced axes as bits: from the input (ReduceSum 13, the others 18) or the attribute; none given: all, or
 * with noop_with_empty_axes none. */
static int reduce_axes(
    const struct node *n, const struct tensor *const *in, unsigned *ret, struct error *err) {
    int64_t axes[SHAPE_MAX_RANK];
    const struct attr *a = node_attr(n, "axes");
    int count = 0, r = 0;

    if (n->n_in > 1 && in[1])
        r = op_read_ints(in[1], axes, SHAPE_MAX_RANK, &count, err);
    else if (a && a->type == ATTR_INTS && a->n <= SHAPE_MAX_RANK)
        memcpy(axes, a->ints, (size_t)(count = (int)a->n) * sizeof(*axes));
    *ret = count || node_attr_int(n, "noop_with_empty_axes", 0) ? 0 : (1u << in[0]->shape.rank) - 1;
    for (int i = 0; r == 0 && i < count; i++) {
        int axis = 0;

        r = op_axis(axes[i], in[0]->shape.rank, false, &axis, err);
        *ret |= 1u << axis;
    }
    return r;
}

static int reduce_shape(
    const struct node *n, const struct tensor *const *in, struct tensor *out, struct error *err) {
    bool keeps = node_attr_int(n, "keepdims", 1) != 0;
    bool takes_bool = n->op == &op_reduce_max || n->op == &op_reduce_min;
    const struct dtype_info *type = dtype_info(in[0]->dtype);
    unsigned axes;
    int r = reduce_axes(n, in, &axes, err);

    if (!element_is_known(in[0]->dtype) || (in[0]->dtype == DT_BOOL && !takes_bool))
        return error_code(
            err, -EBADMSG, "unsupported_operator", "type %s is not supported here", type ? type->name : "?");
    if (r < 0)
        return r;
    out[0].dtype = in[0]->dtype;
    out[0].shape = (struct shape){0};
    for (int i = 0; i < in[0]->shape.rank; i++)
        if (keeps || !(axes & 1u << i))
            out[0].shape.dim[out[0].shape.rank++] = axes & 1u << i ? 1 : in[0]->shape.dim[i];
    return 0;
}

/* Output element of input element i. */
static int64_t target_of(const struct shape *s, unsigned axes, int64_t i) {
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

static size_t reduce_scratch(const struct node *n, const struct tensor *const *in, const struct tensor *out) {
    (void)n;
    (void)in;
    return (size_t)op_count(&out[0]) * sizeof(double);
}

/* One row of the input onto one result (step 0) or a row of them. Sums, which networks are full of, as loops
 * the compiler can see through. */
static void add_row(const struct reduce_fn *fn, const float *x, int64_t n, int64_t step, double *sum) {
    double part[8] = {0};
    int64_t whole = n / 8 * 8;

    if (fn->add == add_sum && step) {
        for (int64_t j = 0; j < n; j++)
            sum[j] += (double)x[j];
        return;
    }
    if (fn->add == add_sum) {
        for (int64_t j = 0; j < whole; j += 8)
            for (int k = 0; k < 8; k++)
                part[k] += (double)x[j + k];
        for (int k = 0; k < 8; k++)
            sum[0] += part[k];
        for (int64_t j = whole; j < n; j++)
            sum[0] += (double)x[j];
        return;
    }
    for (int64_t j = 0; j < n; j++)
        sum[j * step] = fn->add(sum[j * step], (double)x[j]);
}

/* Sums are kept in double, also of integers: beyond 2^53 they lose low bits. */
static void reduce_forward(
    const struct node *n, const struct tensor *const *in, struct tensor *out, void *scratch) {
    const struct reduce_fn *fn = n->param;
    int64_t count = op_count(in[0]), results = op_count(&out[0]), row, step;
    bool is_float = in[0]->dtype == DT_F32;
    const float *x = in[0]->data;
    int last = in[0]->shape.rank - 1;
    double *sum = scratch;
    unsigned axes = 0;

    if (reduce_axes(n, in, &axes, NULL) < 0)
        return; /* shape() read them before */
    row = last < 0 ? 1 : in[0]->shape.dim[last];
    step = last < 0 || axes & 1u << last ? 0 : 1;
    for (int64_t i = 0; i < results; i++)
        sum[i] = fn->start;
    for (int64_t i = 0; row && i < count; i += row) {
        int64_t k = target_of(&in[0]->shape, axes, i);

        if (is_float)
            add_row(fn, x + i, row, step, sum + k);
        for (int64_t j = 0; !is_float && j < row; j++, k += step)
            sum[k] = fn->add(sum[k], element_get(in[0], i + j));
    }
    for (int64_t i = 0; i < results; i++) {
        double y = fn->end ? fn->end(sum[i], (double)count / (double)results) : sum[i];

        if (is_float)
            ((float *)out[0].data)[i] = (float)y;
        else
            element_set(&out[0], i, y);
    }
}

/* A maximum's or minimum's gradient is shared out among the elements that are equal to it, as PyTorch does;
 * `tied` counts them. */
static void pick_backward(const struct tensor *x, const struct tensor *y, unsigned axes,
    const struct tensor *dy, struct tensor *dx, double *tied) {
    int64_t count = op_count(x), results = op_count(y);

    for (int64_t i = 0; i < results; i++)
        tied[i] = 0;
    for (int pass = 0; pass < 2; pass++)
        for (int64_t i = 0; i < count; i++) {
            int64_t k = target_of(&x->shape, axes, i);

            if (((const float *)x->data)[i] != ((const float *)y->data)[k])
                continue;
            if (pass)
                ((float *)dx->data)[i] += (float)((double)((const float *)dy->data)[k] / tied[k]);
            else
                tied[k]++;
        }
}

static double product_of_others(const struct tensor *x, unsigned axes, int64_t i) {
    int64_t count = op_count(x), k = target_of(&x->shape, axes, i);
    double product = 1;

    for (int64_t j = 0; j < count; j++)
        if (j != i && target_of(&x->shape, axes, j) == k)
            product *= (double)((const float *)x->data)[j];
    return product;
}

void reduce_backward(const struct node *n, const struct tensor *const *in, const struct tensor *out,
    const struct tensor *d_out, struct tensor *const *d_in, void *scratch) {
    const struct reduce_fn *fn = n->param;
    int64_t count = op_count(in[0]);
    double size = (double)count / (double)op_count(&out[0]);
    const float *x = in[0]->data, *y = out[0].data;
    unsigned axes = 0;

    if (!d_in[0] || reduce_axes(n, in, &axes, NULL) < 0)
        return;
    if (fn->add == add_max || fn->add == add_min) {
        pick_backward(in[0], &out[0], axes, &d_out[0], d_in[0], scratch);
        return;
    }
    for (int64_t i = 0; i < count; i++) {
        int64_t k = target_of(&in[0]->shape, axes, i);
        double d = fn->d ? fn->d((double)x[i], (double)y[k], size) : product_of_others(in[0], axes, i);

        ((float *)d_in[0]->data)[i] += (float)(d * (double)((const float *)d_out[0].data)[k]);
    }
}

#define REDUCE_ROW(variable, onnx_name)                                                                      \
    const struct op variable = {                                                                             \
        .name = onnx_name,                                                                                   \
        .domain = "",                                                                                        \
        .since = 1,                                                                                          \
        .until = OPSET_LAST,                                                                                 \
        .min_in = 1,                                                                                         \
        .max_in = 2,                                                                                         \
        .min_out = 1,                                                                                        \
        .max_out = 1,                                                                                        \
        .parse = reduce_parse,                                                                               \
        .shape = reduce_shape,                                                                               \
        .scratch = reduce_scratch,                                                                           \
        .forward = reduce_forward,                                                                           \
        .backward = reduce_backward,                                                                         \
        .backward_scratch = reduce_scratch,                                                                  \
        .cost = op_cost_elementwise,                                                                         \
        .saves = OP_SAVES_IN,                                                                                \
        .couple = OP_COUPLE_NONE,                                                                            \
        .quant = OP_QUANT_FLOAT,                                                                             \
    }

REDUCE_ROW(op_reduce_l1, "ReduceL1");
REDUCE_ROW(op_reduce_l2, "ReduceL2");
REDUCE_ROW(op_reduce_log_sum, "ReduceLogSum");
REDUCE_ROW(op_reduce_log_sum_exp, "ReduceLogSumExp");
REDUCE_ROW(op_reduce_max, "ReduceMax");
REDUCE_ROW(op_reduce_mean, "ReduceMean");
REDUCE_ROW(op_reduce_min, "ReduceMin");
REDUCE_ROW(op_reduce_prod, "ReduceProd");
REDUCE_ROW(op_reduce_sum, "ReduceSum");
REDUCE_ROW(op_reduce_sum_square, "ReduceSumSquare");
