/* Operators that move channels: views, permutations, parts. */
#include <errno.h>
#include <string.h>

#include "compress/coupling_priv.h"
#include "engine/ops/common.h"
#include "engine/ops/pad.h"

static int64_t product(const struct shape *s, int from, int to) {
    int64_t n = 1;

    for (int d = from; d < to; d++)
        n *= s->dim[d];
    return n;
}

/* The first axis of `s` behind `before` elements, past axes of one; -1: none begins there. */
static int axis_behind(const struct shape *s, int64_t before) {
    int64_t n = 1;
    int d = 0;

    while (d < s->rank && n < before)
        n *= s->dim[d++];
    while (d < s->rank && s->dim[d] == 1)
        d++;
    return n == before && d < s->rank ? d : -1;
}

/* A channel becomes a run of `size` / n features. */
static int spread(struct coupler *k, int value, int axis, int64_t size, const struct coupling_value *x) {
    int *unit = coupler_room(k, size);

    if (!unit)
        return -ENOMEM;
    for (int64_t i = 0; i < size; i++)
        unit[i] = x->channel[i / (size / x->n)];
    coupler_set(k, value, axis, axis, size, unit);
    return 0;
}

/* Runs of features of one channel each become that channel again. False: they are not such runs. */
static bool gather(
    struct coupler *k, int value, int axis, int64_t size, const struct coupling_value *x, int *unit) {
    int64_t run = x->n / size;

    for (int64_t i = 0; i < x->n; i++)
        if (coupler_root(k, x->channel[i]) != coupler_root(k, x->channel[i / run * run]))
            return false;
    for (int64_t i = 0; i < size; i++)
        unit[i] = x->channel[i * run];
    coupler_set(k, value, axis, axis, size, unit);
    return true;
}

/* Channels over two axes: whole columns go, so that a grid is left. */
static bool make_grid(struct coupler *k, int value, int axis, const struct coupling_value *x) {
    const struct shape *s = coupler_shape(k, value);
    int64_t rows = s->dim[axis], columns = x->n / rows;

    if (axis + 1 >= s->rank || s->dim[axis + 1] != columns)
        return false;
    for (int64_t i = columns; i < x->n; i++)
        coupler_tie(k, x->channel[i % columns], x->channel[i]);
    coupler_set(k, value, axis, axis + 1, x->n, x->channel);
    return true;
}

static int view(struct coupler *k, const struct node *n, const struct coupling_value *x) {
    const struct shape *in = coupler_shape(k, n->in[0]), *out = coupler_shape(k, n->out[0]);
    int64_t after = product(in, x->last + 1, in->rank), size;
    int axis = axis_behind(out, product(in, 0, x->first));
    int *unit;

    if (axis < 0) {
        coupler_keep_value(k, n->in[0], coupling_mixed);
        return 0;
    }
    size = out->dim[axis];
    if (size == x->n) {
        coupler_set(k, n->out[0], axis, axis, size, x->channel);
        return 0;
    }
    if (size > x->n && size % x->n == 0 && after % (size / x->n) == 0)
        return spread(k, n->out[0], axis, size, x);
    if (size < x->n && x->n % size == 0) {
        unit = coupler_room(k, size);
        if (!unit)
            return -ENOMEM;
        memset(unit, 0, (size_t)size * sizeof(*unit));
        if (gather(k, n->out[0], axis, size, x, unit) || make_grid(k, n->out[0], axis, x))
            return 0;
    }
    coupler_keep_value(k, n->in[0], coupling_mixed);
    return 0;
}

int couple_view(struct coupler *k, const struct node *n) {
    const struct coupling_value *x = coupler_value(k, n->in[0]);
    struct coupling_value copy;

    if (!x)
        return 0;
    copy = *x;
    if (!strcmp(n->op_type, "Reshape") && n->n_in > 1 && !coupler_init(k, n, 1) && !k->trusts_computed)
        coupler_keep_value(k, n->in[0], coupling_computed);
    return view(k, n, &copy);
}

int couple_transpose(struct coupler *k, const struct node *n) {
    const struct coupling_value *x = coupler_value(k, n->in[0]);
    int rank = coupler_shape(k, n->in[0])->rank, n_perm = 0, first = -1, last = -1;
    const struct attr *perm = node_attr(n, "perm");
    int *unit;

    if (!x)
        return 0;
    n_perm = perm && perm->type == ATTR_INTS ? (int)perm->n : 0;
    for (int d = 0; d < rank; d++) {
        int from = n_perm ? (int)perm->ints[d] : rank - 1 - d;

        first = from == x->first ? d : first;
        last = from == x->last ? d : last;
    }
    if (first == last || (last == first + 1 && x->last == x->first + 1)) {
        coupler_set(k, n->out[0], first, last, x->n, x->channel);
        return 0;
    }
    if (first != last + 1 || x->last != x->first + 1) {
        coupler_keep_value(k, n->in[0], coupling_mixed);
        return 0;
    }
    unit = coupler_room(k, x->n);
    if (!unit)
        return -ENOMEM;
    for (int64_t rows = coupler_shape(k, n->in[0])->dim[x->first], columns = x->n / rows, i = 0; i < x->n;
         i++)
        unit[i] = x->channel[i % rows * columns + i / rows];
    coupler_set(k, n->out[0], last, first, x->n, unit);
    return 0;
}

