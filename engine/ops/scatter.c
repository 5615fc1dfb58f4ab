/* Operators that put elements where indices say or take them from there: ScatterElements (Scatter in opsets 9
 * and 10), GatherElements; and CumSum, which makes indices of gaps. Weights stored sparsely are written with
 * them. */
#include "engine/ops/common.h"
#include "engine/ops/element.h"
#include "engine/ops/grad.h"
#include "engine/ops/rows.h"

enum reduction { REDUCE_NONE, REDUCE_ADD, REDUCE_MUL, REDUCE_MAX, REDUCE_MIN };

struct scatter_param {
    enum reduction reduction;
};

static int scatter_parse(struct graph *g, struct node *n, struct error *err) {
    static const char *const names[] = {"none", "add", "mul", "max", "min"};
    const char *s = node_attr_string(n, "reduction", "none");
    struct scatter_param *p = graph_alloc(g, sizeof(*p));

    if (!p)
        return error_oom(err);
    n->param = p;
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
        if (!strcmp(s, names[i])) {
            p->reduction = (enum reduction)i;
            return 0;
        }
    return error_code(err, -EBADMSG, "invalid_model", "reduction is '%.32s'", s);
}

static int64_t index_at(const struct tensor *t, int64_t i) {
    return t->dtype == DT_S64 ? ((const int64_t *)t->data)[i] : ((const int32_t *)t->data)[i];
}

/* The indices' rank is the data's, and away from the axis they stay inside of it. Those that are
 * known must lie in the axis; those computed at run time that do not are left out (0 is gathered). */
static int check_indices(
    const struct tensor *data, const struct tensor *indices, int64_t axis, struct error *err) {
    char a[SHAPE_TEXT_MAX], b[SHAPE_TEXT_MAX];
    int at, r = op_axis(axis, data->shape.rank, false, &at, err);
    int64_t d, count = op_count(indices);

    if (r < 0)
        return r;
    if (indices->dtype != DT_S64 && indices->dtype != DT_S32)
        return error_code(err, -EBADMSG, "invalid_model", "the indices are not int64 or int32");
    r = indices->shape.rank != data->shape.rank;
    for (int i = 0; !r && i < data->shape.rank; i++)
        r = i != at && indices->shape.dim[i] > data->shape.dim[i];
    if (r)
        return error_code(err, -EBADMSG, "shape_mismatch", "indices %s do not lie in %s along axis %d",
            shape_text(&indices->shape, a), shape_text(&data->shape, b), at);
    d = data->shape.dim[at];
    if (d == 0 && count)
        return error_code(err, -EBADMSG, "shape_mismatch", "axis %d is empty", at);
    for (int64_t i = 0; indices->data && i < count; i++) {
        int64_t k = element_get_int(indices, i);

        if (k < -d || k >= d)
            return error_code(err, -EBADMSG, "invalid_model",
                "index %lld at %lld is outside the axis of %lld", (long long)k, (long long)i, (long long)d);
    }
    return 0;
}

static int check_type(const struct tensor *t, struct error *err) {
    const struct dtype_info *i = dtype_info(t->dtype);

    if (i)
        return 0;
    return error_code(err, -EBADMSG, "unsupported_operator", "this type is not supported here");
}

static int scatter_shape(
    const struct node *n, const struct tensor *const *in, struct tensor *out, struct error *err) {
    int r = check_type(in[0], err);

    if (r == 0)
        r = check_indices(in[0], in[1], node_attr_int(n, "axis", 0), err);
    if (r < 0)
        return r;
    if (in[2]->dtype != in[0]->dtype || !shape_equal(&in[2]->shape, &in[1]->shape))
        return error_code(
            err, -EBADMSG, "shape_mismatch", "the updates are not one of the data's type for each index");
    return op_shape_same(n, in, out, err);
}

/* Walks the elements of `s`, giving the place in a tensor of the strides `stride` whose coordinate on the
 * axis is left out. */
struct walk {
    int64_t c[SHAPE_MAX_RANK], at;
};

static void walk_next(struct walk *w, const struct shape *s, const int64_t *stride) {
    for (int d = s->rank - 1; d >= 0; d--) {
        w->at += stride[d];
        if (++w->c[d] < s->dim[d])
            return;
        w->at -= stride[d] * s->dim[d];
        w->c[d] = 0;
    }
}

