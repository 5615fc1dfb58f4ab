/* What the operator families share: checks and shapes that many rows need. */
#ifndef ENGINE_OPS_COMMON_H
#define ENGINE_OPS_COMMON_H

#include <errno.h>
#include <math.h>
#include <string.h>

#include "engine/ops.h"

#define OPSET_FIRST 1
#define OPSET_LAST  26

/* out[0] is like in[0]. */
int op_shape_same(
    const struct node *n, const struct tensor *const *in, struct tensor *out, struct error *err);

/* One pass over the elements: macs = elements of out[0], bytes of inputs and output. */
void op_cost_elementwise(
    const struct node *n, const struct tensor *const *in, const struct tensor *out, struct op_cost *ret);

/* Only bytes move. */
void op_cost_move(
    const struct node *n, const struct tensor *const *in, const struct tensor *out, struct op_cost *ret);

int op_check_float(const struct tensor *t, struct error *err);

/* NumPy broadcasting of two shapes. */
int op_broadcast(const struct shape *a, const struct shape *b, struct shape *ret, struct error *err);

/* Element of `t`, broadcast to `s`, that stands at the element `i` of `s`. */
int64_t op_broadcast_index(const struct shape *t, const struct shape *s, int64_t i);

/* axis of a tensor of `rank`, negative ones counted from the end: [0, rank), or with `is_position` [0, rank].
 */
int op_axis(int64_t axis, int rank, bool is_position, int *ret, struct error *err);

/* Reads a constant int64 (or int32) vector input. -EAGAIN: its value is not known. At most `max` entries. */
int op_read_ints(const struct tensor *t, int64_t *ret, int max, int *ret_n, struct error *err);

/* Elements before, at and after an axis. */
void op_split_shape(const struct shape *s, int axis, int64_t *outer, int64_t *mid, int64_t *inner);

static inline int64_t op_count(const struct tensor *t) {
    int64_t n = 0;

    (void)shape_count(&t->shape, &n);
    return n;
}

static inline size_t op_bytes(const struct tensor *t) {
    size_t n = 0;

    (void)shape_bytes(&t->shape, t->dtype, &n);
    return n;
}

#endif
