/* norm_rows.h on vectors; after f32_vector.h. With NORM_BF16 the elements of rows are bfloat16.
 *
 * Rows are taken in blocks that stay in the first-level cache, and in a block tiles of channels: a tile is
 * nv vectors of channels wide (one line of memory each) and has nr rows' sums at once, so that four
 * independent sums hide the time an addition takes. */
#include <math.h>
#include <stddef.h>

#define NORM_BLOCK 64 /* rows summed in floats before they go into doubles */

F32_INLINE f32v norm_load(const float *p, int64_t n) {
    return n >= F32_LANES ? f32_load(p) : f32_load_some(p, n);
}

/* n elements of a row, the first of them number i of `base`. */
F32_INLINE f32v norm_get(const void *base, int64_t i, int64_t n) {
#ifdef NORM_BF16
    return f32_load_bf16((const uint16_t *)base + i, n);
#else
    return norm_load((const float *)base + i, n);
#endif
}

F32_INLINE void norm_put(void *base, int64_t i, f32v v, int64_t n) {
#ifdef NORM_BF16
    f32_store_bf16((uint16_t *)base + i, v, n);
#else
    if (n >= F32_LANES)
        f32_store((float *)base + i, v);
    else
        f32_store_some((float *)base + i, v, n);
#endif
}

F32_INLINE void norm_add_to(double *sum, f32v v, int64_t n) {
    float part[F32_LANES];

    if (n >= F32_LANES) {
        f32_add_to(sum, v);
        return;
    }
    f32_store(part, v);
    for (int64_t i = 0; i < n; i++)
        sum[i] += (double)part[i];
}

/* Rows first to last - 1, channels from c on. nv, nr and whether n is a whole vector are constants. */
struct norm_tile {
    int64_t first, last, c;
    int nv, nr;
    int64_t n; /* channels of the last vector */
};

/* ---- sums of x and x² ---- */

F32_INLINE void norm_sum_row(const void *x, int64_t at, int nv, int64_t n, f32v *a, f32v *b) {
#pragma GCC unroll 4
    for (int j = 0; j < nv; j++) {
        f32v v = norm_get(x, at + j * F32_LANES, n);

        a[j] = f32_add(a[j], v);
        b[j] = f32_fma(v, v, b[j]);
    }
}

F32_INLINE void norm_sum_tile(const struct norm_forward *f, struct norm_tile t, double *sum) {
    f32v a[4] = {f32_set(0), f32_set(0), f32_set(0), f32_set(0)};
    f32v b[4] = {f32_set(0), f32_set(0), f32_set(0), f32_set(0)};
    int64_t at = t.first * f->c + t.c, r = t.first;

    for (; r + t.nr <= t.last; r += t.nr, at += t.nr * f->c) {
#pragma GCC unroll 4
        for (int i = 0; i < t.nr; i++)
            norm_sum_row(f->x, at + i * f->c, t.nv, t.n, a + i * t.nv, b + i * t.nv);
    }
    for (; r < t.last; r++, at += f->c)
        norm_sum_row(f->x, at, t.nv, t.n, a, b);
#pragma GCC unroll 4
    for (int k = 0; k < 4; k++) {
        norm_add_to(sum + t.c + k % t.nv * F32_LANES, a[k], t.n);
        norm_add_to(sum + f->c + t.c + k % t.nv * F32_LANES, b[k], t.n);
    }
}

F32_TARGET static void norm_sum(const struct norm_forward *f, double *sum) {
    for (int64_t r = 0; r < f->rows; r += NORM_BLOCK) {
        int64_t end = r + NORM_BLOCK < f->rows ? r + NORM_BLOCK : f->rows, c = 0;

        for (; f->c - c >= 4 * F32_LANES; c += 4 * F32_LANES)
            norm_sum_tile(f, (struct norm_tile){r, end, c, 4, 1, F32_LANES}, sum);
        for (; f->c - c >= 2 * F32_LANES; c += 2 * F32_LANES)
            norm_sum_tile(f, (struct norm_tile){r, end, c, 2, 2, F32_LANES}, sum);
        for (; f->c - c >= F32_LANES; c += F32_LANES)
            norm_sum_tile(f, (struct norm_tile){r, end, c, 1, 4, F32_LANES}, sum);
        if (c < f->c)
            norm_sum_tile(f, (struct norm_tile){r, end, c, 1, 4, f->c - c}, sum);
    }
}

/* ---- y ---- */

F32_INLINE void norm_apply_tile(const struct norm_forward *f, struct norm_tile t, bool is_residual) {
    const f32v low = f32_set(f->low), high = f32_set(f->high);
    int64_t at = t.first * f->c + t.c;
    f32v scale[4], shift[4];

#pragma GCC unroll 4
    for (int j = 0; j < t.nv; j++) {
        scale[j] = norm_load(f->scale + t.c + j * F32_LANES, t.n);
        shift[j] = norm_load(f->shift + t.c + j * F32_LANES, t.n);
    }
    for (int64_t r = t.first; r < t.last; r++, at += f->c) {
#pragma GCC unroll 4
        for (int j = 0; j < t.nv; j++) {
            f32v v = f32_fma(norm_get(f->x, at + j * F32_LANES, t.n), scale[j], shift[j]);

            if (is_residual)
                v = f32_add(v, norm_get(f->residual, at + j * F32_LANES, t.n));
            norm_put(f->y, at + j * F32_LANES, f32_min(high, f32_max(low, v)), t.n);
        }
    }
}

