/* TopK: the k largest or smallest of each row along an axis, equal ones in the order they stand in. A heap of
 * the k best so far, the worst of them on top; emptied, it gives them sorted. */
#include "engine/ops/common.h"
#include "engine/ops/element.h"
#include "engine/ops/rows.h"

struct row {
    const struct tensor *x;
    int64_t first, step;
    bool is_smallest;
    int64_t *heap; /* positions in the row */
    int64_t n;
};

/* Is the element at `a` worse than the one at `b`? Of equal ones the later is. */
static bool is_worse(const struct row *r, int64_t a, int64_t b) {
    int64_t i = r->first + a * r->step, j = r->first + b * r->step;
    bool less, more;

    if (element_is_float(r->x->dtype)) {
        double v = element_get(r->x, i), w = element_get(r->x, j);

        less = v < w;
        more = v > w;
    } else {
        int64_t v = element_get_int(r->x, i), w = element_get_int(r->x, j);

        less = r->x->dtype == DT_U64 ? (uint64_t)v < (uint64_t)w : v < w;
        more = v != w && !less;
    }
    if (!less && !more)
        return a > b;
    return r->is_smallest ? more : less;
}

static void sink(struct row *r, int64_t at) {
    for (;;) {
        int64_t child = 2 * at + 1, moved = r->heap[at];

        if (child >= r->n)
            return;
        if (child + 1 < r->n && is_worse(r, r->heap[child + 1], r->heap[child]))
            child++;
        if (!is_worse(r, r->heap[child], moved))
            return;
        r->heap[at] = r->heap[child];
        r->heap[child] = moved;
        at = child;
    }
}

static void rise(struct row *r, int64_t at) {
    while (at > 0 && is_worse(r, r->heap[at], r->heap[(at - 1) / 2])) {
        int64_t parent = (at - 1) / 2, moved = r->heap[at];

        r->heap[at] = r->heap[parent];
        r->heap[parent] = moved;
        at = parent;
    }
}

static void offer(struct row *r, int64_t i, int64_t k) {
    if (r->n < k) {
        r->heap[r->n++] = i;
        rise(r, r->n - 1);
    } else if (k && is_worse(r, r->heap[0], i)) {
        r->heap[0] = i;
        sink(r, 0);
    }
}

/* Opset 1 has k as an attribute. */
static int read_k(const struct node *n, const struct tensor *const *in, int64_t *ret, struct error *err) {
    int count = 0, r;

    if (n->n_in < 2 || !in[1]) {
        *ret = node_attr_int(n, "k", -1);
        return 0;
    }
    r = op_read_ints(in[1], ret, 1, &count, err);
    if (r == 0 && count != 1)
        return error_code(err, -EBADMSG, "invalid_model", "K is not one number");
    return r;
}

static int top_k_shape(
    const struct node *n, const struct tensor *const *in, struct tensor *out, struct error *err) {
    int64_t k = 0;
    int axis, r = op_axis(node_attr_int(n, "axis", -1), in[0]->shape.rank, false, &axis, err);

    if (r == 0)
        r = read_k(n, in, &k, err);
    if (r < 0)
        return r;
    if (!element_is_known(in[0]->dtype) || in[0]->dtype == DT_BOOL)
        return error_code(err, -EBADMSG, "unsupported_operator", "this type is not supported here");
    if (k < 0 || k > in[0]->shape.dim[axis])
        return error_code(err, -EBADMSG, "shape_mismatch", "K is %lld, the axis has %lld elements",
            (long long)k, (long long)in[0]->shape.dim[axis]);
    for (int i = 0; i < n->n_out; i++) {
        out[i].dtype = i ? DT_S64 : in[0]->dtype;
        out[i].shape = in[0]->shape;
        out[i].shape.dim[axis] = k;
    }
    return 0;
}

static int64_t kept(const struct node *n, const struct tensor *x, const struct tensor *y, int *axis) {
    *axis = 0;
    (void)op_axis(node_attr_int(n, "axis", -1), x->shape.rank, false, axis, NULL);
    return y->shape.dim[*axis];
}

static size_t top_k_scratch(const struct node *n, const struct tensor *const *in, const struct tensor *out) {
    int axis;

    return (size_t)kept(n, in[0], &out[0], &axis) * sizeof(int64_t);
}

static void put(struct tensor *y, int64_t to, const struct tensor *x, int64_t from) {
    if (element_is_float(y->dtype))
        element_set(y, to, element_get(x, from));
    else
        element_set_int(y, to, element_get_int(x, from));
}

static void top_k_forward(
    const struct node *n, const struct tensor *const *in, struct tensor *out, void *scratch) {
    bool is_smallest = node_attr_int(n, "largest", 1) == 0;
    int64_t outer, mid, inner, k;
    int axis;

    k = kept(n, in[0], &out[0], &axis);
    op_split_shape(&in[0]->shape, axis, &outer, &mid, &inner);
    for (int64_t row = 0; row < outer * inner; row++) {
        struct row r = {.x = in[0], .step = inner, .is_smallest = is_smallest, .heap = scratch};
        int64_t to = row / inner * k * inner + row % inner;

        r.first = row / inner * mid * inner + row % inner;
        for (int64_t i = 0; i < mid; i++)
            offer(&r, i, k);
        while (r.n) { /* the worst comes first, so from the end */
            int64_t i = r.heap[0], at = to + (r.n - 1) * inner;

            put(&out[0], at, in[0], r.first + i * inner);
            if (n->n_out > 1 && out[1].data)
                ((int64_t *)out[1].data)[at] = i;
            r.heap[0] = r.heap[--r.n];
            sink(&r, 0);
        }
    }
}

const struct op op_top_k = {
    .name = "TopK",
    .domain = "",
    .since = 1,
    .until = OPSET_LAST,
    .min_in = 1,
    .max_in = 2,
    .min_out = 1,
    .max_out = 2,
    .shape = top_k_shape,
    .scratch = top_k_scratch,
    .forward = top_k_forward,
    .cost = op_cost_elementwise,
    .couple = OP_COUPLE_NONE,
    .quant = OP_QUANT_FLOAT,
};
