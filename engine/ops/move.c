/* Operators that move elements without computing: Transpose, Concat, Split, Slice, Pad, Gather, Expand. Any
 * type whose elements are whole bytes. */
#include "engine/ops/common.h"
#include "engine/ops/grad.h"
#include "engine/ops/rows.h"

static size_t element_size(const struct tensor *t) {
    const struct dtype_info *i = dtype_info(t->dtype);

    return i ? i->bits / 8 : 0;
}

static int check_bytes(const struct tensor *t, struct error *err) {
    const struct dtype_info *i = dtype_info(t->dtype);

    if (i && i->bits >= 8)
        return 0;
    return error_code(
        err, -EBADMSG, "unsupported_operator", "type %s is not supported here", i ? i->name : "?");
}

/* n elements of four bytes, every `step`-th of the source. */
static void copy_words(const char *from, int64_t n, int64_t step, char *to) {
    uint32_t v;

    memcpy(&v, from, sizeof(v));
    for (int64_t k = 0; step == 0 && k < n; k++)
        memcpy(to + k * (int64_t)sizeof(v), &v, sizeof(v));
    for (int64_t k = 0; step != 0 && k < n; k++)
        memcpy(to + k * (int64_t)sizeof(v), from + k * step * (int64_t)sizeof(v), sizeof(v));
}

/* Copies a tensor of shape `s` from strided source (strides in elements, may be 0 or negative) to dense
 * memory. */
static void copy_strided(
    const struct shape *s, const char *from, const int64_t *stride, size_t size, char *to) {
    int64_t n = 0, c[SHAPE_MAX_RANK] = {0}, at = 0, inner = s->rank ? s->dim[s->rank - 1] : 1;
    int64_t step = s->rank ? stride[s->rank - 1] : 1;

    if (!shape_count(s, &n) || n == 0)
        return;
    for (int64_t i = 0; i < n; i += inner) {
        if (step == 1)
            memcpy(to, from + at * (int64_t)size, (size_t)inner * size);
        else if (size == sizeof(uint32_t))
            copy_words(from + at * (int64_t)size, inner, step, to);
        for (int64_t k = 0; step != 1 && size != sizeof(uint32_t) && k < inner; k++)
            memcpy(to + (size_t)k * size, from + (at + k * step) * (int64_t)size, size);
        to += (size_t)inner * size;
        for (int d = s->rank - 2; d >= 0; d--) {
            at += stride[d];
            if (++c[d] < s->dim[d])
                break;
            at -= stride[d] * s->dim[d];
            c[d] = 0;
        }
    }
}

static void dense_strides(const struct shape *s, int64_t *stride) {
    int64_t step = 1;

    for (int i = s->rank - 1; i >= 0; i--) {
        stride[i] = step;
        step *= s->dim[i];
    }
}

/* perm of a Transpose; default: reversed. */
static int read_perm(const struct node *n, int rank, int *perm, struct error *err) {
    const struct attr *a = node_attr(n, "perm");
    unsigned seen = 0;

    for (int i = 0; i < rank; i++) {
        int64_t p = a ? (size_t)i < a->n ? a->ints[i] : -1 : rank - 1 - i;

        if (p < 0 || p >= rank || seen & 1u << p || (a && (a->type != ATTR_INTS || a->n != (size_t)rank)))
            return error_code(
                err, -EBADMSG, "invalid_model", "perm is no permutation of %d dimensions", rank);
        seen |= 1u << p;
        perm[i] = (int)p;
    }
    return 0;
}

static int transpose_shape(
    const struct node *n, const struct tensor *const *in, struct tensor *out, struct error *err) {
    int perm[SHAPE_MAX_RANK], r = read_perm(n, in[0]->shape.rank, perm, err);

    if (r < 0 || (r = check_bytes(in[0], err)) < 0)
        return r;
    out[0].dtype = in[0]->dtype;
    out[0].shape.rank = in[0]->shape.rank;
    for (int i = 0; i < out[0].shape.rank; i++)
        out[0].shape.dim[i] = in[0]->shape.dim[perm[i]];
    return 0;
}

