/* A tile's accumulators to codes or floats, for gemm_s8_avx2.c and few_s8_avx2.c. */
#ifndef ENGINE_KERNEL_TILE_S8_AVX2_H
#define ENGINE_KERNEL_TILE_S8_AVX2_H

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

#endif