/* Strides of the dense data, 0 along the axis; returns the axis' own. */
static int64_t axis_strides(const struct shape *s, int axis, int64_t *stride) {
    int64_t step = 1, own = 1;

    for (int d = s->rank - 1; d >= 0; d--) {
        stride[d] = d == axis ? 0 : step;
        own = d == axis ? step : own;
        step *= s->dim[d];
    }
    return own;
}

static double reduce(enum reduction how, double a, double b) {
    switch (how) {
    case REDUCE_ADD: return a + b;
    case REDUCE_MUL: return a * b;
    case REDUCE_MAX: return a > b ? a : b;
    case REDUCE_MIN: return a < b ? a : b;
    case REDUCE_NONE:
    default: return b;
    }
}

static int64_t reduce_int(enum reduction how, int64_t a, int64_t b) {
    if (how == REDUCE_ADD)
        return (int64_t)((uint64_t)a + (uint64_t)b);
    if (how == REDUCE_MUL)
        return (int64_t)((uint64_t)a * (uint64_t)b);
    return how == REDUCE_MAX ? (a > b ? a : b) : how == REDUCE_MIN ? (a < b ? a : b) : b;
}

static void put(enum reduction how, struct tensor *to, int64_t at, const struct tensor *from, int64_t i) {
    size_t size = dtype_info(to->dtype)->bits / 8;

    if (how == REDUCE_NONE && size)
        memcpy((char *)to->data + (size_t)at * size, (const char *)from->data + (size_t)i * size, size);
    else if (element_is_float(to->dtype))
        element_set(to, at, reduce(how, element_get(to, at), element_get(from, i)));
    else
        element_set_int(to, at, reduce_int(how, element_get_int(to, at), element_get_int(from, i)));
}

static void scatter_forward(
    const struct node *n, const struct tensor *const *in, struct tensor *out, void *scratch) {
    const struct scatter_param *p = n->param;
    int64_t stride[SHAPE_MAX_RANK], own, count = op_count(in[1]);
    struct walk w = {0};
    int axis = 0;

    (void)scratch;
    (void)op_axis(node_attr_int(n, "axis", 0), in[0]->shape.rank, false, &axis, NULL);
    own = axis_strides(&in[0]->shape, axis, stride);
    if (op_bytes(&out[0]))
        memcpy(out[0].data, in[0]->data, op_bytes(&out[0]));
    for (int64_t i = 0; i < count; i++, walk_next(&w, &in[1]->shape, stride)) {
        int64_t k = index_at(in[1], i), mid = in[0]->shape.dim[axis];

        k = k < 0 ? k + mid : k;
        if (k >= 0 && k < mid)
            put(p->reduction, &out[0], w.at + own * k, in[2], i);
    }
}

static int gather_elements_shape(
    const struct node *n, const struct tensor *const *in, struct tensor *out, struct error *err) {
    int r = check_type(in[0], err);

    if (r == 0)
        r = check_indices(in[0], in[1], node_attr_int(n, "axis", 0), err);
    out[0].dtype = in[0]->dtype;
    out[0].shape = in[1]->shape;
    return r;
}

static void gather_elements_forward(
    const struct node *n, const struct tensor *const *in, struct tensor *out, void *scratch) {
    int64_t stride[SHAPE_MAX_RANK], own, count = op_count(in[1]);
    struct walk w = {0};
    int axis = 0;

    (void)scratch;
    (void)op_axis(node_attr_int(n, "axis", 0), in[0]->shape.rank, false, &axis, NULL);
    own = axis_strides(&in[0]->shape, axis, stride);
    memset(out[0].data, 0, op_bytes(&out[0]));
    for (int64_t i = 0; i < count; i++, walk_next(&w, &in[1]->shape, stride)) {
        int64_t k = index_at(in[1], i), mid = in[0]->shape.dim[axis];

        k = k < 0 ? k + mid : k;
        if (k >= 0 && k < mid)
            put(REDUCE_NONE, &out[0], i, in[0], w.at + own * k);
    }
}

