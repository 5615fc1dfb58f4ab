/* Operators that give as much as the data say: NonZero, Compress, Unique. Their outputs have room for
 * everything; forward sets the shape to what there is (struct op, is_counted). */
#include <stdlib.h>

#include "engine/ops/common.h"
#include "engine/ops/element.h"
#include "engine/ops/rows.h"

static int check_type(const struct tensor *t, struct error *err) {
    if (element_is_known(t->dtype))
        return 0;
    return error_code(err, -EBADMSG, "unsupported_operator", "this type is not supported here");
}

/* One element, of any size. */
static void copy_element(struct tensor *to, int64_t at, const struct tensor *from, int64_t i) {
    if (element_is_float(to->dtype))
        element_set(to, at, element_get(from, i));
    else
        element_set_int(to, at, element_get_int(from, i));
}

/* y[rank][n]: the coordinates of what is not 0, in row-major order. A scalar is a vector of one. */
static int non_zero_shape(
    const struct node *n, const struct tensor *const *in, struct tensor *out, struct error *err) {
    int rank = in[0]->shape.rank;

    (void)n;
    out[0].dtype = DT_S64;
    out[0].shape = (struct shape){.rank = 2, .dim = {rank ? rank : 1, op_count(in[0])}};
    return check_type(in[0], err);
}

static void non_zero_forward(
    const struct node *n, const struct tensor *const *in, struct tensor *out, void *scratch) {
    const struct shape *s = &in[0]->shape;
    int64_t *y = out[0].data, count = op_count(in[0]), found = 0, rows = out[0].shape.dim[0];

    (void)n;
    (void)scratch;
    for (int64_t i = 0; i < count; i++)
        found += element_get(in[0], i) != 0;
    out[0].shape.dim[1] = found;
    for (int64_t i = 0, at = 0; i < count; i++) {
        int64_t rest = i;

        if (element_get(in[0], i) == 0)
            continue;
        for (int64_t d = rows - 1; d >= 0; d--) {
            int64_t size = s->rank ? s->dim[d] : 1;

            y[d * found + at] = rest % size;
            rest /= size;
        }
        at++;
    }
}

const struct op op_non_zero = {
    .name = "NonZero",
    .domain = "",
    .since = 9,
    .until = OPSET_LAST,
    .min_in = 1,
    .max_in = 1,
    .min_out = 1,
    .max_out = 1,
    .shape = non_zero_shape,
    .forward = non_zero_forward,
    .cost = op_cost_elementwise,
    .couple = OP_COUPLE_NONE,
    .quant = OP_QUANT_FLOAT,
    .is_counted = true,
};

/* Slices along an axis: outer x mid x inner. Without an axis the tensor is a vector. */
struct slices {
    int64_t outer, mid, inner;
    bool is_flat;
    int axis;
};

static int read_slices(const struct node *n, const struct tensor *x, struct slices *ret, struct error *err) {
    const struct attr *a = node_attr(n, "axis");
    struct slices s = {.outer = 1, .mid = op_count(x), .inner = 1, .is_flat = !a || a->type != ATTR_INT};
    int r = s.is_flat ? 0 : op_axis(a->i, x->shape.rank, false, &s.axis, err);

    if (r < 0)
        return r;
    if (!s.is_flat)
        op_split_shape(&x->shape, s.axis, &s.outer, &s.mid, &s.inner);
    *ret = s;
    return 0;
}

/* The shape with `n` slices left. */
static struct shape shape_of(const struct slices *s, const struct shape *x, int64_t n) {
    struct shape y = *x;

    if (s->is_flat)
        return (struct shape){.rank = 1, .dim = {n}};
    y.dim[s->axis] = n;
    return y;
}

/* Slice `from` of x becomes slice `to` of y, which has n of them. */
static void copy_slice(
    const struct slices *s, struct tensor *y, int64_t n, int64_t to, const struct tensor *x, int64_t from) {
    for (int64_t o = 0; o < s->outer; o++)
        for (int64_t i = 0; i < s->inner; i++)
            copy_element(y, (o * n + to) * s->inner + i, x, (o * s->mid + from) * s->inner + i);
}

