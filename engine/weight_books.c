/* Codes that are looked up in more than one book: in a book of their channel,
 *
 *     codes[channels][n] ── Cast ── GatherElements(books[channels][words], axis 1) ── Reshape
 *     codes[n][channels] ── Cast ── GatherElements(books[words][channels], axis 0) ── Reshape
 *
 * and in several books whose words add up (residual quantisation), in integers wide enough:
 *
 *     stage ── Cast(int32) ┐
 *     stage ── Cast(int32) ┴ Add ── … ── Cast(int8)          a stage: what weight_lut.c looks up, int8 */
#include <errno.h>

#include "engine/weight_rows.h"

static bool are_books(const struct tensor *book, const struct tensor *index, int64_t axis) {
    return book && index && book->shape.rank == 2 && index->shape.rank == 2 &&
           (book->dtype == DT_S8 || book->dtype == DT_F32) && weight_is_index_type(index->dtype) &&
           (axis == 0 || axis == 1) && book->shape.dim[!axis] == index->shape.dim[!axis] &&
           book->shape.dim[axis] > 0 && index->shape.dim[axis] > 0 && index->shape.dim[!axis] > 0;
}

static int books_match(struct graph *g, int v, struct weight *w, struct shape *ret_shape, int *ret_codes) {
    struct shape shape;
    int from = weight_match_reshape(g, v, &shape), codes;
    const struct node *n = weight_producer(g, from >= 0 ? from : v, "GatherElements");
    int64_t axis = n ? node_attr_int(n, "axis", 0) : 0, count;
    const struct tensor *book, *index;
    enum dtype to;

    if (!n)
        return 0;
    axis = axis < 0 ? axis + 2 : axis;
    book = weight_input(g, n, 0);
    codes = weight_match_cast(g, n->in[1], &to);
    index = codes < 0 ? NULL : g->values[codes].init;
    if (!are_books(book, index, axis) || !shape_count(&index->shape, &count) ||
        (from >= 0 && !weight_resolve(&shape, count)))
        return 0;
    *ret_shape = from >= 0 ? shape : index->shape;
    *ret_codes = codes;
    w->code = &weight_code_books;
    w->books = axis == 1 ? WEIGHT_BOOKS_FIRST : WEIGHT_BOOKS_LAST;
    w->book = book;
    w->codes = index;
    return 1;
}

static int books_emit(struct weight_writer *to, const struct weight *w, const struct shape *stored) {
    int in[2], v, r;

    in[1] = weight_write_init(to, "codes", w->codes);
    in[0] = weight_write_init(to, "books", w->book);
    in[1] = weight_write_cast(to, "index", in[1], DT_S32, &w->codes->shape);
    v = weight_write_node(to, "GatherElements", "looked_up", in, 2, w->book->dtype, &w->codes->shape);
    r = v < 0 ? v : weight_write_attr(to, "axis", w->books == WEIGHT_BOOKS_FIRST);
    if (r < 0 || shape_equal(&w->codes->shape, stored))
        return r < 0 ? r : v;
    return weight_write_reshape(to, "shaped", v, w->book->dtype, stored);
}

const struct weight_code weight_code_books = {.name = "books",
    .dtype = DT_S8,
    .bits = 8,
    .is_looked_up = true,
    .match = books_match,
    .emit = books_emit};

/* ---- sums ---- */

/* The input of a Cast of `from` to the type `to`; -1: there is none. */
static int cast_input(const struct graph *g, int v, enum dtype to) {
    const struct node *n = weight_producer(g, v, "Cast");

    return n && node_attr_int(n, "to", 0) == (int64_t)to ? n->in[0] : -1;
}

/* Value v, of int32, as one stage. */
static int match_stage(struct graph *g, int v, struct weight *ret, struct shape *ret_shape, int *ret_codes) {
    int from = cast_input(g, v, DT_S32), r;

    *ret = (struct weight){.structure = &weight_structure_dense, .scales = &weight_scales_layer};
    if (from < 0)
        return 0;
    r = weight_code_lut1.match(g, from, ret, ret_shape, ret_codes);
    if (r <= 0)
        return r;
    ret->shape = *ret_shape;
    return ret->book && ret->book->dtype == DT_S8 && weight_set_rows(ret, 0) == 0;
}

/* The stages from the last to the first: Add(Add(first, second), third). */
static int match_stages(
    struct graph *g, int v, struct weight *stage, struct shape *ret_shape, int *ret_codes) {
    struct shape shape;
    int n = 0, codes, r;

    for (;;) {
        const struct node *add = weight_producer(g, v, "Add");

        if (n == WEIGHT_MAX_STAGES)
            return 0;
        r = match_stage(g, add ? add->in[1] : v, &stage[n], n ? &shape : ret_shape, &codes);
        if (r <= 0 || (n && !shape_equal(&shape, ret_shape)))
            return r < 0 ? r : 0;
        n++;
        if (!add)
            break;
        v = add->in[0];
    }
    *ret_codes = codes;
    return n;
}

static int residual_match(struct graph *g, int v, struct weight *w, struct shape *ret_shape, int *ret_codes) {
    struct weight stage[WEIGHT_MAX_STAGES];
    int sum = cast_input(g, v, DT_S8), n = sum < 0 ? 0 : match_stages(g, sum, stage, ret_shape, ret_codes);
    struct weight *kept;

    if (n < 2)
        return n < 0 ? n : 0;
    kept = graph_alloc(g, (size_t)(n - 1) * sizeof(*kept));
    if (!kept)
        return -ENOMEM;
    for (int i = 0; i < n - 1; i++) {
        kept[i] = stage[i];
        kept[i].more = i ? &kept[i - 1] : NULL;
    }
    w->code = &weight_code_residual;
    w->codes = stage[n - 1].codes;
    w->book = stage[n - 1].book;
    w->stored_bits = stage[n - 1].stored_bits;
    w->more = &kept[n - 2];
    return 1;
}

static int residual_emit(struct weight_writer *to, const struct weight *w, const struct shape *stored) {
    int sum = -1;

    for (const struct weight *stage = w; stage; stage = stage->more) {
        int in[2] = {sum, weight_code_lut1.emit(to, stage, stored)};

        in[1] = weight_write_cast(to, "wide", in[1], DT_S32, stored);
        sum = stage == w ? in[1] : weight_write_node(to, "Add", "sum", in, 2, DT_S32, stored);
        if (sum < 0)
            return sum;
    }
    return weight_write_cast(to, "narrow", sum, DT_S8, stored);
}

const struct weight_code weight_code_residual = {.name = "residual",
    .dtype = DT_S8,
    .bits = 8,
    .is_looked_up = true,
    .match = residual_match,
    .emit = residual_emit};
