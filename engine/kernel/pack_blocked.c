#include "engine/kernel/pack_blocked.h"

#include <immintrin.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"

#define PIECE ((int64_t)4 << 20) /* elements between two calls of `between` */
#define LINE  16                 /* floats of a cache line */

/* A tensor as rows (the dimension whose block is the fastest in the target) of all other elements. */
struct rows {
    int dim;               /* which one it is */
    int64_t n, lanes;      /* rows, and how many of them a block holds */
    int64_t from_stride;   /* of a row */
    int64_t to_stride;     /* of a block of rows */
    int64_t n_cols;        /* the other elements, in the order of the source's dimensions */
    int64_t *from_at, *to; /* of each: place in its row, place of its lanes in the block of rows */
};

static void rows_done(struct rows *r) {
    free(r->from_at);
}

static bool is_f32_blocked(const dnnl_memory_desc_t *d) {
    return d->format_kind == dnnl_blocked && d->data_type == dnnl_f32 && d->offset0 == 0 &&
           d->extra.flags == dnnl_memory_extra_flag_none;
}

/* Where element `place` of dimension `d` lies in the target, from the blocks within and the stride without.
 */
static int64_t target_of(const dnnl_blocking_desc_t *t, int d, int64_t place) {
    int64_t step = 1, sum = 0;

    for (int i = t->inner_nblks - 1; i >= 0; i--) { /* the last one is the fastest */
        if (t->inner_idxs[i] == d) {
            sum += place % t->inner_blks[i] * step;
            place /= t->inner_blks[i];
        }
        step *= t->inner_blks[i];
    }
    return sum + place * t->strides[d];
}

static void fill_columns(struct rows *r, const dnnl_memory_desc_t *from, const dnnl_memory_desc_t *to) {
    for (int64_t q = 0; q < r->n_cols; q++) {
        int64_t rest = q;

        r->from_at[q] = r->to[q] = 0;
        for (int d = to->ndims - 1; d >= 0; d--) {
            if (d == r->dim)
                continue;
            r->from_at[q] += rest % to->dims[d] * from->format_desc.blocking.strides[d];
            r->to[q] += target_of(&to->format_desc.blocking, d, rest % to->dims[d]);
            rest /= to->dims[d];
        }
    }
}

static bool describe(const dnnl_memory_desc_t *from, const dnnl_memory_desc_t *to, struct rows *r) {
    const dnnl_blocking_desc_t *t = &to->format_desc.blocking, *f = &from->format_desc.blocking;

    if (!is_f32_blocked(from) || !is_f32_blocked(to) || from->ndims != to->ndims || f->inner_nblks ||
        !t->inner_nblks)
        return false;
    r->dim = (int)t->inner_idxs[t->inner_nblks - 1];
    r->lanes = t->inner_blks[t->inner_nblks - 1];
    for (int i = 0; i < t->inner_nblks - 1; i++)
        if (t->inner_idxs[i] == r->dim)
            return false;
    r->n = to->dims[r->dim];
    r->from_stride = f->strides[r->dim];
    r->to_stride = t->strides[r->dim];
    r->n_cols = 1;
    for (int d = 0; d < to->ndims; d++)
        r->n_cols *= d == r->dim ? 1 : to->dims[d];
    r->from_at = calloc((size_t)r->n_cols * 2 + 1, sizeof(*r->from_at));
    if (!r->from_at)
        return false;
    r->to = r->from_at + r->n_cols;
    fill_columns(r, from, to);
    return true;
}

static const float *float_at(const char *from, int64_t at) {
    return (const float *)(const void *)(from + at * (int64_t)sizeof(float));
}

/* Four rows by the four columns from `q` on, which are neighbours in the source. */
static void transpose_4x4(const struct rows *r, const char *from, int64_t q, float *to) {
    __m128 x0 = _mm_loadu_ps(float_at(from, r->from_at[q]));
    __m128 x1 = _mm_loadu_ps(float_at(from, r->from_at[q] + r->from_stride));
    __m128 x2 = _mm_loadu_ps(float_at(from, r->from_at[q] + 2 * r->from_stride));
    __m128 x3 = _mm_loadu_ps(float_at(from, r->from_at[q] + 3 * r->from_stride));

    _MM_TRANSPOSE4_PS(x0, x1, x2, x3);
    _mm_storeu_ps(to + r->to[q], x0);
    _mm_storeu_ps(to + r->to[q + 1], x1);
    _mm_storeu_ps(to + r->to[q + 2], x2);
    _mm_storeu_ps(to + r->to[q + 3], x3);
}

/* Columns [q, end) of `lanes` rows. */
static void copy_columns(
    const struct rows *r, const char *from, int64_t lanes, int64_t q, int64_t end, float *to) {
    bool is_dense = end - q == LINE && r->from_at[end - 1] - r->from_at[q] == LINE - 1;
    int64_t l = 0;

    for (; is_dense && l + 4 <= lanes; l += 4)
        for (int64_t k = q; k < end; k += 4)
            transpose_4x4(r, (const char *)float_at(from, l * r->from_stride), k, to + l);
    for (; l < lanes; l++)
        for (int64_t k = q; k < end; k++)
            memcpy(to + r->to[k] + l, float_at(from, l * r->from_stride + r->from_at[k]), sizeof(float));
}

bool pack_blocked_f32(const dnnl_memory_desc_t *from_desc, const void *from,
    const dnnl_memory_desc_t *to_desc, float *ret, void (*between)(void *ctx), void *ctx) {
    _cleanup_(rows_done) struct rows r = {0};
    int64_t done = 0;

    if (!describe(from_desc, to_desc, &r))
        return false;
    for (int64_t first = 0; first < r.n; first += r.lanes) {
        int64_t lanes = r.n - first < r.lanes ? r.n - first : r.lanes;
        const char *rows = (const char *)float_at(from, first * r.from_stride);
        float *to = ret + first / r.lanes * r.to_stride;

        /* a line of each row at a time: the rows are too far apart to stay in the cache together */
        for (int64_t q = 0; q < r.n_cols; q += LINE)
            copy_columns(&r, rows, lanes, q, q + LINE < r.n_cols ? q + LINE : r.n_cols, to);
        done += lanes * r.n_cols;
        if (between && done >= PIECE &&
            r.from_stride >= r.n_cols) { /* else every row has a bit of all pages */
            between(ctx);
            done = 0;
        }
    }
    return true;
}