static void transpose_forward(
    const struct node *n, const struct tensor *const *in, struct tensor *out, void *scratch) {
    int64_t dense[SHAPE_MAX_RANK], stride[SHAPE_MAX_RANK];
    int perm[SHAPE_MAX_RANK];

    (void)scratch;
    if (read_perm(n, in[0]->shape.rank, perm, NULL) < 0)
        return;
    dense_strides(&in[0]->shape, dense);
    for (int i = 0; i < out[0].shape.rank; i++)
        stride[i] = dense[perm[i]];
    copy_strided(&out[0].shape, in[0]->data, stride, element_size(in[0]), out[0].data);
}

static int concat_shape(
    const struct node *n, const struct tensor *const *in, struct tensor *out, struct error *err) {
    char a[SHAPE_TEXT_MAX], b[SHAPE_TEXT_MAX];
    struct shape s;
    int axis, r = op_axis(node_attr_int(n, "axis", 1), in[0]->shape.rank, false, &axis, err);

    if (r < 0 || (r = check_bytes(in[0], err)) < 0)
        return r;
    s = in[0]->shape;
    for (int i = 1; i < n->n_in; i++) {
        struct shape other;

        if (!in[i] || in[i]->dtype != in[0]->dtype || in[i]->shape.rank != s.rank)
            return error_code(err, -EBADMSG, "shape_mismatch", "input %d has another type or rank", i);
        other = in[i]->shape;
        s.dim[axis] += other.dim[axis];
        other.dim[axis] = s.dim[axis];
        if (!shape_equal(&s, &other))
            return error_code(err, -EBADMSG, "shape_mismatch", "%s and %s cannot be joined at axis %d",
                shape_text(&in[0]->shape, a), shape_text(&in[i]->shape, b), axis);
    }
    out[0].dtype = in[0]->dtype;
    out[0].shape = s;
    return 0;
}

static void concat_forward(
    const struct node *n, const struct tensor *const *in, struct tensor *out, void *scratch) {
    size_t size = element_size(&out[0]), at = 0;
    int64_t outer, mid, inner;
    int axis = 0;

    (void)scratch;
    (void)op_axis(node_attr_int(n, "axis", 1), out[0].shape.rank, false, &axis, NULL);
    op_split_shape(&out[0].shape, axis, &outer, &mid, &inner);
    for (int i = 0; i < n->n_in; i++) {
        size_t run = (size_t)(in[i]->shape.dim[axis] * inner) * size, whole = (size_t)(mid * inner) * size;

        for (int64_t o = 0; o < outer && run; o++)
            memcpy((char *)out[0].data + (size_t)o * whole + at, (const char *)in[i]->data + (size_t)o * run,
                run);
        at += run;
    }
}

static int split_sizes(
    const struct node *n, const struct tensor *const *in, int64_t whole, int64_t *size, struct error *err) {
    const struct attr *a = node_attr(n, "split");
    int64_t sum = 0, each = (whole + n->n_out - 1) / n->n_out;
    int count = 0, r = 0;

    if (n->n_in > 1 && in[1])
        r = op_read_ints(in[1], size, n->n_out, &count, err);
    else if (a && a->type == ATTR_INTS && a->n == (size_t)n->n_out)
        memcpy(size, a->ints, (size_t)(count = n->n_out) * sizeof(*size));
    else
        for (int i = 0; i < n->n_out; i++, count++)
            size[i] = i + 1 < n->n_out ? each : whole - each * (n->n_out - 1);
    if (r < 0)
        return r;
    for (int i = 0; i < count; i++) {
        if (size[i] < 0 || size[i] > whole)
            return error_code(
                err, -EBADMSG, "shape_mismatch", "part %d would have size %lld", i, (long long)size[i]);
        sum += size[i];
    }
    if (count != n->n_out || sum != whole)
        return error_code(err, -EBADMSG, "shape_mismatch", "the parts sum to %lld of %lld", (long long)sum,
            (long long)whole);
    return 0;
}

#define SPLIT_MAX 64