F32_INLINE void norm_apply_rows(const struct norm_forward *f, bool is_residual) {
    for (int64_t r = 0; r < f->rows; r += NORM_BLOCK) {
        int64_t end = r + NORM_BLOCK < f->rows ? r + NORM_BLOCK : f->rows, c = 0;

        for (; f->c - c >= 4 * F32_LANES; c += 4 * F32_LANES)
            norm_apply_tile(f, (struct norm_tile){r, end, c, 4, 1, F32_LANES}, is_residual);
        for (; f->c - c >= F32_LANES; c += F32_LANES)
            norm_apply_tile(f, (struct norm_tile){r, end, c, 1, 1, F32_LANES}, is_residual);
        if (c < f->c)
            norm_apply_tile(f, (struct norm_tile){r, end, c, 1, 1, f->c - c}, is_residual);
    }
}

F32_TARGET static void norm_apply(const struct norm_forward *f) {
    if (f->residual)
        norm_apply_rows(f, true);
    else
        norm_apply_rows(f, false);
}

/* ---- backward ---- */

/* What tells where the clamp let through. */
enum norm_mask { NORM_MASK_NONE, NORM_MASK_X, NORM_MASK_Y };

/* What a tile's channels have in common. */
struct norm_lines {
    f32v low, high, scale[4], shift[4], mean[4], k[4], a[4], b[4];
};

F32_INLINE f32v norm_dz(const struct norm_backward *b, const struct norm_lines *l, enum norm_mask mask, int j,
    int64_t at, int64_t n, f32v x) {
    f32v dy = norm_get(b->dy, at, n);

    switch (mask) {
    case NORM_MASK_X: return f32_inside(dy, f32_fma(x, l->scale[j], l->shift[j]), l->low, l->high);
    case NORM_MASK_Y: return f32_inside(dy, norm_get(b->y, at, n), l->low, l->high);
    case NORM_MASK_NONE: break;
    }
    return dy;
}

F32_INLINE void norm_load_lines(
    const struct norm_backward *b, struct norm_tile t, enum norm_mask mask, struct norm_lines *ret) {
    ret->low = f32_set(b->low);
    ret->high = f32_set(b->high);
    if (mask != NORM_MASK_X)
        return;
#pragma GCC unroll 4
    for (int j = 0; j < t.nv; j++) {
        ret->scale[j] = norm_load(b->scale + t.c + j * F32_LANES, t.n);
        ret->shift[j] = norm_load(b->shift + t.c + j * F32_LANES, t.n);
    }
}

F32_INLINE void norm_sum_back_row(const struct norm_backward *b, const struct norm_lines *l,
    enum norm_mask mask, bool stores, struct norm_tile t, int64_t at, f32v *sum, f32v *product) {
#pragma GCC unroll 4
    for (int j = 0; j < t.nv; j++, at += F32_LANES) {
        f32v x = norm_get(b->x, at, t.n), dz = norm_dz(b, l, mask, j, at, t.n, x);

        if (stores)
            norm_put(b->dz, at, dz, t.n);
        sum[j] = f32_add(sum[j], dz);
        product[j] = f32_fma(dz, f32_sub(x, l->mean[j]), product[j]);
    }
}

F32_INLINE void norm_sum_back_tile(
    const struct norm_backward *b, enum norm_mask mask, bool stores, struct norm_tile t, double *sum) {
    f32v s[4] = {f32_set(0), f32_set(0), f32_set(0), f32_set(0)};
    f32v p[4] = {f32_set(0), f32_set(0), f32_set(0), f32_set(0)};
    int64_t at = t.first * b->c + t.c, r = t.first;
    struct norm_lines l;

    norm_load_lines(b, t, mask, &l);
#pragma GCC unroll 4
    for (int j = 0; j < t.nv; j++)
        l.mean[j] = norm_load(b->mean + t.c + j * F32_LANES, t.n);
    for (; r + t.nr <= t.last; r += t.nr, at += t.nr * b->c) {
#pragma GCC unroll 4
        for (int i = 0; i < t.nr; i++)
            norm_sum_back_row(b, &l, mask, stores, t, at + i * b->c, s + i * t.nv, p + i * t.nv);
    }
    for (; r < t.last; r++, at += b->c)
        norm_sum_back_row(b, &l, mask, stores, t, at, s, p);
#pragma GCC unroll 4
    for (int k = 0; k < 4; k++) {
        norm_add_to(sum + t.c + k % t.nv * F32_LANES, s[k], t.n);
        norm_add_to(sum + b->c + t.c + k % t.nv * F32_LANES, p[k], t.n);
    }
}

