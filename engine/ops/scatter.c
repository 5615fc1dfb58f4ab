/* Operators that put elements where indices say: ScatterElements, and CumSum, which makes indices of gaps.
 * Weights stored sparsely are written with the two. */
#include "engine/ops/common.h"
#include "engine/ops/element.h"
#include "engine/ops/rows.h"

static int64_t index_at(const struct tensor *t, int64_t i) {
    return t->dtype == DT_S64 ? ((const int64_t *)t->data)[i] : ((const int32_t *)t->data)[i];
}

static int check_indices(const struct tensor *t, struct error *err) {
    if (t->dtype == DT_S64 || t->dtype == DT_S32)
        return 0;
    return error_code(err, -EBADMSG, "invalid_model", "the indices are not int64 or int32");
}

/* data, indices, updates → data with updates[i] at indices[i] along the axis. Known indices outside the axis
 * are refused, those computed at run time are left out. */
static int scatter_shape(
    const struct node *n, const struct tensor *const *in, struct tensor *out, struct error *err) {
    const struct tensor *data = in[0], *indices = in[1], *updates = in[2];
    const char *reduction = node_attr_string(n, "reduction", "none");
    int axis, r = op_axis(node_attr_int(n, "axis", 0), data->shape.rank, false, &axis, err);

    if (r < 0 || (r = check_indices(indices, err)) < 0)
        return r;
    if (strcmp(reduction, "none") != 0)
        return error_code(
            err, -EBADMSG, "unsupported_operator", "reduction '%.50s' is not supported", reduction);
    if (updates->dtype != data->dtype || !dtype_info(data->dtype) || dtype_info(data->dtype)->bits < 8)
        return error_code(
            err, -EBADMSG, "unsupported_operator", "data and updates are not of one type of whole bytes");
    if (!shape_equal(&indices->shape, &updates->shape) || indices->shape.rank != data->shape.rank)
        return error_code(err, -EBADMSG, "shape_mismatch", "indices, updates and data do not fit each other");
    for (int d = 0; d < data->shape.rank; d++)
        if (d != axis && indices->shape.dim[d] > data->shape.dim[d])
            return error_code(
                err, -EBADMSG, "shape_mismatch", "there are more indices than data in dimension %d", d);
    for (int64_t i = 0; indices->data && i < op_count(indices); i++) {
        int64_t at = index_at(indices, i), size = data->shape.dim[axis];

        if (at < -size || at >= size)
            return error_code(err, -EBADMSG, "invalid_model", "index %lld (entry %lld) is outside of %lld",
                (long long)at, (long long)i, (long long)size);
    }
    out[0].dtype = data->dtype;
    out[0].shape = data->shape;
    return 0;
}

static void scatter_forward(
    const struct node *n, const struct tensor *const *in, struct tensor *out, void *scratch) {
    const struct tensor *indices = in[1];
    size_t size = dtype_info(out[0].dtype)->bits / 8;
    int64_t count = op_count(indices), dims[SHAPE_MAX_RANK] = {0};
    int axis = 0, rank = out[0].shape.rank;

    (void)scratch;
    (void)op_axis(node_attr_int(n, "axis", 0), rank, false, &axis, NULL);
    if (op_bytes(&out[0]))
        memcpy(out[0].data, in[0]->data, op_bytes(&out[0]));
    for (int64_t i = 0; i < count; i++) {
        int64_t at = 0, k = index_at(indices, i), mid = out[0].shape.dim[axis];

        k = k < 0 ? k + mid : k;
        for (int d = 0; d < rank; d++)
            at = at * out[0].shape.dim[d] + (d == axis ? k : dims[d]);
        if (k >= 0 && k < mid)
            memcpy(
                (char *)out[0].data + (size_t)at * size, (const char *)in[2]->data + (size_t)i * size, size);
        for (int d = rank - 1; d >= 0 && ++dims[d] == indices->shape.dim[d]; d--)
            dims[d] = 0;
    }
}

const struct op op_scatter_elements = {
    .name = "ScatterElements",
    .domain = "",
    .since = 11,
    .until = OPSET_LAST,
    .min_in = 3,
    .max_in = 3,
    .min_out = 1,
    .max_out = 1,
    .shape = scatter_shape,
    .forward = scatter_forward,
    .cost = op_cost_move,
    .couple = OP_COUPLE_NONE,
    .quant = OP_QUANT_FLOAT,
};

static int cum_sum_shape(
    const struct node *n, const struct tensor *const *in, struct tensor *out, struct error *err) {
    int64_t axis;
    int count, at, r = op_read_ints(in[1], &axis, 1, &count, err);

    (void)n;
    if (r < 0)
        return r;
    if (count != 1 || op_axis(axis, in[0]->shape.rank, false, &at, err) < 0)
        return error_code(err, -EBADMSG, "invalid_model", "the axis is not one dimension of the input");
    if (!element_is_known(in[0]->dtype) || in[0]->dtype == DT_BOOL)
        return error_code(err, -EBADMSG, "unsupported_operator", "this type is not supported here");
    out[0].dtype = in[0]->dtype;
    out[0].shape = in[0]->shape;
    return 0;
}

struct sum {
    bool is_float;
    double real;
    uint64_t bits; /* integers wrap */
};

static void sum_add(struct sum *s, const struct tensor *x, int64_t i) {
    if (s->is_float)
        s->real += element_get(x, i);
    else
        s->bits += (uint64_t)element_get_int(x, i);
}

static void sum_store(const struct sum *s, struct tensor *y, int64_t i) {
    if (s->is_float)
        element_set(y, i, s->real);
    else
        element_set_int(y, i, (int64_t)s->bits);
}

static void cum_sum_forward(
    const struct node *n, const struct tensor *const *in, struct tensor *out, void *scratch) {
    bool is_exclusive = node_attr_int(n, "exclusive", 0) != 0,
         is_reverse = node_attr_int(n, "reverse", 0) != 0;
    int64_t outer, mid, inner, want = 0;
    int axis = 0, count;

    (void)scratch;
    (void)op_read_ints(in[1], &want, 1, &count, NULL);
    (void)op_axis(want, in[0]->shape.rank, false, &axis, NULL);
    op_split_shape(&in[0]->shape, axis, &outer, &mid, &inner);
    for (int64_t row = 0; row < outer * inner; row++) {
        struct sum s = {.is_float = element_is_float(in[0]->dtype)};

        for (int64_t k = 0; k < mid; k++) {
            int64_t i = (row / inner * mid + (is_reverse ? mid - 1 - k : k)) * inner + row % inner;

            if (!is_exclusive)
                sum_add(&s, in[0], i);
            sum_store(&s, &out[0], i);
            if (is_exclusive)
                sum_add(&s, in[0], i);
        }
    }
}

const struct op op_cum_sum = {
    .name = "CumSum",
    .domain = "",
    .since = 11,
    .until = OPSET_LAST,
    .min_in = 2,
    .max_in = 2,
    .min_out = 1,
    .max_out = 1,
    .shape = cum_sum_shape,
    .forward = cum_sum_forward,
    .cost = op_cost_move,
    .couple = OP_COUPLE_NONE,
    .quant = OP_QUANT_FLOAT,
};
