/* The same products without VNNI: bytes widened to 16 bits, vpmaddwd, exact (vpmaddubsw would saturate).
 * Tiles of up to 6 pixels x 16 channels. */
#include "engine/kernel/tile_s8_avx2.h"

/* m is a constant after inlining */
INLINE void tile_run(const struct s8_job *j, const struct tile *t, const int m) {
    const uint8_t *w = t->w;
    __m256i sum[MAX_PIXELS][2];

#pragma GCC unroll 6
    for (int p = 0; p < m; p++) {
        sum[p][0] = _mm256_loadu_si256((const __m256i *)(const void *)(j->bias + t->oc));
        sum[p][1] = _mm256_loadu_si256((const __m256i *)(const void *)(j->bias + t->oc + 8));
    }
    for (int s = 0; s < j->n_seg; s++) {
        const uint8_t *a = t->a + j->seg[s];

        for (int k = 0; k < j->seg_len; k += 2, a += 4, w += 64) {
            const __m256i w0 = _mm256_loadu_si256((const __m256i *)(const void *)w);
            const __m256i w1 = _mm256_loadu_si256((const __m256i *)(const void *)(w + 32));
#pragma GCC unroll 6
            for (int p = 0; p < m; p++) {
                const __m256i x = broadcast2(a + p * j->a_pixel);

                sum[p][0] = _mm256_add_epi32(sum[p][0], _mm256_madd_epi16(x, w0));
                sum[p][1] = _mm256_add_epi32(sum[p][1], _mm256_madd_epi16(x, w1));
            }
        }
    }
#pragma GCC unroll 6
    for (int p = 0; p < m; p++)
        store(j, t->y + p * j->y_pixel, sum[p][0], sum[p][1], t->oc);
}

#define TILE(m)                                                                                              \
    TARGET static void tile_##m(const struct s8_job *j, const struct tile *t) {                              \
        tile_run(j, t, m);                                                                                   \
    }
TILE(1)
TILE(2)
TILE(3)
TILE(4)
TILE(5)
TILE(6)

static void (*const tiles[])(const struct s8_job *, const struct tile *) = {
    tile_1, tile_2, tile_3, tile_4, tile_5, tile_6};

static void avx2_run(const struct s8_job *j) {
    size_t n_units = (size_t)(j->n_seg * (int64_t)j->seg_len / 2);

    if (s8_is_few(j)) {
        j->loader->run_few(j);
        return;
    }
    for (int64_t b = j->block0; b < j->block1; b++) {
        struct tile t = {.w = s8_block(j, b, n_units), .oc = b * BLOCK};

        for (int64_t r = 0; r < j->n_rows; r++) {
            t.a = j->a + r * j->a_row;
            t.y = j->y + r * j->y_row + t.oc * (j->out.is_float ? 4 : 1);
            for (int64_t left = j->n_pixels; left > 0;) {
                int64_t m = left < MAX_PIXELS ? left : MAX_PIXELS;

                tiles[m - 1](j, &t);
                t.a += m * j->a_pixel;
                t.y += m * j->y_pixel;
                left -= m;
            }
        }
    }
}

static bool avx2_has(const struct cpu *cpu) {
    return cpu->avx2;
}

const struct s8_isa s8_isa_avx2 = {
    .name = "avx2",
    .element = 2,
    .step = 2,
    .block = BLOCK,
    .unit = 32,
    .loaders = s8_loaders_avx2,
    .has = avx2_has,
    .run = avx2_run,
};
