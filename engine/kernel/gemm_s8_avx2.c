/* The same products without VNNI: bytes widened to 16 bits, vpmaddwd, exact (vpmaddubsw would saturate).
 * Tiles of up to 6 pixels x 16 channels. */
#include <immintrin.h>

#include "engine/kernel/s8.h"

#define TARGET __attribute__((target("avx2,fma")))
#define INLINE static inline __attribute__((always_inline)) TARGET

#define BLOCK      16
#define MAX_PIXELS 6

struct tile {
    const uint8_t *a;
    uint8_t *y;
    const uint8_t *w;
    int64_t oc;
};

INLINE __m256i broadcast2(const uint8_t *p) {
    int32_t v;

    __builtin_memcpy(&v, p, sizeof(v));
    return _mm256_set1_epi32(v);
}

INLINE void store(const struct s8_job *j, uint8_t *y, __m256i sum0, __m256i sum1, int64_t oc) {
    const __m256 low = _mm256_set1_ps(j->out.low), high = _mm256_set1_ps(j->out.high);
    __m256 v0 = _mm256_mul_ps(_mm256_cvtepi32_ps(sum0), _mm256_loadu_ps(j->scale + oc));
    __m256 v1 = _mm256_mul_ps(_mm256_cvtepi32_ps(sum1), _mm256_loadu_ps(j->scale + oc + 8));
    int64_t left = j->n_channels - oc;
    _Alignas(32) uint8_t out[64];

    left = left < BLOCK ? left : BLOCK;
    v0 = _mm256_min_ps(_mm256_max_ps(v0, low), high);
    v1 = _mm256_min_ps(_mm256_max_ps(v1, low), high);
    if (j->out.is_float) {
        _mm256_store_ps((float *)(void *)out, v0);
        _mm256_store_ps((float *)(void *)(out + 32), v1);
        __builtin_memcpy(y, out, (size_t)left * sizeof(float));
        return;
    }
    sum0 = _mm256_add_epi32(_mm256_cvtps_epi32(v0), _mm256_set1_epi32(j->out.zero));
    sum1 = _mm256_add_epi32(_mm256_cvtps_epi32(v1), _mm256_set1_epi32(j->out.zero));
    sum0 = _mm256_permute4x64_epi64(_mm256_packs_epi32(sum0, sum1), 0xd8);
    _mm_store_si128((__m128i *)(void *)out,
        _mm_packus_epi16(_mm256_castsi256_si128(sum0), _mm256_extracti128_si256(sum0, 1)));
    __builtin_memcpy(y, out, (size_t)left);
}

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
    for (int64_t b = j->block0; b < j->block1; b++) {
        struct tile t = {.w = j->w + (size_t)b * j->w_block, .oc = b * BLOCK};

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
    .has = avx2_has,
    .run = avx2_run,
};
