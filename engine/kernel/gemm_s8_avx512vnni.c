/* u8 x s8 products by vpdpbusd: tiles of M pixels x 16 N channels in registers, K innermost. A step loads N
 * weight vectors, broadcasts four bytes of each pixel, and multiplies: M N instructions. 14 x 2, 16 x 1 and
 * 6 x 4 tiles fill the 32 registers. */
#include "engine/kernel/tile_s8_avx512vnni.h"

/* m, n are constants after inlining. With n of 4, weights come from two blocks. */
INLINE void tile_run(const struct s8_job *j, const struct tile *t, const int m, const int n) {
    const ptrdiff_t step = j->a_pixel;
    const uint8_t *w = t->w, *w2 = t->w + t->w_next, *ahead = t->ahead;
    __m512i sum[16][4];

#pragma GCC unroll 4
    for (int c = 0; c < n; c++) {
        const __m512i bias = _mm512_loadu_si512(j->bias + t->oc + 16 * c);
#pragma GCC unroll 16
        for (int p = 0; p < m; p++)
            sum[p][c] = bias;
    }
    for (int s = 0; s < j->n_seg; s++) {
        const uint8_t *a = t->a + j->seg[s], *a4 = a + 4 * step, *a8 = a4 + 4 * step, *a12 = a8 + 4 * step;

        for (int k = 0; k < j->seg_len; k += 4) {
            __m512i wv[4];
#pragma GCC unroll 4
            for (int c = 0; c < n; c++)
                wv[c] = _mm512_loadu_si512((c < 2 ? w : w2) + 64 * (c % 2));
            _mm_prefetch((const char *)ahead, _MM_HINT_T1);
            ahead += 64;
            w += 64 * (n < 2 ? n : 2);
            w2 += 128;
#pragma GCC unroll 16
            for (int p = 0; p < m; p++) {
                const uint8_t *base = p < 4 ? a : p < 8 ? a4 : p < 12 ? a8 : a12;
                const __m512i x = broadcast4(base + (p % 4) * step + k);
#pragma GCC unroll 4
                for (int c = 0; c < n; c++)
                    sum[p][c] = dot(sum[p][c], x, wv[c]);
            }
        }
    }
    store_tile(j, t, sum, m, n);
}

#define TILE(m, n)                                                                                           \
    TARGET static void tile_##m##x##n(const struct s8_job *j, const struct tile *t) {                        \
        tile_run(j, t, m, n);                                                                                \
    }

/* clang-format off */
TILE(1, 1) TILE(2, 1) TILE(3, 1) TILE(4, 1) TILE(5, 1) TILE(6, 1) TILE(7, 1) TILE(8, 1)
TILE(9, 1) TILE(10, 1) TILE(11, 1) TILE(12, 1) TILE(13, 1) TILE(14, 1) TILE(15, 1) TILE(16, 1)
TILE(1, 2) TILE(2, 2) TILE(3, 2) TILE(4, 2) TILE(5, 2) TILE(6, 2) TILE(7, 2) TILE(8, 2)
TILE(9, 2) TILE(10, 2) TILE(11, 2) TILE(12, 2) TILE(13, 2) TILE(14, 2)
TILE(1, 4) TILE(2, 4) TILE(3, 4) TILE(4, 4) TILE(5, 4) TILE(6, 4)

static void (*const tiles1[])(const struct s8_job *, const struct tile *) = {
    tile_1x1, tile_2x1, tile_3x1, tile_4x1, tile_5x1, tile_6x1, tile_7x1, tile_8x1,
    tile_9x1, tile_10x1, tile_11x1, tile_12x1, tile_13x1, tile_14x1, tile_15x1, tile_16x1,
};
static void (*const tiles2[])(const struct s8_job *, const struct tile *) = {
    tile_1x2, tile_2x2, tile_3x2, tile_4x2, tile_5x2, tile_6x2, tile_7x2, tile_8x2,
    tile_9x2, tile_10x2, tile_11x2, tile_12x2, tile_13x2, tile_14x2,
};
static void (*const tiles4[])(const struct s8_job *, const struct tile *) = {
    tile_1x4, tile_2x4, tile_3x4, tile_4x4, tile_5x4, tile_6x4,
};
/* clang-format on */

/* [by vectors of channels]: tiles and the largest M */
static const struct {
    void (*const *tile)(const struct s8_job *, const struct tile *);
    int64_t max;
} shapes[] = {[1] = {tiles1, 16}, [2] = {tiles2, 14}, [4] = {tiles4, 6}};

/* Weights that come from memory would hold up the first tile of each block: the first two tiles of the block
 * before fetch them, half each, while they compute. */
static void look_ahead(const struct s8_job *j, struct tile *t, int64_t b, int64_t n_tiles) {
    const size_t half = (size_t)(j->n_seg * (int64_t)j->seg_len) / 4 * 64;

    t->ahead = n_tiles < 2 ? j->w + (size_t)(b + 1) * j->w_block + (size_t)n_tiles * half : t->w;
}

/* Pixels are cut into nearly equal parts: 28 is 14 + 14, 32 is 11 + 11 + 10. */
static int64_t row_run(const struct s8_job *j, struct tile *t, int n, int64_t b, int64_t n_tiles) {
    int64_t parts = (j->n_pixels + shapes[n].max - 1) / shapes[n].max;

    for (int64_t i = 0, done = 0; i < parts; i++) {
        int64_t m = (j->n_pixels - done) / (parts - i);

        look_ahead(j, t, b, n_tiles++);
        shapes[n].tile[m - 1](j, t);
        t->a += m * j->a_pixel;
        t->y += m * j->y_pixel;
        done += m;
    }
    return n_tiles;
}

static void vnni_run(const struct s8_job *j) {
    size_t n_steps = (size_t)(j->n_seg * (int64_t)j->seg_len / 4);

    if (s8_is_few(j)) {
        j->loader->run_few(j);
        return;
    }
    for (int64_t b = j->block0; b < j->block1;) {
        int64_t left = j->n_channels - b * BLOCK;
        bool narrow = j->n_pixels <= shapes[4].max && b + 2 <= j->block1 && left > 48 && !j->loader;
        int n = narrow ? 4 : left > 16 ? 2 : 1;
        int64_t n_tiles = 0;
        struct tile t = {
            .w = s8_block(j, b, n_steps * (left > 16 ? 2 : 1)), .w_next = j->w_block, .oc = b * BLOCK};

        for (int64_t r = 0; r < j->n_rows; r++) {
            t.a = j->a + r * j->a_row;
            t.y = j->y + r * j->y_row + t.oc * (j->out.is_float ? 4 : 1);
            n_tiles = row_run(j, &t, n, narrow ? b + 1 : b, n_tiles);
        }
        b += narrow ? 2 : 1;
    }
}

static bool vnni_has(const struct cpu *cpu) {
    return cpu->avx512_vnni;
}

const struct s8_isa s8_isa_avx512vnni = {
    .name = "avx512vnni",
    .element = 1,
    .step = 4,
    .block = BLOCK,
    .unit = 64,
    .loaders = s8_loaders_avx512vnni,
    .has = vnni_has,
    .run = vnni_run,
};
