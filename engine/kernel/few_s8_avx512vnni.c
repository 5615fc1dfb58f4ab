/* Fully connected layers on coded weights, few rows: codes are decoded in registers and read once. Tiles of
 * up to 4 pixels x 64 channels (two blocks side by side), or 8 x 32. */
#include "engine/kernel/load_s8_avx512vnni.h"

#define AHEAD 4096 /* bytes */

/* Blocks of a tile, at the same place: one of 16 or 32 channels, or two of 32. */
struct streams {
    const uint8_t *codes, *codes2;
    const uint8_t *a;
};

/* Steps 0 to n_steps - 1 of a group: eight units are four steps of 32 channels or eight of 16. All numbers
 * but, in the last group, n_steps are constants after inlining. */
INLINE void group_run(const struct s8_job *j, const struct streams *s, __m512i sum[16][4], const int bits,
    const int m, const int n, const int n_steps) {
    const int per_step = n == 1 ? 1 : 2;

#pragma GCC unroll 8
    for (int i = 0; i < n_steps; i++) {
        __m512i w[4];

#pragma GCC unroll 4
        for (int c = 0; c < n; c++)
            w[c] =
                look_up(j->table, codes_of(c < 2 ? s->codes : s->codes2, bits, per_step * i + c % 2), bits);
#pragma GCC unroll 8
        for (int p = 0; p < m; p++) {
            const __m512i x = broadcast4(s->a + p * j->a_pixel + 4 * i);
#pragma GCC unroll 4
            for (int c = 0; c < n; c++)
                sum[p][c] = dot(sum[p][c], x, w[c]);
        }
    }
}

/* The processor looks ahead too late for two streams at once. */
INLINE void prefetch(const uint8_t *codes, const int bits) {
#pragma GCC unroll 4
    for (int i = 0; i < bits; i++)
        _mm_prefetch((const char *)codes + AHEAD + UNIT * i, _MM_HINT_T0);
}

INLINE void few_tile(
    const struct s8_job *j, int64_t b, int64_t p0, const int bits, const int m, const int n) {
    const int steps = n == 1 ? S8_GROUP : S8_GROUP / 2;
    struct tile t = {.oc = b * BLOCK};
    struct streams s = {.codes = j->w + (size_t)b * j->w_block, .a = j->a + j->seg[0] + p0 * j->a_pixel};
    __m512i sum[16][4];
    int k = 0;

    t.y = j->y + p0 * j->y_pixel + t.oc * (j->out.is_float ? 4 : 1);
    s.codes2 = s.codes + j->w_block;
#pragma GCC unroll 4
    for (int c = 0; c < n; c++) {
        const __m512i bias = _mm512_loadu_si512(j->bias + t.oc + 16 * c);
#pragma GCC unroll 8
        for (int p = 0; p < m; p++)
            sum[p][c] = bias;
    }
    for (; k + 4 * steps <= j->seg_len; k += 4 * steps) {
        group_run(j, &s, sum, bits, m, n, steps);
        prefetch(s.codes, bits);
        if (n > 2)
            prefetch(s.codes2, bits);
        s.codes += bits * UNIT;
        s.codes2 += bits * UNIT;
        s.a += 4 * steps;
    }
    group_run(j, &s, sum, bits, m, n, (j->seg_len - k) / 4);
    store_tile(j, &t, sum, m, n);
}

/* clang-format off */
#define TILE(bits, m, n)                                                                                     \
    TARGET static void tile_##bits##_##m##x##n(const struct s8_job *j, int64_t b, int64_t p0) {              \
        few_tile(j, b, p0, bits, m, n);                                                                      \
    }
#define TILES(bits)                                                                                          \
    TILE(bits, 1, 1) TILE(bits, 2, 1) TILE(bits, 3, 1) TILE(bits, 4, 1)                                      \
    TILE(bits, 1, 2) TILE(bits, 2, 2) TILE(bits, 3, 2) TILE(bits, 4, 2)                                      \
    TILE(bits, 5, 2) TILE(bits, 6, 2) TILE(bits, 7, 2) TILE(bits, 8, 2)                                      \
    TILE(bits, 1, 4) TILE(bits, 2, 4) TILE(bits, 3, 4) TILE(bits, 4, 4)                                      \
    static const struct few_tiles tiles_##bits = {                                                           \
        {tile_##bits##_1x1, tile_##bits##_2x1, tile_##bits##_3x1, tile_##bits##_4x1},                        \
        {tile_##bits##_1x2, tile_##bits##_2x2, tile_##bits##_3x2, tile_##bits##_4x2,                         \
            tile_##bits##_5x2, tile_##bits##_6x2, tile_##bits##_7x2, tile_##bits##_8x2},                     \
        {tile_##bits##_1x4, tile_##bits##_2x4, tile_##bits##_3x4, tile_##bits##_4x4}};
/* clang-format on */

typedef void few_tile_fn(const struct s8_job *j, int64_t b, int64_t p0);

/* [pixels - 1] */
struct few_tiles {
    few_tile_fn *of16[4], *of32[8], *of64[4];
};

TILES(1)
TILES(2)
TILES(4)

static void few_run(const struct s8_job *j, const struct few_tiles *tiles) {
    int64_t m = j->n_pixels;

    for (int64_t b = j->block0; b < j->block1;) {
        int64_t left = j->n_channels - b * BLOCK;

        if (left <= 16) {
            for (int64_t p = 0; p < m; p += 4)
                tiles->of16[(m - p < 4 ? m - p : 4) - 1](j, b, p);
            b++;
        } else if (m <= 4 && left > 48 && b + 2 <= j->block1) {
            tiles->of64[m - 1](j, b, 0);
            b += 2;
        } else {
            tiles->of32[m - 1](j, b, 0);
            b++;
        }
    }
}

void s8_few_avx512vnni_1(const struct s8_job *j) {
    few_run(j, &tiles_1);
}

void s8_few_avx512vnni_2(const struct s8_job *j) {
    few_run(j, &tiles_2);
}

void s8_few_avx512vnni_4(const struct s8_job *j) {
    few_run(j, &tiles_4);
}
