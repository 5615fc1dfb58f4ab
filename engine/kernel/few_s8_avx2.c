/* Fully connected layers on coded weights, few rows: codes are decoded in registers and read once. Tiles of
 * up to 6 pixels x 16 channels, eight steps of two inputs a group. */
#include "engine/kernel/load_s8_avx2.h"

/* Steps 0 to n - 1 of a group; bits, m and, but for the last group, n are constants after inlining. */
INLINE void group_run(const struct s8_job *j, const uint8_t *codes, const uint8_t *a,
    __m256i sum[MAX_PIXELS][2], const int bits, const int m, const int n) {
#pragma GCC unroll 8
    for (int u = 0; u < S8_GROUP; u++) {
        __m256i w[2];

        if (u >= n)
            break;
        unit_of(codes, j->table, bits, u, w);
#pragma GCC unroll 6
        for (int p = 0; p < m; p++) {
            const __m256i x = broadcast2(a + p * j->a_pixel + 4 * u);

            sum[p][0] = _mm256_add_epi32(sum[p][0], _mm256_madd_epi16(x, w[0]));
            sum[p][1] = _mm256_add_epi32(sum[p][1], _mm256_madd_epi16(x, w[1]));
        }
    }
}

INLINE void tile_run(const struct s8_job *j, int64_t b, const int bits, const int m) {
    const uint8_t *codes = j->w + (size_t)b * j->w_block, *a = j->a + j->seg[0];
    uint8_t *y = j->y + b * BLOCK * (j->out.is_float ? 4 : 1);
    int64_t oc = b * BLOCK;
    __m256i sum[MAX_PIXELS][2];
    int k = 0;

#pragma GCC unroll 6
    for (int p = 0; p < m; p++) {
        sum[p][0] = _mm256_loadu_si256((const __m256i *)(const void *)(j->bias + oc));
        sum[p][1] = _mm256_loadu_si256((const __m256i *)(const void *)(j->bias + oc + 8));
    }
    for (; k + 2 * S8_GROUP <= j->seg_len; k += 2 * S8_GROUP, codes += bits * UNIT, a += 4 * S8_GROUP)
        group_run(j, codes, a, sum, bits, m, S8_GROUP);
    group_run(j, codes, a, sum, bits, m, (j->seg_len - k) / 2);
#pragma GCC unroll 6
    for (int p = 0; p < m; p++)
        store(j, y + p * j->y_pixel, sum[p][0], sum[p][1], oc);
}

/* a table of `bits` */
#define FEW(bits)                                                                                            \
    TARGET static void tile_##bits(const struct s8_job *j, int64_t b) {                                      \
        switch (j->n_pixels) {                                                                               \
        case 1: tile_run(j, b, bits, 1); break;                                                              \
        case 2: tile_run(j, b, bits, 2); break;                                                              \
        case 3: tile_run(j, b, bits, 3); break;                                                              \
        case 4: tile_run(j, b, bits, 4); break;                                                              \
        case 5: tile_run(j, b, bits, 5); break;                                                              \
        default: tile_run(j, b, bits, 6);                                                                    \
        }                                                                                                    \
    }                                                                                                        \
    TARGET void s8_few_avx2_##bits(const struct s8_job *j) {                                                 \
        for (int64_t b = j->block0; b < j->block1; b++)                                                      \
            tile_##bits(j, b);                                                                               \
    }

FEW(1)
FEW(2)
FEW(4)