static int compress_shape(
    const struct node *n, const struct tensor *const *in, struct tensor *out, struct error *err) {
    struct slices s;
    int r = check_type(in[0], err);

    if (r == 0)
        r = read_slices(n, in[0], &s, err);
    if (r < 0)
        return r;
    if (in[1]->dtype != DT_BOOL || in[1]->shape.rank != 1)
        return error_code(err, -EBADMSG, "invalid_model", "the condition is not a list of bool");
    if (in[1]->shape.dim[0] > s.mid)
        return error_code(err, -EBADMSG, "shape_mismatch", "the condition has %lld entries for %lld slices",
            (long long)in[1]->shape.dim[0], (long long)s.mid);
    out[0].dtype = in[0]->dtype;
    out[0].shape = shape_of(&s, &in[0]->shape, in[1]->shape.dim[0]);
    return 0;
}

static void compress_forward(
    const struct node *n, const struct tensor *const *in, struct tensor *out, void *scratch) {
    const uint8_t *condition = in[1]->data;
    int64_t found = 0;
    struct slices s;

    (void)scratch;
    if (read_slices(n, in[0], &s, NULL) < 0)
        return; /* shape() read it before */
    for (int64_t i = 0; i < in[1]->shape.dim[0]; i++)
        found += condition[i] != 0;
    out[0].shape = shape_of(&s, &in[0]->shape, found);
    for (int64_t i = 0, at = 0; i < in[1]->shape.dim[0]; i++)
        if (condition[i])
            copy_slice(&s, &out[0], found, at++, in[0], i);
}

const struct op op_compress = {
    .name = "Compress",
    .domain = "",
    .since = 9,
    .until = OPSET_LAST,
    .min_in = 2,
    .max_in = 2,
    .min_out = 1,
    .max_out = 1,
    .shape = compress_shape,
    .forward = compress_forward,
    .cost = op_cost_move,
    .couple = OP_COUPLE_NONE,
    .quant = OP_QUANT_FLOAT,
    .is_counted = true,
};

/* Outputs: the slices, where each stands first, which of them each slice of x is, how often it is there. */
static int unique_shape(
    const struct node *n, const struct tensor *const *in, struct tensor *out, struct error *err) {
    struct slices s;
    int r = check_type(in[0], err);

    if (r == 0)
        r = read_slices(n, in[0], &s, err);
    if (r < 0)
        return r;
    out[0].dtype = in[0]->dtype;
    out[0].shape = shape_of(&s, &in[0]->shape, s.mid);
    for (int i = 1; i < n->n_out; i++) {
        out[i].dtype = DT_S64;
        out[i].shape = (struct shape){.rank = 1, .dim = {s.mid}};
    }
    return 0;
}

/* Groups of equal slices. `order` has the slices sorted, equal ones beside each other. */
struct groups {
    const struct tensor *x;
    struct slices s;
    int64_t *order, *first,
        *group; /* [mid]: slices; of each group its first slice; of each slice its group */
};

static int compare_elements(const struct tensor *x, int64_t a, int64_t b) {
    if (element_is_float(x->dtype)) {
        double v = element_get(x, a), w = element_get(x, b);

        if (v != v || w != w)
            return (v != v) - (w != w); /* NaN last */
        return (v > w) - (v < w);
    } else {
        int64_t v = element_get_int(x, a), w = element_get_int(x, b);

        if (x->dtype == DT_U64)
            return ((uint64_t)v > (uint64_t)w) - ((uint64_t)v < (uint64_t)w);
        return (v > w) - (v < w);
    }
}

static int compare_slices(const struct groups *g, int64_t a, int64_t b) {
    const struct slices *s = &g->s;

    for (int64_t o = 0; o < s->outer; o++)
        for (int64_t i = 0; i < s->inner; i++) {
            int c = compare_elements(g->x, (o * s->mid + a) * s->inner + i, (o * s->mid + b) * s->inner + i);

            if (c)
                return c;
        }
    return 0;
}