static int split_shape(
    const struct node *n, const struct tensor *const *in, struct tensor *out, struct error *err) {
    int64_t size[SPLIT_MAX];
    int axis, r = op_axis(node_attr_int(n, "axis", 0), in[0]->shape.rank, false, &axis, err);

    if (r < 0 || (r = check_bytes(in[0], err)) < 0)
        return r;
    r = split_sizes(n, in, in[0]->shape.dim[axis], size, err);
    for (int i = 0; r == 0 && i < n->n_out; i++) {
        out[i].dtype = in[0]->dtype;
        out[i].shape = in[0]->shape;
        out[i].shape.dim[axis] = size[i];
    }
    return r;
}

static void split_forward(
    const struct node *n, const struct tensor *const *in, struct tensor *out, void *scratch) {
    size_t size = element_size(in[0]), at = 0;
    int64_t outer, mid, inner;
    int axis = 0;

    (void)scratch;
    (void)op_axis(node_attr_int(n, "axis", 0), in[0]->shape.rank, false, &axis, NULL);
    op_split_shape(&in[0]->shape, axis, &outer, &mid, &inner);
    for (int i = 0; i < n->n_out; i++) {
        size_t run = (size_t)(out[i].shape.dim[axis] * inner) * size, whole = (size_t)(mid * inner) * size;

        for (int64_t o = 0; o < outer && run; o++)
            memcpy((char *)out[i].data + (size_t)o * run, (const char *)in[0]->data + (size_t)o * whole + at,
                run);
        at += run;
    }
}

struct slice {
    int64_t start[SHAPE_MAX_RANK], step[SHAPE_MAX_RANK], size[SHAPE_MAX_RANK];
};

static int slice_list(const struct node *n, const struct tensor *const *in, int input, const char *attribute,
    int64_t *ret, int *ret_n, struct error *err) {
    const struct attr *a = attribute ? node_attr(n, attribute) : NULL;

    *ret_n = 0;
    if (n->n_in > input && in[input])
        return op_read_ints(in[input], ret, SHAPE_MAX_RANK, ret_n, err);
    if (a && a->type == ATTR_INTS && a->n <= SHAPE_MAX_RANK)
        memcpy(ret, a->ints, (size_t)(*ret_n = (int)a->n) * sizeof(*ret));
    return 0;
}

static int64_t clamp(int64_t v, int64_t low, int64_t high) {
    return v < low ? low : v > high ? high : v;
}

/* What the node says, before the input's shape is looked at. Axes and steps may be missing. */
struct slice_lists {
    int64_t start[SHAPE_MAX_RANK], end[SHAPE_MAX_RANK], axis[SHAPE_MAX_RANK], step[SHAPE_MAX_RANK];
    int n, n_end, n_axis, n_step;
};

static int slice_read(
    const struct node *n, const struct tensor *const *in, struct slice_lists *l, struct error *err) {
    int r = slice_list(n, in, 1, "starts", l->start, &l->n, err);

    if (r == 0)
        r = slice_list(n, in, 2, "ends", l->end, &l->n_end, err);
    if (r == 0)
        r = slice_list(n, in, 3, "axes", l->axis, &l->n_axis, err);
    if (r == 0)
        r = slice_list(n, in, 4, NULL, l->step, &l->n_step, err);
    if (r < 0)
        return r;
    if (l->n != l->n_end || (l->n_axis && l->n_axis != l->n) || (l->n_step && l->n_step != l->n))
        return error_code(
            err, -EBADMSG, "invalid_model", "starts, ends, axes and steps have different lengths");
    return 0;
}

/* One axis of d elements by NumPy's rules; INT64_MIN and INT64_MAX stand for the ends. */
static void slice_axis(struct slice *s, int axis, int64_t d, int64_t start, int64_t end, int64_t step) {
    int64_t low = step > 0 ? 0 : -1, high = step > 0 ? d : d - 1;
    int64_t from = clamp(start < 0 && start >= -d ? start + d : start, low, high);
    int64_t to = clamp(end < 0 && end >= -d ? end + d : end, low, d);

    s->start[axis] = from;
    s->step[axis] = step;
    s->size[axis] = step > 0 ? (to - from + step - 1) / step : (from - to - step - 1) / -step;
    if (s->size[axis] < 0 || d == 0)
        s->size[axis] = 0;
}