/* ---- one after the other ---- */

/* The channels of operand i along `axis`; new ones, kept, when they are not followed. */
static const int *operand(struct coupler *k, const struct node *n, int i, int axis, int64_t size, int *ret) {
    const struct coupling_value *x = coupler_value(k, n->in[i]);
    int *unit;

    *ret = 0;
    if (x && x->first == axis && x->last == axis)
        return x->channel;
    coupler_keep_value(k, n->in[i], coupling_unlike);
    unit = coupler_new(k, size);
    if (!unit) {
        *ret = -ENOMEM;
        return NULL;
    }
    for (int64_t c = 0; c < size; c++)
        coupler_keep(k, unit[c], coupling_unlike);
    return unit;
}

/* Along another axis than that of the channels: all operands have the same. */
static int concat_across(struct coupler *k, const struct node *n, const struct coupling_value *x) {
    for (int i = 0; i < n->n_in; i++) {
        const struct coupling_value *other = coupler_value(k, n->in[i]);

        if (!other || other->first != x->first || other->last != x->last || other->n != x->n) {
            coupler_keep_inputs(k, n, coupling_unlike);
            return 0;
        }
        for (int64_t c = 0; c < x->n; c++)
            coupler_tie(k, x->channel[c], other->channel[c]);
    }
    coupler_set(k, n->out[0], x->first, x->last, x->n, x->channel);
    return 0;
}

int couple_concat(struct coupler *k, const struct node *n) {
    const struct shape *out = coupler_shape(k, n->out[0]);
    const struct coupling_value *x = NULL;
    int64_t at = 0;
    int *unit, axis, r;

    for (int i = 0; i < n->n_in && !x; i++)
        x = coupler_value(k, n->in[i]);
    if (!x || op_axis(node_attr_int(n, "axis", 1), out->rank, false, &axis, NULL) < 0)
        return 0;
    if (axis < x->first || axis > x->last) {
        struct coupling_value copy = *x;

        return concat_across(k, n, &copy);
    }
    if (x->first != x->last) {
        coupler_keep_inputs(k, n, coupling_mixed);
        return 0;
    }
    unit = coupler_room(k, out->dim[axis]);
    if (!unit)
        return -ENOMEM;
    memset(unit, 0, (size_t)out->dim[axis] * sizeof(*unit));
    for (int i = 0; i < n->n_in; i++) {
        int64_t size = coupler_shape(k, n->in[i])->dim[axis];
        const int *from = operand(k, n, i, axis, size, &r);

        if (!from)
            return r;
        memcpy(unit + at, from, (size_t)size * sizeof(*unit));
        at += size;
    }
    coupler_set(k, n->out[0], axis, axis, out->dim[axis], unit);
    return 0;
}

/* ---- parts ---- */

int couple_split(struct coupler *k, const struct node *n) {
    const struct coupling_value *x = coupler_value(k, n->in[0]);
    const struct tensor *sizes = coupler_init(k, n, 1);
    int64_t at = 0;
    int axis;

    if (!x || op_axis(node_attr_int(n, "axis", 0), coupler_shape(k, n->in[0])->rank, false, &axis, NULL) < 0)
        return 0;
    if (axis >= x->first && axis <= x->last &&
        (x->first != x->last || (n->n_in > 1 && n->in[1] >= 0 && !sizes))) {
        coupler_keep_value(k, n->in[0], coupling_mixed);
        return 0;
    }
    for (int i = 0; i < n->n_out; i++) {
        int64_t size = n->out[i] >= 0 ? coupler_shape(k, n->out[i])->dim[axis] : 0;

        if (axis != x->first)
            coupler_set(k, n->out[i], x->first, x->last, x->n, x->channel);
        else
            coupler_set(k, n->out[i], axis, axis, size, x->channel + at);
        at += size;
    }
    return 0;
}

/* Bounds of the slice along `axis`, when they are constants, not computed ones. False: there are none that
 * can be followed. *ret_start: -1: the axis is not cut. */