F32_INLINE void norm_sum_back_rows(
    const struct norm_backward *b, enum norm_mask mask, bool stores, double *sum) {
    for (int64_t r = 0; r < b->rows; r += NORM_BLOCK) {
        int64_t end = r + NORM_BLOCK < b->rows ? r + NORM_BLOCK : b->rows, c = 0;

        for (; b->c - c >= 2 * F32_LANES; c += 2 * F32_LANES)
            norm_sum_back_tile(b, mask, stores, (struct norm_tile){r, end, c, 2, 2, F32_LANES}, sum);
        for (; b->c - c >= F32_LANES; c += F32_LANES)
            norm_sum_back_tile(b, mask, stores, (struct norm_tile){r, end, c, 1, 4, F32_LANES}, sum);
        if (c < b->c)
            norm_sum_back_tile(b, mask, stores, (struct norm_tile){r, end, c, 1, 4, b->c - c}, sum);
    }
}

static enum norm_mask norm_mask_of(const struct norm_backward *b) {
    if (isinf(b->low) && isinf(b->high))
        return NORM_MASK_NONE;
    return b->y ? NORM_MASK_Y : NORM_MASK_X;
}

F32_TARGET static void norm_sum_back(const struct norm_backward *b, double *sum) {
    switch (norm_mask_of(b)) {
    case NORM_MASK_X:
        if (b->dz)
            norm_sum_back_rows(b, NORM_MASK_X, true, sum);
        else
            norm_sum_back_rows(b, NORM_MASK_X, false, sum);
        break;
    case NORM_MASK_Y:
        if (b->dz)
            norm_sum_back_rows(b, NORM_MASK_Y, true, sum);
        else
            norm_sum_back_rows(b, NORM_MASK_Y, false, sum);
        break;
    case NORM_MASK_NONE:
        if (b->dz && b->dz != b->dy)
            norm_sum_back_rows(b, NORM_MASK_NONE, true, sum);
        else
            norm_sum_back_rows(b, NORM_MASK_NONE, false, sum);
    }
}

F32_INLINE void norm_spread_tile(
    const struct norm_backward *b, enum norm_mask mask, bool is_plain, struct norm_tile t) {
    int64_t at = t.first * b->c + t.c;
    struct norm_lines l;

    norm_load_lines(b, t, mask, &l);
#pragma GCC unroll 4
    for (int j = 0; j < t.nv; j++) {
        l.k[j] = norm_load(b->k + t.c + j * F32_LANES, t.n);
        l.a[j] = norm_load(b->a + t.c + j * F32_LANES, t.n);
        l.b[j] = norm_load(b->b + t.c + j * F32_LANES, t.n);
    }
    for (int64_t r = t.first; r < t.last; r++, at += b->c) {
#pragma GCC unroll 4
        for (int j = 0; j < t.nv; j++) {
            int64_t i = at + j * F32_LANES;
            f32v x = norm_get(b->x, i, t.n), dz = norm_dz(b, &l, mask, j, i, t.n, x);
            f32v dx = f32_fma(l.k[j], dz, f32_fma(l.a[j], x, l.b[j]));

            if (!is_plain && b->residual)
                norm_put(b->residual, i, f32_add(norm_get(b->residual, i, t.n), dz), t.n);
            if (!is_plain && b->adds)
                dx = f32_add(dx, norm_get(b->dx, i, t.n));
            if (is_plain || b->dx)
                norm_put(b->dx, i, dx, t.n);
        }
    }
}

F32_INLINE void norm_spread_rows(const struct norm_backward *b, enum norm_mask mask, bool is_plain) {
    for (int64_t r = 0; r < b->rows; r += NORM_BLOCK) {
        int64_t end = r + NORM_BLOCK < b->rows ? r + NORM_BLOCK : b->rows, c = 0;

        for (; b->c - c >= 2 * F32_LANES; c += 2 * F32_LANES)
            norm_spread_tile(b, mask, is_plain, (struct norm_tile){r, end, c, 2, 1, F32_LANES});
        for (; b->c - c >= F32_LANES; c += F32_LANES)
            norm_spread_tile(b, mask, is_plain, (struct norm_tile){r, end, c, 1, 1, F32_LANES});
        if (c < b->c)
            norm_spread_tile(b, mask, is_plain, (struct norm_tile){r, end, c, 1, 1, b->c - c});
    }
}

F32_INLINE void norm_spread_masked(const struct norm_backward *b, enum norm_mask mask) {
    if (b->dx && !b->adds && !b->residual)
        norm_spread_rows(b, mask, true);
    else
        norm_spread_rows(b, mask, false);
}

F32_TARGET static void norm_spread(const struct norm_backward *b) {
    switch (norm_mask_of(b)) {
    case NORM_MASK_X: norm_spread_masked(b, NORM_MASK_X); break;
    case NORM_MASK_Y: norm_spread_masked(b, NORM_MASK_Y); break;
    case NORM_MASK_NONE: norm_spread_masked(b, NORM_MASK_NONE);
    }
}