static int slice_place(
    const struct node *n, const struct tensor *const *in, struct slice *s, struct error *err) {
    struct slice_lists l;
    int r = slice_read(n, in, &l, err);

    if (r < 0)
        return r;
    for (int i = 0; i < in[0]->shape.rank; i++) {
        s->start[i] = 0;
        s->step[i] = 1;
        s->size[i] = in[0]->shape.dim[i];
    }
    for (int i = 0; i < l.n; i++) {
        int64_t step = l.n_step ? l.step[i] : 1;
        int axis;

        r = op_axis(l.n_axis ? l.axis[i] : i, in[0]->shape.rank, false, &axis, err);
        if (r < 0)
            return r;
        if (step == 0 || step < -INT32_MAX)
            return error_code(err, -EBADMSG, "invalid_model", "a step is %lld", (long long)step);
        slice_axis(s, axis, in[0]->shape.dim[axis], l.start[i], l.end[i], step);
    }
    return 0;
}

static int slice_shape(
    const struct node *n, const struct tensor *const *in, struct tensor *out, struct error *err) {
    struct slice s;
    int r = slice_place(n, in, &s, err);

    if (r < 0 || (r = check_bytes(in[0], err)) < 0)
        return r;
    out[0].dtype = in[0]->dtype;
    out[0].shape.rank = in[0]->shape.rank;
    memcpy(out[0].shape.dim, s.size, sizeof(s.size));
    return 0;
}

static void slice_forward(
    const struct node *n, const struct tensor *const *in, struct tensor *out, void *scratch) {
    int64_t dense[SHAPE_MAX_RANK], stride[SHAPE_MAX_RANK], at = 0;
    size_t size = element_size(in[0]);
    struct slice s;

    (void)scratch;
    if (slice_place(n, in, &s, NULL) < 0 || op_count(&out[0]) == 0)
        return;
    dense_strides(&in[0]->shape, dense);
    for (int i = 0; i < out[0].shape.rank; i++) {
        at += s.start[i] * dense[i];
        stride[i] = s.step[i] * dense[i];
    }
    copy_strided(&out[0].shape, (const char *)in[0]->data + at * (int64_t)size, stride, size, out[0].data);
}

static int gather_shape(
    const struct node *n, const struct tensor *const *in, struct tensor *out, struct error *err) {
    struct shape s = {0};
    int axis, r = op_axis(node_attr_int(n, "axis", 0), in[0]->shape.rank, false, &axis, err);

    if (r < 0 || (r = check_bytes(in[0], err)) < 0)
        return r;
    if (in[1]->dtype != DT_S64 && in[1]->dtype != DT_S32)
        return error_code(err, -EBADMSG, "invalid_model", "the indices are not int64 or int32");
    if (in[0]->shape.rank - 1 + in[1]->shape.rank > SHAPE_MAX_RANK)
        return error_code(
            err, -EBADMSG, "shape_mismatch", "the result has more than %d dimensions", SHAPE_MAX_RANK);
    for (int i = 0; i < axis; i++)
        s.dim[s.rank++] = in[0]->shape.dim[i];
    for (int i = 0; i < in[1]->shape.rank; i++)
        s.dim[s.rank++] = in[1]->shape.dim[i];
    for (int i = axis + 1; i < in[0]->shape.rank; i++)
        s.dim[s.rank++] = in[0]->shape.dim[i];
    if (in[0]->shape.dim[axis] == 0 && op_count(in[1]) > 0)
        return error_code(err, -EBADMSG, "shape_mismatch", "nothing can be gathered from an empty axis");
    out[0].dtype = in[0]->dtype;
    out[0].shape = s;
    return 0;
}

