/* y[r][n] = sum over k of a[r][k] b[k][n] for a few rows: sums in registers, b in panels of F32_PANEL columns
 * that lie together ([k][column]), one element of a broadcast a row and step. After f32_vector.h. */
#ifndef ENGINE_KERNEL_GEMM_F32_TILE_H
#define ENGINE_KERNEL_GEMM_F32_TILE_H

#include "engine/kernel/f32_rows.h"

struct f32_tile {
    const float *a, *b;
    const float *next; /* of what will be wanted soon: brought closer, a line a step */
    float *y;
    int64_t lda, ldy; /* elements from a row to the next */
    int64_t k;
};

/* `rows` and `cols` (vectors) are constants where it is called. */
F32_INLINE void f32_tile(int rows, int cols, const struct f32_tile *t) {
    const float *p = t->a, *q = t->a + 7 * t->lda, *b = t->b, *next = t->next;
    int64_t s = t->lda * (int64_t)sizeof(float), s3 = 3 * s, s5 = 5 * s;
    f32v sum[F32_ROWS][2];

    /* what the broadcasts read was written before; s3 and s5 are not to be worked out again */
    __asm__ volatile("" : "+r"(s3), "+r"(s5) : : "memory");
#pragma GCC unroll 14
    for (int r = 0; r < rows; r++) {
        sum[r][0] = f32_set(0);
        sum[r][1] = f32_set(0);
    }
    for (int64_t k = 0; k < t->k; k++) {
        f32v b0 = f32_load(b), b1 = cols > 1 ? f32_load(b + F32_LANES) : b0;

#pragma GCC unroll 14
        for (int r = 0; r < rows; r++) {
            f32v a = r < 7 ? f32_row(r, p, s, s3, s5) : f32_row(r - 7, q, s, s3, s5);

            sum[r][0] = f32_fma(a, b0, sum[r][0]);
            if (cols > 1)
                sum[r][1] = f32_fma(a, b1, sum[r][1]);
        }
        __builtin_prefetch(next, 0, 2);
        next += 16;
        p++;
        q++;
        b += cols * F32_LANES;
    }
#pragma GCC unroll 14
    for (int r = 0; r < rows; r++) {
        f32_store(t->y + r * t->ldy, sum[r][0]);
        if (cols > 1)
            f32_store(t->y + r * t->ldy + F32_LANES, sum[r][1]);
    }
}

#define F32_TILE_FUNCTION(rows, cols)                                                                        \
    F32_TARGET static void f32_tile_##rows##x##cols(const struct f32_tile *t) {                              \
        f32_tile(rows, cols, t);                                                                             \
    }
#define F32_TILE_FUNCTIONS(rows) F32_TILE_FUNCTION(rows, 1) F32_TILE_FUNCTION(rows, 2)

F32_TILE_FUNCTIONS(1)
F32_TILE_FUNCTIONS(2)
F32_TILE_FUNCTIONS(3)
F32_TILE_FUNCTIONS(4)
F32_TILE_FUNCTIONS(5)
F32_TILE_FUNCTIONS(6)
#if F32_LANES == 16
F32_TILE_FUNCTIONS(7)
F32_TILE_FUNCTIONS(8)
F32_TILE_FUNCTIONS(9)
F32_TILE_FUNCTIONS(10)
F32_TILE_FUNCTIONS(11)
F32_TILE_FUNCTIONS(12)
F32_TILE_FUNCTIONS(13)
F32_TILE_FUNCTIONS(14)
#endif

#define F32_TILE_ROW(rows)                                                                                   \
    { f32_tile_##rows##x1, f32_tile_##rows##x2 }

static void (*const f32_tiles[F32_ROWS][2])(const struct f32_tile *t) = {
    F32_TILE_ROW(1),
    F32_TILE_ROW(2),
    F32_TILE_ROW(3),
    F32_TILE_ROW(4),
    F32_TILE_ROW(5),
    F32_TILE_ROW(6),
#if F32_LANES == 16
    F32_TILE_ROW(7),
    F32_TILE_ROW(8),
    F32_TILE_ROW(9),
    F32_TILE_ROW(10),
    F32_TILE_ROW(11),
    F32_TILE_ROW(12),
    F32_TILE_ROW(13),
    F32_TILE_ROW(14),
#endif
};

/* y[m][n] for all m rows and n columns (a multiple of F32_LANES); b is [panel][k][columns of the panel], the
 * last panel perhaps of one vector. Rows are shared out evenly, so that none is left alone. */
F32_TARGET static inline void f32_gemm(
    const float *a, int64_t lda, const float *b, float *y, int64_t ldy, int64_t m, int64_t n, int64_t k) {
    int64_t n_chunks = (m + F32_ROWS - 1) / F32_ROWS;

    for (int64_t col = 0; col < n; col += F32_PANEL) {
        int cols = n - col > F32_LANES ? 2 : 1;

        for (int64_t i = 0; i < n_chunks; i++) {
            int64_t first = m * i / n_chunks, last = m * (i + 1) / n_chunks;
            struct f32_tile t = {.a = a + first * lda,
                .b = b,
                .next = b + cols * F32_LANES * k + i * k * 16,
                .y = y + first * ldy + col,
                .lda = lda,
                .ldy = ldy,
                .k = k};

            f32_tiles[last - first - 1][cols - 1](&t);
        }
        b += cols * F32_LANES * k;
    }
}

#endif