static int cum_sum_shape(
    const struct node *n, const struct tensor *const *in, struct tensor *out, struct error *err) {
    int64_t want;
    int axis, count, r = op_read_ints(in[1], &want, 1, &count, err);

    if (r < 0)
        return r;
    if (count != 1)
        return error_code(err, -EBADMSG, "invalid_model", "the axis is not one number");
    if (!element_is_known(in[0]->dtype) || in[0]->dtype == DT_BOOL)
        return error_code(err, -EBADMSG, "unsupported_operator", "this type is not supported here");
    r = op_axis(want, in[0]->shape.rank, false, &axis, err);
    return r < 0 ? r : op_shape_same(n, in, out, err);
}

/* Sums of floats are kept in double, of integers wrap as the type does. */
static void sum_row(
    const struct tensor *x, struct tensor *y, int64_t at, int64_t n, int64_t step, bool is_exclusive) {
    bool is_float = element_is_float(x->dtype);
    double sum = 0;
    int64_t whole = 0;

    for (int64_t i = 0; i < n; i++, at += step) {
        double v = is_float ? element_get(x, at) : 0;
        uint64_t k = is_float ? 0 : (uint64_t)element_get_int(x, at);

        if (is_float)
            element_set(y, at, is_exclusive ? sum : sum + v);
        else
            element_set_int(y, at, is_exclusive ? whole : (int64_t)((uint64_t)whole + k));
        sum += v;
        whole = (int64_t)((uint64_t)whole + k);
    }
}

static void cum_sum_forward(
    const struct node *n, const struct tensor *const *in, struct tensor *out, void *scratch) {
    bool is_exclusive = node_attr_int(n, "exclusive", 0) != 0,
         is_reverse = node_attr_int(n, "reverse", 0) != 0;
    int64_t outer, mid, inner, want = 0;
    int axis = 0, count;

    (void)scratch;
    if (op_read_ints(in[1], &want, 1, &count, NULL) < 0 ||
        op_axis(want, in[0]->shape.rank, false, &axis, NULL) < 0)
        return; /* shape() read it before */
    op_split_shape(&in[0]->shape, axis, &outer, &mid, &inner);
    for (int64_t o = 0; mid && o < outer; o++)
        for (int64_t i = 0; i < inner; i++) {
            int64_t first = o * mid * inner + i, last = first + (mid - 1) * inner;

            sum_row(
                in[0], &out[0], is_reverse ? last : first, mid, is_reverse ? -inner : inner, is_exclusive);
        }
}

#define SCATTER_ROW(                                                                                         \
    variable, onnx_name, first, last, n_inputs, parse_fn, shape_fn, run, gradient, gradient_scratch)         \
    const struct op variable = {                                                                             \
        .name = onnx_name,                                                                                   \
        .domain = "",                                                                                        \
        .since = first,                                                                                      \
        .until = last,                                                                                       \
        .min_in = n_inputs,                                                                                  \
        .max_in = n_inputs,                                                                                  \
        .min_out = 1,                                                                                        \
        .max_out = 1,                                                                                        \
        .parse = parse_fn,                                                                                   \
        .shape = shape_fn,                                                                                   \
        .forward = run,                                                                                      \
        .backward = gradient,                                                                                \
        .backward_scratch = gradient_scratch,                                                                \
        .cost = op_cost_move,                                                                                \
        .couple = OP_COUPLE_NONE,                                                                            \
        .quant = OP_QUANT_FLOAT,                                                                             \
    }

SCATTER_ROW(op_cum_sum, "CumSum", 11, OPSET_LAST, 2, NULL, cum_sum_shape, cum_sum_forward, NULL, NULL);
SCATTER_ROW(op_gather_elements, "GatherElements", 11, OPSET_LAST, 2, NULL, gather_elements_shape,
    gather_elements_forward, move_backward, move_backward_scratch);
SCATTER_ROW(op_scatter, "Scatter", 9, 10, 3, scatter_parse, scatter_shape, scatter_forward, NULL, NULL);
SCATTER_ROW(op_scatter_elements, "ScatterElements", 11, OPSET_LAST, 3, scatter_parse, scatter_shape,
    scatter_forward, NULL, NULL);