/* By their numbers, equal ones as they stand. */
static int by_slice(const void *a, const void *b, void *ctx) {
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    int c = compare_slices(ctx, x, y);

    return c ? c : (x > y) - (x < y);
}

static int by_number(const void *a, const void *b) {
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;

    return (x > y) - (x < y);
}

/* Returns the number of groups; `first` has them by their numbers, or with `sorted` = 0 as they come. */
static int64_t find_groups(struct groups *g, bool is_sorted) {
    int64_t n = 0;

    for (int64_t i = 0; i < g->s.mid; i++)
        g->order[i] = i;
    qsort_r(g->order, (size_t)g->s.mid, sizeof(*g->order), by_slice, g);
    for (int64_t i = 0; i < g->s.mid; i++)
        if (i == 0 || compare_slices(g, g->order[i - 1], g->order[i]) != 0)
            g->first[n++] = g->order[i];
    if (!is_sorted)
        qsort(g->first, (size_t)n, sizeof(*g->first), by_number);
    return n;
}

static void find_members(struct groups *g, int64_t n, bool is_sorted) {
    int64_t of = -1;

    for (int64_t i = 0; i < g->s.mid; i++) {
        if (i == 0 || compare_slices(g, g->order[i - 1], g->order[i]) != 0) {
            int64_t *found =
                is_sorted ? NULL : bsearch(&g->order[i], g->first, (size_t)n, sizeof(*g->first), by_number);

            of = found ? found - g->first : of + 1;
        }
        g->group[g->order[i]] = of;
    }
}

static size_t unique_scratch(const struct node *n, const struct tensor *const *in, const struct tensor *out) {
    (void)n;
    (void)out;
    return 3 * (size_t)op_count(in[0]) * sizeof(int64_t);
}

static int64_t *list_of(const struct node *n, struct tensor *out, int i, int64_t count) {
    if (i >= n->n_out)
        return NULL;
    out[i].shape = (struct shape){.rank = 1, .dim = {count}};
    return out[i].data;
}

static void unique_forward(
    const struct node *n, const struct tensor *const *in, struct tensor *out, void *scratch) {
    struct groups g = {.x = in[0]};
    bool is_sorted = node_attr_int(n, "sorted", 1) != 0;
    int64_t found, *indices, *inverse, *counts;

    if (read_slices(n, in[0], &g.s, NULL) < 0)
        return; /* shape() read it before */
    g.order = scratch;
    g.first = g.order + g.s.mid;
    g.group = g.first + g.s.mid;
    found = find_groups(&g, is_sorted);
    find_members(&g, found, is_sorted);
    out[0].shape = shape_of(&g.s, &in[0]->shape, found);
    indices = list_of(n, out, 1, found);
    inverse = list_of(n, out, 2, g.s.mid);
    counts = list_of(n, out, 3, found);
    for (int64_t i = 0; i < found; i++) {
        copy_slice(&g.s, &out[0], found, i, in[0], g.first[i]);
        if (indices)
            indices[i] = g.first[i];
        if (counts)
            counts[i] = 0;
    }
    for (int64_t i = 0; i < g.s.mid; i++) {
        if (inverse)
            inverse[i] = g.group[i];
        if (counts)
            counts[g.group[i]]++;
    }
}

const struct op op_unique = {
    .name = "Unique",
    .domain = "",
    .since = 11,
    .until = OPSET_LAST,
    .min_in = 1,
    .max_in = 1,
    .min_out = 1,
    .max_out = 4,
    .shape = unique_shape,
    .scratch = unique_scratch,
    .forward = unique_forward,
    .cost = op_cost_elementwise,
    .couple = OP_COUPLE_NONE,
    .quant = OP_QUANT_FLOAT,
    .is_counted = true,
};
