#include "engine/ops/pad.h"

#include "engine/ops/common.h"
#include "engine/ops/grad.h"
#include "engine/ops/rows.h"

static int read_mode(const struct node *n, enum pad_mode *ret, struct error *err) {
    static const char *const names[] = {"constant", "reflect", "edge", "wrap"};
    const char *s = node_attr_string(n, "mode", "constant");

    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
        if (!strcmp(s, names[i])) {
            *ret = (enum pad_mode)i;
            return 0;
        }
    return error_code(err, -EBADMSG, "unsupported_operator", "mode '%.32s' is not supported", s);
}

int pad_place(const struct node *n, const struct tensor *const *in, struct pad_at *ret, struct error *err) {
    const struct attr *a = node_attr(n, "pads") ? node_attr(n, "pads") : node_attr(n, "paddings");
    int64_t pads[2 * SHAPE_MAX_RANK], axes[SHAPE_MAX_RANK];
    int count = 0, n_axes = in[0]->shape.rank, r = read_mode(n, &ret->mode, err);

    if (r < 0)
        return r;
    for (int i = 0; i < SHAPE_MAX_RANK; i++)
        axes[i] = i;
    if (n->n_in > 1 && in[1])
        r = op_read_ints(in[1], pads, 2 * SHAPE_MAX_RANK, &count, err);
    else if (a && a->type == ATTR_INTS && a->n <= 2 * SHAPE_MAX_RANK)
        memcpy(pads, a->ints, (size_t)(count = (int)a->n) * sizeof(*pads));
    if (r == 0 && n->n_in > 3 && in[3])
        r = op_read_ints(in[3], axes, SHAPE_MAX_RANK, &n_axes, err);
    if (r < 0)
        return r;
    if (count != 2 * n_axes)
        return error_code(err, -EBADMSG, "invalid_model", "%d pads for %d dimensions", count, n_axes);
    memset(ret->begin, 0, sizeof(ret->begin));
    memset(ret->end, 0, sizeof(ret->end));
    for (int i = 0; i < n_axes; i++) {
        int axis;

        r = op_axis(axes[i], in[0]->shape.rank, false, &axis, err);
        if (r < 0)
            return r;
        if (pads[i] > INT32_MAX || pads[i] < -INT32_MAX || pads[n_axes + i] > INT32_MAX ||
            pads[n_axes + i] < -INT32_MAX)
            return error_code(err, -EBADMSG, "invalid_model", "a pad is too large");
        ret->begin[axis] = pads[i];
        ret->end[axis] = pads[n_axes + i];
    }
    return 0;
}

static int pad_shape(
    const struct node *n, const struct tensor *const *in, struct tensor *out, struct error *err) {
    const struct dtype_info *type = dtype_info(in[0]->dtype);
    struct pad_at p;
    int r = pad_place(n, in, &p, err);

    if (r < 0)
        return r;
    if (!type || type->bits < 8)
        return error_code(err, -EBADMSG, "unsupported_operator", "this type is not supported here");
    out[0].dtype = in[0]->dtype;
    out[0].shape = in[0]->shape;
    for (int i = 0; i < out[0].shape.rank; i++) {
        int64_t d = in[0]->shape.dim[i], most = p.begin[i] > p.end[i] ? p.begin[i] : p.end[i];

        out[0].shape.dim[i] = d + p.begin[i] + p.end[i];
        if (out[0].shape.dim[i] < 0 || (p.mode != PAD_CONSTANT && d == 0 && most > 0) ||
            (p.mode == PAD_REFLECT && most >= d && most > 0) || (p.mode == PAD_WRAP && most > d))
            return error_code(err, -EBADMSG, "shape_mismatch",
                "dimension %d of %lld cannot be padded by %lld and %lld", i, (long long)d,
                (long long)p.begin[i], (long long)p.end[i]);
    }
    return 0;
}

