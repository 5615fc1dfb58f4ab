#include "engine/ops/common.h"

int op_shape_same(
    const struct node *n, const struct tensor *const *in, struct tensor *out, struct error *err) {
    (void)n;
    (void)err;
    out[0].dtype = in[0]->dtype;
    out[0].shape = in[0]->shape;
    return 0;
}

static int64_t moved_bytes(const struct node *n, const struct tensor *const *in, const struct tensor *out) {
    int64_t bytes = 0;

    for (int i = 0; i < n->n_in; i++)
        if (in[i])
            bytes += (int64_t)op_bytes(in[i]);
    for (int i = 0; i < n->n_out; i++)
        bytes += (int64_t)op_bytes(&out[i]);
    return bytes;
}

void op_cost_elementwise(
    const struct node *n, const struct tensor *const *in, const struct tensor *out, struct op_cost *ret) {
    *ret = (struct op_cost){.macs = op_count(&out[0]), .bytes = moved_bytes(n, in, out)};
}

void op_cost_move(
    const struct node *n, const struct tensor *const *in, const struct tensor *out, struct op_cost *ret) {
    *ret = (struct op_cost){.bytes = moved_bytes(n, in, out)};
}

int op_check_float(const struct tensor *t, struct error *err) {
    const struct dtype_info *i = dtype_info(t->dtype);

    if (t->dtype == DT_F32)
        return 0;
    return error_code(err, -EBADMSG, "unsupported_operator", "type %s is not supported here, only float",
        i ? i->name : "?");
}

int op_broadcast(const struct shape *a, const struct shape *b, struct shape *ret, struct error *err) {
    struct shape s = {.rank = a->rank > b->rank ? a->rank : b->rank};
    char ta[SHAPE_TEXT_MAX], tb[SHAPE_TEXT_MAX];

    for (int i = 0; i < s.rank; i++) {
        int64_t x = i < s.rank - a->rank ? 1 : a->dim[i - (s.rank - a->rank)];
        int64_t y = i < s.rank - b->rank ? 1 : b->dim[i - (s.rank - b->rank)];

        if (x != y && x != 1 && y != 1)
            return error_code(err, -EBADMSG, "shape_mismatch", "shapes %s and %s do not broadcast",
                shape_text(a, ta), shape_text(b, tb));
        s.dim[i] = x == 1 ? y : x;
    }
    *ret = s;
    return 0;
}

int op_axis(int64_t axis, int rank, bool is_position, int *ret, struct error *err) {
    int64_t a = axis < 0 ? axis + rank : axis;

    if (a < 0 || a > rank || (a == rank && !is_position))
        return error_code(
            err, -EBADMSG, "shape_mismatch", "axis %lld of a tensor of rank %d", (long long)axis, rank);
    *ret = (int)a;
    return 0;
}

int op_read_ints(const struct tensor *t, int64_t *ret, int max, int *ret_n, struct error *err) {
    int64_t n = op_count(t);

    if (t->dtype != DT_S64 && t->dtype != DT_S32)
        return error_code(err, -EBADMSG, "invalid_model", "an integer input is not int64 or int32");
    if (t->shape.rank > 1 || n > max)
        return error_code(err, -EBADMSG, "invalid_model",
            "an integer input has %lld values, at most %d make sense", (long long)n, max);
    if (!t->data)
        return n == 0 ? (*ret_n = 0) : -EAGAIN;
    for (int64_t i = 0; i < n; i++) {
        int32_t small;

        if (t->dtype == DT_S64) {
            memcpy(&ret[i], (const char *)t->data + (size_t)i * sizeof(int64_t), sizeof(int64_t));
            continue;
        }
        memcpy(&small, (const char *)t->data + (size_t)i * sizeof(small), sizeof(small));
        ret[i] = small;
    }
    *ret_n = (int)n;
    return 0;
}

void op_split_shape(const struct shape *s, int axis, int64_t *outer, int64_t *mid, int64_t *inner) {
    *outer = *inner = 1;
    *mid = axis < s->rank ? s->dim[axis] : 1;
    for (int i = 0; i < s->rank; i++) {
        if (i < axis)
            *outer *= s->dim[i];
        if (i > axis)
            *inner *= s->dim[i];
    }
}

int64_t op_broadcast_index(const struct shape *t, const struct shape *s, int64_t i) {
    int64_t at = 0, step = 1;

    for (int d = s->rank - 1; d >= 0; d--) {
        int k = d - (s->rank - t->rank);

        if (k >= 0) {
            at += t->dim[k] == 1 ? 0 : i % s->dim[d] * step;
            step *= t->dim[k];
        }
        i /= s->dim[d];
    }
    return at;
}