static bool read_slice(
    const struct coupler *k, const struct node *n, int axis, int64_t size, int64_t *ret_start) {
    int64_t start[SHAPE_MAX_RANK], axes[SHAPE_MAX_RANK], steps[SHAPE_MAX_RANK];
    int count, n_axes = 0, n_steps = 0;
    bool has_axes = coupler_ints(k, n, 3, "axes", axes, &n_axes);
    bool has_steps = coupler_ints(k, n, 4, NULL, steps, &n_steps);

    *ret_start = -1;
    if (!coupler_ints(k, n, 1, "starts", start, &count))
        return false;
    for (int i = 0; i < count; i++) {
        int a = i;

        if (has_axes &&
            (i >= n_axes || op_axis(axes[i], coupler_shape(k, n->in[0])->rank, false, &a, NULL) < 0))
            return false;
        if (a != axis)
            continue;
        if ((has_steps && steps[i] != 1) ||
            (n->n_in > 1 && (!coupler_init(k, n, 1) || !coupler_init(k, n, 2))))
            return false;
        *ret_start = start[i] < 0 ? start[i] + size : start[i];
        *ret_start = *ret_start < 0 ? 0 : *ret_start > size ? size : *ret_start;
    }
    return true;
}

int couple_slice(struct coupler *k, const struct node *n) {
    const struct coupling_value *x = coupler_value(k, n->in[0]);
    const struct shape *in = coupler_shape(k, n->in[0]), *out = coupler_shape(k, n->out[0]);
    int64_t start = -1;

    if (!x)
        return 0;
    if (product(in, x->first, x->last + 1) == product(out, x->first, x->last + 1)) {
        coupler_set(k, n->out[0], x->first, x->last, x->n, x->channel);
        /* bounds that cut nothing now cut nothing of fewer; a step of -1 may */
        if (x->first != x->last || !read_slice(k, n, x->first, x->n, &start))
            coupler_keep_value(k, n->in[0], coupling_mixed);
        return 0;
    }
    if (x->first != x->last || !read_slice(k, n, x->first, x->n, &start) || start < 0 ||
        start + out->dim[x->first] > x->n) {
        coupler_keep_value(k, n->in[0], coupling_mixed);
        return 0;
    }
    coupler_set(k, n->out[0], x->first, x->first, out->dim[x->first], x->channel + start);
    return 0;
}

int couple_pad(struct coupler *k, const struct node *n) {
    const struct coupling_value *x = coupler_value(k, n->in[0]);
    const struct shape *out = coupler_shape(k, n->out[0]);
    const struct tensor *in[4] = {0};
    struct pad_at p;
    int64_t begin, end;
    int *unit, *added;

    if (!x)
        return 0;
    for (int i = 0; i < n->n_in && i < 4; i++)
        in[i] = n->in[i] >= 0 ? &k->s.value[n->in[i]] : NULL;
    if (x->first != x->last || pad_place(n, in, &p, NULL) < 0) {
        coupler_keep_value(k, n->in[0], coupling_mixed);
        return 0;
    }
    begin = p.begin[x->first];
    end = p.end[x->first];
    if (begin == 0 && end == 0) {
        coupler_set(k, n->out[0], x->first, x->last, x->n, x->channel);
        return 0;
    }
    if (begin < 0 || end < 0 || p.mode != PAD_CONSTANT || (n->n_in > 1 && !coupler_init(k, n, 1)) ||
        (n->n_in > 3 && n->in[3] >= 0)) {
        coupler_keep_value(k, n->in[0], coupling_mixed);
        return 0;
    }
    unit = coupler_room(k, out->dim[x->first]);
    added = coupler_new(k, begin + end);
    if (!unit || !added)
        return -ENOMEM;
    memcpy(unit, added, (size_t)begin * sizeof(*unit));
    memcpy(unit + begin, x->channel, (size_t)x->n * sizeof(*unit));
    memcpy(unit + begin + x->n, added + begin, (size_t)end * sizeof(*unit));
    coupler_set(k, n->out[0], x->first, x->first, out->dim[x->first], unit);
    return 0;
}

/* Sums over other axes than that of the channels. */
int couple_reduce(struct coupler *k, const struct node *n) {
    const struct coupling_value *x = coupler_value(k, n->in[0]);
    int64_t axes[SHAPE_MAX_RANK];
    int n_axes = 0, before = 0, rank = coupler_shape(k, n->in[0])->rank;

    if (!x)
        return 0;
    if (!coupler_ints(k, n, 1, "axes", axes, &n_axes) || n_axes == 0) {
        coupler_keep_value(k, n->in[0], coupling_mixed);
        return 0;
    }
    for (int i = 0; i < n_axes; i++) {
        int a;

        if (op_axis(axes[i], rank, false, &a, NULL) < 0 || (a >= x->first && a <= x->last)) {
            coupler_keep_value(k, n->in[0], coupling_mixed);
            return 0;
        }
        before += a < x->first;
    }
    if (node_attr_int(n, "keepdims", 1))
        before = 0;
    coupler_set(k, n->out[0], x->first - before, x->last - before, x->n, x->channel);
    return 0;
}