/* Where element i of a padded axis comes from; -1: the constant. */
static int64_t source_of(const struct pad_at *p, int axis, int64_t i, int64_t size) {
    int64_t k = i - p->begin[axis];

    if (k >= 0 && k < size)
        return k;
    switch (p->mode) {
    case PAD_REFLECT: return k < 0 ? -k : 2 * (size - 1) - k;
    case PAD_EDGE: return k < 0 ? 0 : size - 1;
    case PAD_WRAP: return k < 0 ? k + size : k - size;
    case PAD_CONSTANT:
    default: return -1;
    }
}

/* The first element of the source row of output row `row` (in rows of the last dimension); -1: the constant.
 */
static int64_t source_row(
    const struct pad_at *p, const struct shape *in, const struct shape *out, int64_t row) {
    int64_t from = 0, step = in->dim[in->rank - 1];

    for (int d = in->rank - 2; d >= 0; d--) {
        int64_t k = source_of(p, d, row % out->dim[d], in->dim[d]);

        if (k < 0)
            return -1;
        row /= out->dim[d];
        from += k * step;
        step *= in->dim[d];
    }
    return from;
}

static void fill_row(char *to, int64_t n, const void *fill, size_t size) {
    for (int64_t i = 0; i < n; i++)
        memcpy(to + (size_t)i * size, fill, size);
}

/* One row: what lies inside of the input is copied at once. */
static void pad_row(const struct pad_at *p, int axis, const char *from, int64_t d, char *to, int64_t width,
    const void *fill, size_t size) {
    int64_t first = p->begin[axis] > 0 ? p->begin[axis] : 0, last = p->begin[axis] + d;

    last = last < width ? last : width;
    if (last > first)
        memcpy(to + (size_t)first * size, from + (size_t)(first - p->begin[axis]) * size,
            (size_t)(last - first) * size);
    for (int64_t i = 0; i < width; i++) {
        int64_t k;

        if (i == first && last > first)
            i = last;
        if (i >= width)
            return;
        k = source_of(p, axis, i, d);
        memcpy(to + (size_t)i * size, k < 0 ? fill : from + (size_t)k * size, size);
    }
}

static void pad_forward(
    const struct node *n, const struct tensor *const *in, struct tensor *out, void *scratch) {
    static const char zeros[8] = {0};
    size_t size = dtype_info(out[0].dtype)->bits / 8;
    float value = node_attr_float(n, "value", 0);
    const void *fill = in[0]->dtype == DT_F32 ? (const void *)&value : zeros;
    int64_t count = op_count(&out[0]), width;
    int last = in[0]->shape.rank - 1;
    struct pad_at p;

    (void)scratch;
    if (pad_place(n, in, &p, NULL) < 0)
        return; /* shape() placed it before */
    if (n->n_in > 2 && in[2] && in[2]->data && op_count(in[2]) == 1)
        fill = in[2]->data;
    if (last < 0)
        memcpy(out[0].data, in[0]->data, size);
    width = last < 0 ? 0 : out[0].shape.dim[last];
    for (int64_t row = 0; width && row < count / width; row++) {
        int64_t from = source_row(&p, &in[0]->shape, &out[0].shape, row);
        char *to = (char *)out[0].data + (size_t)(row * width) * size;

        if (from < 0)
            fill_row(to, width, fill, size);
        else
            pad_row(&p, last, (const char *)in[0]->data + (size_t)from * size, in[0]->shape.dim[last], to,
                width, fill, size);
    }
}

const struct op op_pad = {
    .name = "Pad",
    .domain = "",
    .since = 1,
    .until = OPSET_LAST,
    .min_in = 1,
    .max_in = 4,
    .min_out = 1,
    .max_out = 1,
    .shape = pad_shape,
    .forward = pad_forward,
    .backward = move_backward,
    .backward_scratch = move_backward_scratch,
    .cost = op_cost_move,
    .couple = OP_COUPLE_NONE,
    .quant = OP_QUANT_SAME,
};
