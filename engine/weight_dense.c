/* Structure `dense`: every element is stored, in the order of the shape. */
#include <string.h>

#include "engine/weight_rows.h"

/* Whatever the codes are is dense: the last row that is tried. */
static int dense_match(struct graph *g, int v, struct weight *w, int *ret_stored) {
    (void)g;
    w->shape.rank = -1; /* the codes' */
    *ret_stored = v;
    return 1;
}

static int dense_emit(struct weight_writer *to, const struct weight *w, int stored) {
    (void)to;
    (void)w;
    return stored;
}

static bool dense_shape(const struct weight *w, struct shape *ret) {
    *ret = w->shape;
    return true;
}

static void dense_expand(const struct weight *w, const void *stored, size_t size, void *ret) {
    memcpy(ret, stored, (size_t)weight_count_stored(w) * size);
}

static size_t dense_bytes(const struct weight *w) {
    (void)w;
    return 0;
}

static int dense_check(const struct weight *w, struct error *err) {
    (void)w;
    (void)err;
    return 0;
}

const struct weight_structure weight_structure_dense = {
    .name = "dense",
    .match = dense_match,
    .emit = dense_emit,
    .stored_shape = dense_shape,
    .expand = dense_expand,
    .bytes = dense_bytes,
    .check = dense_check,
};
