#include "engine/kernel/pack_blocked.h"

#include <immintrin.h>
#include <stdint.h>
#include <string.h>

#define MAX_INNER 1024
#define PIECE     ((int64_t)4 << 20) /* elements between two calls of `between` */

/* Where the elements of one block come from. */
struct block {
    int n_dims;
    int64_t side[DNNL_MAX_NDIMS]; /* of a block */
    int64_t n;                    /* elements, in the order they have in it */
    int64_t rows, row_stride;     /* rows of the source that become the fastest columns; 0: another pattern */
    int64_t offset[MAX_INNER];    /* in the source, from the block's first */
    int32_t at[MAX_INNER][4];     /* place in the block, of the first four dimensions */
};

static bool is_f32_blocked(const dnnl_memory_desc_t *d) {
    return d->format_kind == dnnl_blocked && d->data_type == dnnl_f32 && d->offset0 == 0 &&
           d->extra.flags == dnnl_memory_extra_flag_none && d->ndims <= 4;
}

/* Two dimensions in the block, along the slower one the source is dense: a transposition. */
static void find_rows(const dnnl_blocking_desc_t *from, const dnnl_blocking_desc_t *to, struct block *b) {
    if (to->inner_nblks != 2 || to->inner_idxs[0] == to->inner_idxs[1] ||
        from->strides[to->inner_idxs[0]] != 1 || to->inner_blks[0] % 4 || to->inner_blks[1] % 4)
        return;
    b->rows = to->inner_blks[1];
    b->row_stride = from->strides[to->inner_idxs[1]];
}

static bool describe(const dnnl_memory_desc_t *from, const dnnl_memory_desc_t *to, struct block *b) {
    const dnnl_blocking_desc_t *t = &to->format_desc.blocking, *f = &from->format_desc.blocking;

    if (!is_f32_blocked(from) || !is_f32_blocked(to) || from->ndims != to->ndims || f->inner_nblks ||
        !t->inner_nblks)
        return false;
    b->n_dims = to->ndims;
    b->rows = 0;
    b->n = 1;
    for (int d = 0; d < b->n_dims; d++)
        b->side[d] = 1;
    for (int i = 0; i < t->inner_nblks; i++) {
        b->side[t->inner_idxs[i]] *= t->inner_blks[i];
        b->n *= t->inner_blks[i];
        if (b->n > MAX_INNER)
            return false;
    }
    find_rows(f, t, b);
    for (int64_t k = 0; k < b->n; k++) {
        int64_t rest = k, weight[DNNL_MAX_NDIMS];

        memset(b->at[k], 0, sizeof(b->at[k]));
        b->offset[k] = 0;
        for (int d = 0; d < b->n_dims; d++)
            weight[d] = 1;
        for (int i = t->inner_nblks - 1; i >= 0; i--) { /* the last one is the fastest */
            int64_t d = t->inner_idxs[i], place = rest % t->inner_blks[i] * weight[d];

            b->at[k][d] += (int32_t)place;
            b->offset[k] += place * f->strides[d];
            weight[d] *= t->inner_blks[i];
            rest /= t->inner_blks[i];
        }
    }
    return true;
}

static void transpose_block(const struct block *b, const char *from, float *to) {
    const int64_t step = b->row_stride * (int64_t)sizeof(float);

    for (int64_t r = 0; r < b->rows; r += 4)
        for (int64_t c = 0; c < b->n / b->rows; c += 4) {
            const char *at = from + r * step + c * (int64_t)sizeof(float);
            float *y = to + c * b->rows + r;
            __m128 x0 = _mm_loadu_ps((const float *)(const void *)at);
            __m128 x1 = _mm_loadu_ps((const float *)(const void *)(at + step));
            __m128 x2 = _mm_loadu_ps((const float *)(const void *)(at + 2 * step));
            __m128 x3 = _mm_loadu_ps((const float *)(const void *)(at + 3 * step));

            _MM_TRANSPOSE4_PS(x0, x1, x2, x3);
            _mm_storeu_ps(y, x0);
            _mm_storeu_ps(y + b->rows, x1);
            _mm_storeu_ps(y + 2 * b->rows, x2);
            _mm_storeu_ps(y + 3 * b->rows, x3);
        }
}

/* One whole block. The source may be unaligned: bytes. */
static void copy_block(const struct block *b, const char *from, float *to) {
    for (int64_t k = 0; k < b->n; k++)
        memcpy(&to[k], from + b->offset[k] * (int64_t)sizeof(float), sizeof(float));
}

/* One that reaches over the tensor's end: what is beyond stays zero. */
static void copy_rest(const struct block *b, const int64_t *left, const char *from, float *to) {
    for (int64_t k = 0; k < b->n; k++) {
        bool is_in = true;

        for (int d = 0; d < b->n_dims; d++)
            is_in = is_in && b->at[k][d] < left[d];
        if (is_in)
            memcpy(&to[k], from + b->offset[k] * (int64_t)sizeof(float), sizeof(float));
    }
}

/* The next block, the last dimension first: the lines of the source that taps of a filter share are still
 * near. False: that was the last one. */
static bool advance(const dnnl_memory_desc_t *to, const struct block *b, int64_t *at) {
    for (int d = b->n_dims - 1; d >= 0; d--) {
        if (++at[d] * b->side[d] < to->dims[d])
            return true;
        at[d] = 0;
    }
    return false;
}

bool pack_blocked_f32(const dnnl_memory_desc_t *from_desc, const void *from,
    const dnnl_memory_desc_t *to_desc, float *ret, void (*between)(void *ctx), void *ctx) {
    const int64_t *from_stride = from_desc->format_desc.blocking.strides;
    const int64_t *to_stride = to_desc->format_desc.blocking.strides;
    int64_t at[DNNL_MAX_NDIMS] = {0}, row = 0, done = 0;
    struct block b;

    if (!describe(from_desc, to_desc, &b))
        return false;
    for (int d = 0; d < b.n_dims; d++)
        if (to_desc->dims[d] == 0)
            return true;
    do {
        int64_t source = 0, target = 0, left[DNNL_MAX_NDIMS];
        bool is_whole = true;

        for (int d = 0; d < b.n_dims; d++) {
            source += at[d] * b.side[d] * from_stride[d];
            target += at[d] * to_stride[d];
            left[d] = to_desc->dims[d] - at[d] * b.side[d];
            is_whole = is_whole && left[d] >= b.side[d];
        }
        if (is_whole && b.rows)
            transpose_block(&b, (const char *)from + source * (int64_t)sizeof(float), ret + target);
        else if (is_whole)
            copy_block(&b, (const char *)from + source * (int64_t)sizeof(float), ret + target);
        else
            copy_rest(&b, left, (const char *)from + source * (int64_t)sizeof(float), ret + target);
        done += b.n;
        if (between && done >= PIECE && at[0] != row) {
            between(ctx);
            row = at[0];
            done = 0;
        }
    } while (advance(to_desc, &b, at));
    return true;
}
