/* Operators that give the same elements another shape: Reshape, Flatten, Squeeze, Unsqueeze, Identity,
 * Dropout. */
#include "engine/ops/common.h"
#include "engine/ops/grad.h"
#include "engine/ops/rows.h"

static void view_forward(
    const struct node *n, const struct tensor *const *in, struct tensor *out, void *scratch) {
    (void)n;
    (void)scratch;
    if (out[0].data != in[0]->data)
        memcpy(out[0].data, in[0]->data, op_bytes(&out[0]));
}

static int same_count(const struct tensor *x, const struct shape *s, struct error *err) {
    int64_t n = 0;
    char a[SHAPE_TEXT_MAX], b[SHAPE_TEXT_MAX];

    if (shape_count(s, &n) && n == op_count(x))
        return 0;
    return error_code(
        err, -EBADMSG, "shape_mismatch", "%s cannot become %s", shape_text(&x->shape, a), shape_text(s, b));
}

/* 0 keeps the input's dimension (unless allowzero), one -1 is what remains. */
static int reshape_shape(
    const struct node *n, const struct tensor *const *in, struct tensor *out, struct error *err) {
    bool allow_zero = node_attr_int(n, "allowzero", 0) != 0;
    int64_t want[SHAPE_MAX_RANK], known = 1;
    const struct attr *old = node_attr(n, "shape"); /* opset 1 to 4 */
    int rank = 0, free_dim = -1, r = 0;

    if (n->n_in > 1 && in[1])
        r = op_read_ints(in[1], want, SHAPE_MAX_RANK, &rank, err);
    else if (old && old->type == ATTR_INTS && old->n <= SHAPE_MAX_RANK)
        memcpy(want, old->ints, (size_t)(rank = (int)old->n) * sizeof(*want));
    else
        return error_code(err, -EBADMSG, "invalid_model", "the new shape is missing");
    if (r < 0)
        return r;
    out[0].dtype = in[0]->dtype;
    out[0].shape = (struct shape){.rank = rank};
    for (int i = 0; i < rank; i++) {
        int64_t d = want[i];

        if (d == 0 && !allow_zero) {
            if (i >= in[0]->shape.rank)
                return error_code(err, -EBADMSG, "shape_mismatch",
                    "dimension %d is copied from an input of rank %d", i, in[0]->shape.rank);
            d = in[0]->shape.dim[i];
        }
        if (d < -1 || (d == -1 && free_dim >= 0))
            return error_code(
                err, -EBADMSG, "invalid_model", "the new shape has the entry %lld", (long long)d);
        if (d == -1)
            free_dim = i;
        else if (__builtin_mul_overflow(known, d, &known))
            return error_code(err, -EBADMSG, "shape_mismatch", "the new shape is too large");
        out[0].shape.dim[i] = d;
    }
    if (free_dim >= 0)
        out[0].shape.dim[free_dim] = known ? op_count(in[0]) / known : 0;
    return same_count(in[0], &out[0].shape, err);
}

static int flatten_shape(
    const struct node *n, const struct tensor *const *in, struct tensor *out, struct error *err) {
    int64_t outer, mid, inner;
    int axis, r = op_axis(node_attr_int(n, "axis", 1), in[0]->shape.rank, true, &axis, err);

    if (r < 0)
        return r;
    op_split_shape(&in[0]->shape, axis, &outer, &mid, &inner);
    out[0].dtype = in[0]->dtype;
    out[0].shape = (struct shape){.rank = 2, .dim = {outer, mid * inner}};
    return 0;
}

/* The axes, from the input (opset 13) or the attribute, as a bit mask over `rank`. All: 0 entries. */
static int read_axes(const struct node *n, const struct tensor *const *in, int rank, unsigned *ret,
    int *ret_n, struct error *err) {
    int64_t axes[SHAPE_MAX_RANK];
    const struct attr *a = node_attr(n, "axes");
    int count = 0, r = 0;

    if (n->n_in > 1 && in[1])
        r = op_read_ints(in[1], axes, SHAPE_MAX_RANK, &count, err);
    else if (a && a->type == ATTR_INTS && a->n <= SHAPE_MAX_RANK)
        memcpy(axes, a->ints, (size_t)(count = (int)a->n) * sizeof(*axes));
    *ret = 0;
    for (int i = 0; r == 0 && i < count; i++) {
        int axis = 0;

        r = op_axis(axes[i], rank, false, &axis, err);
        *ret |= 1u << axis;
    }
    *ret_n = count;
    return r;
}