/* Indices outside the axis, which ONNX leaves undefined, are taken at its nearest end. */
static void gather_forward(
    const struct node *n, const struct tensor *const *in, struct tensor *out, void *scratch) {
    int64_t outer, mid, inner, count = op_count(in[1]);
    size_t run;
    char *to = out[0].data;
    int axis = 0;

    (void)scratch;
    (void)op_axis(node_attr_int(n, "axis", 0), in[0]->shape.rank, false, &axis, NULL);
    op_split_shape(&in[0]->shape, axis, &outer, &mid, &inner);
    run = (size_t)inner * element_size(in[0]);
    for (int64_t o = 0; o < outer && run; o++)
        for (int64_t i = 0; i < count; i++, to += run) {
            int64_t k = in[1]->dtype == DT_S64 ? ((const int64_t *)in[1]->data)[i]
                                               : ((const int32_t *)in[1]->data)[i];

            k = clamp(k < 0 ? k + mid : k, 0, mid - 1);
            memcpy(to, (const char *)in[0]->data + (size_t)(o * mid + k) * run, run);
        }
}

static int expand_shape(
    const struct node *n, const struct tensor *const *in, struct tensor *out, struct error *err) {
    struct shape want = {0};
    int r = op_read_ints(in[1], want.dim, SHAPE_MAX_RANK, &want.rank, err);

    (void)n;
    if (r < 0 || (r = check_bytes(in[0], err)) < 0)
        return r;
    for (int i = 0; i < want.rank; i++)
        if (want.dim[i] < 0)
            return error_code(
                err, -EBADMSG, "invalid_model", "the new shape has the entry %lld", (long long)want.dim[i]);
    out[0].dtype = in[0]->dtype;
    return op_broadcast(&in[0]->shape, &want, &out[0].shape, err);
}

static void expand_forward(
    const struct node *n, const struct tensor *const *in, struct tensor *out, void *scratch) {
    int64_t dense[SHAPE_MAX_RANK], stride[SHAPE_MAX_RANK];
    int skip = out[0].shape.rank - in[0]->shape.rank;

    (void)n;
    (void)scratch;
    dense_strides(&in[0]->shape, dense);
    for (int i = 0; i < out[0].shape.rank; i++)
        stride[i] = i < skip || in[0]->shape.dim[i - skip] == 1 ? 0 : dense[i - skip];
    copy_strided(&out[0].shape, in[0]->data, stride, element_size(in[0]), out[0].data);
}

#define MOVE_ROW(variable, onnx_name, least, most, most_out, shape_fn, run, coupling, how)                   \
    const struct op variable = {                                                                             \
        .name = onnx_name,                                                                                   \
        .domain = "",                                                                                        \
        .since = 1,                                                                                          \
        .until = OPSET_LAST,                                                                                 \
        .min_in = least,                                                                                     \
        .max_in = most,                                                                                      \
        .min_out = 1,                                                                                        \
        .max_out = most_out,                                                                                 \
        .shape = shape_fn,                                                                                   \
        .forward = run,                                                                                      \
        .backward = move_backward,                                                                           \
        .backward_scratch = move_backward_scratch,                                                           \
        .cost = op_cost_move,                                                                                \
        .couple = coupling,                                                                                  \
        .quant = how,                                                                                        \
    }

MOVE_ROW(op_concat, "Concat", 1, 4096, 1, concat_shape, concat_forward, OP_COUPLE_CONCAT, OP_QUANT_SAME);
MOVE_ROW(op_expand, "Expand", 2, 2, 1, expand_shape, expand_forward, OP_COUPLE_NONE, OP_QUANT_SAME);
MOVE_ROW(op_gather, "Gather", 2, 2, 1, gather_shape, gather_forward, OP_COUPLE_NONE, OP_QUANT_SAME);
MOVE_ROW(op_slice, "Slice", 1, 5, 1, slice_shape, slice_forward, OP_COUPLE_NONE, OP_QUANT_SAME);
MOVE_ROW(op_split, "Split", 1, 2, SPLIT_MAX, split_shape, split_forward, OP_COUPLE_NONE, OP_QUANT_SAME);
MOVE_ROW(
    op_transpose, "Transpose", 1, 1, 1, transpose_shape, transpose_forward, OP_COUPLE_NONE, OP_QUANT_SAME);