static int squeeze_shape(
    const struct node *n, const struct tensor *const *in, struct tensor *out, struct error *err) {
    const struct shape *s = &in[0]->shape;
    unsigned axes;
    int count, r = read_axes(n, in, s->rank, &axes, &count, err);

    if (r < 0)
        return r;
    out[0].dtype = in[0]->dtype;
    out[0].shape = (struct shape){0};
    for (int i = 0; i < s->rank; i++) {
        bool goes = count ? axes & 1u << i : s->dim[i] == 1;

        if (goes && s->dim[i] != 1)
            return error_code(
                err, -EBADMSG, "shape_mismatch", "dimension %d is %lld, not 1", i, (long long)s->dim[i]);
        if (!goes)
            out[0].shape.dim[out[0].shape.rank++] = s->dim[i];
    }
    return 0;
}

static int unsqueeze_shape(
    const struct node *n, const struct tensor *const *in, struct tensor *out, struct error *err) {
    const struct shape *s = &in[0]->shape;
    const struct attr *a = node_attr(n, "axes");
    int64_t extra = n->n_in > 1 && in[1] ? op_count(in[1]) : a && a->type == ATTR_INTS ? (int64_t)a->n : 0;
    unsigned axes;
    int count, from = 0, r;

    if (s->rank + extra > SHAPE_MAX_RANK)
        return error_code(err, -EBADMSG, "shape_mismatch", "rank %lld is above %d",
            (long long)(s->rank + extra), SHAPE_MAX_RANK);
    r = read_axes(n, in, s->rank + (int)extra, &axes, &count, err);
    if (r < 0)
        return r;
    if (__builtin_popcount(axes) != count)
        return error_code(err, -EBADMSG, "invalid_model", "an axis is given twice");
    out[0].dtype = in[0]->dtype;
    out[0].shape = (struct shape){.rank = s->rank + count};
    for (int i = 0; i < out[0].shape.rank; i++)
        out[0].shape.dim[i] = axes & 1u << i ? 1 : s->dim[from++];
    return 0;
}

static int dropout_shape(
    const struct node *n, const struct tensor *const *in, struct tensor *out, struct error *err) {
    const struct tensor *training = n->n_in > 2 ? in[2] : NULL;

    if (training && (training->dtype != DT_BOOL || op_count(training) != 1))
        return error_code(err, -EBADMSG, "invalid_model", "training_mode is not one bool");
    if (training && !training->data)
        return -EAGAIN;
    if (training && *(const uint8_t *)training->data)
        return error_code(err, -EBADMSG, "unsupported_operator", "training mode is not supported");
    if (n->n_out > 1) {
        out[1].dtype = DT_BOOL;
        out[1].shape = in[0]->shape;
    }
    return op_shape_same(n, in, out, err);
}

/* Inference: nothing is dropped, the mask is all true. */
static void dropout_forward(
    const struct node *n, const struct tensor *const *in, struct tensor *out, void *scratch) {
    view_forward(n, in, out, scratch);
    if (n->n_out > 1)
        memset(out[1].data, 1, op_bytes(&out[1]));
}

#define VIEW_ROW(variable, onnx_name, most_in, most_out, shape_fn, run, coupling)                            \
    const struct op variable = {                                                                             \
        .name = onnx_name,                                                                                   \
        .domain = "",                                                                                        \
        .since = 1,                                                                                          \
        .until = OPSET_LAST,                                                                                 \
        .min_in = 1,                                                                                         \
        .max_in = most_in,                                                                                   \
        .min_out = 1,                                                                                        \
        .max_out = most_out,                                                                                 \
        .shape = shape_fn,                                                                                   \
        .forward = run,                                                                                      \
        .backward = view_backward,                                                                           \
        .cost = op_cost_move,                                                                                \
        .couple = coupling,                                                                                  \
        .quant = OP_QUANT_SAME,                                                                              \
        .is_view = true,                                                                                     \
    }

VIEW_ROW(op_dropout, "Dropout", 3, 2, dropout_shape, dropout_forward, OP_COUPLE_SAME);
VIEW_ROW(op_flatten, "Flatten", 1, 1, flatten_shape, view_forward, OP_COUPLE_FLATTEN);
VIEW_ROW(op_identity, "Identity", 1, 1, op_shape_same, view_forward, OP_COUPLE_SAME);
VIEW_ROW(op_reshape, "Reshape", 2, 1, reshape_shape, view_forward, OP_COUPLE_FLATTEN);
VIEW_ROW(op_squeeze, "Squeeze", 2, 1, squeeze_shape, view_forward, OP_COUPLE_SAME);
VIEW_ROW(op_unsqueeze, "Unsqueeze", 2, 1, unsqueeze_shape, view_forward, OP_COUPLE_SAME);
