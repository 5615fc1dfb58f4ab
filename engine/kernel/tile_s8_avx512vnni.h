/* Tiles of M pixels x 16 N channels in registers: their products, and what becomes of the sums; for
 * gemm_s8_avx512vnni.c and few_s8_avx512vnni.c. The multiplication is written as assembly: gcc 12 spills all
 * accumulators around the intrinsic. */
#ifndef ENGINE_KERNEL_TILE_S8_AVX512VNNI_H
#define ENGINE_KERNEL_TILE_S8_AVX512VNNI_H

#include <immintrin.h>

#include "engine/kernel/s8.h"

#define TARGET __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")))
#define INLINE static inline __attribute__((always_inline)) TARGET

#define BLOCK 32

struct tile {
    const uint8_t *a;
    uint8_t *y;
    const uint8_t *w;     /* of the first channel */
    size_t w_next;        /* from one block of 32 channels to the next */
    int64_t oc;           /* first channel */
    const uint8_t *ahead; /* what will be wanted soon: 64 bytes a step */
};

INLINE __m512i dot(__m512i sum, __m512i u8, __m512i s8) {
    __asm__("vpdpbusd %2, %1, %0" : "+v"(sum) : "v"(u8), "v"(s8));
    return sum;
}

INLINE __m512i broadcast4(const uint8_t *p) {
    int32_t v;

    __builtin_memcpy(&v, p, sizeof(v));
    return _mm512_set1_epi32(v);
}

INLINE __m512 scaled(const struct s8_job *j, __m512i sum, int64_t oc) {
    return _mm512_mul_ps(_mm512_cvtepi32_ps(sum), _mm512_loadu_ps(j->scale + oc));
}

INLINE void store_floats(const struct s8_job *j, uint8_t *y, __m512i sum, int64_t oc) {
    int64_t left = j->n_channels - oc;
    __mmask16 mask = (__mmask16)(left >= 16 ? 0xffffu : (1u << left) - 1);
    __m512 v = scaled(j, sum, oc);

    v = _mm512_min_ps(_mm512_max_ps(v, _mm512_set1_ps(j->out.low)), _mm512_set1_ps(j->out.high));
    _mm512_mask_storeu_ps(y, mask, v);
}

INLINE __m512i rounded(const struct s8_job *j, __m512i sum, int64_t oc) {
    __m512 v = scaled(j, sum, oc);

    /* what is too large for int32 would become the smallest number; what is too small does anyway */
    if (!j->out.is_tame)
        v = _mm512_min_ps(v, _mm512_set1_ps(1 << 20));
    return _mm512_cvtps_epi32(v);
}

/* Four vectors of sums to 64 bytes of codes, 16 for each. Packing works within 128-bit lanes and saturates:
 * to 16 bits, the zero point added, to bytes; a permutation puts the pieces in order. */
INLINE __m512i encoded(const struct s8_job *j, const __m512i sum[4], const int64_t oc[4]) {
    const __m512i order = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
    const __m512i zero = _mm512_set1_epi16((int16_t)j->out.zero);
    __m512i a = _mm512_packs_epi32(rounded(j, sum[0], oc[0]), rounded(j, sum[1], oc[1]));
    __m512i b = _mm512_packs_epi32(rounded(j, sum[2], oc[2]), rounded(j, sum[3], oc[3]));
    __m512i q = _mm512_packus_epi16(_mm512_adds_epi16(a, zero), _mm512_adds_epi16(b, zero));

    q = _mm512_max_epu8(q, _mm512_set1_epi8((char)j->out.low_code));
    q = _mm512_min_epu8(q, _mm512_set1_epi8((char)j->out.high_code));
    return _mm512_permutexvar_epi32(order, q);
}

INLINE void store1(const struct s8_job *j, uint8_t *y, __m128i q, int64_t oc) {
    int64_t left = j->n_channels - oc;

    if (left >= 16)
        _mm_storeu_si128((__m128i *)(void *)y, q);
    else
        _mm_mask_storeu_epi8(y, (__mmask16)((1u << left) - 1), q);
}

INLINE void store2(const struct s8_job *j, uint8_t *y, __m256i q, int64_t oc) {
    int64_t left = j->n_channels - oc;

    if (left >= 32)
        _mm256_storeu_si256((__m256i *)(void *)y, q);
    else
        _mm256_mask_storeu_epi8(y, (__mmask32)((1u << left) - 1), q);
}

/* The sums of pixel p, p + 1, … as codes: 4 / n pixels make 64 bytes. Pixels from m on repeat the last. */
INLINE void store_codes(
    const struct s8_job *j, const struct tile *t, __m512i sum[16][4], const int p, const int m, const int n) {
    uint8_t *y = t->y + p * j->y_pixel;
    __m512i four[4], q;
    int64_t oc[4];

#pragma GCC unroll 4
    for (int i = 0; i < 4; i++) {
        const int pixel = p + i / n < m ? p + i / n : m - 1;

        four[i] = sum[pixel][i % n];
        oc[i] = t->oc + i % n * 16;
    }
    q = encoded(j, four, oc);
    if (n == 4) {
        int64_t left = j->n_channels - t->oc;

        _mm512_mask_storeu_epi8(y, left >= 64 ? ~(__mmask64)0 : ((__mmask64)1 << left) - 1, q);
    } else if (n == 2) {
        store2(j, y, _mm512_castsi512_si256(q), t->oc);
        if (p + 1 < m)
            store2(j, y + j->y_pixel, _mm512_extracti64x4_epi64(q, 1), t->oc);
    } else {
        store1(j, y, _mm512_castsi512_si128(q), t->oc);
        if (p + 1 < m)
            store1(j, y + j->y_pixel, _mm512_extracti32x4_epi32(q, 1), t->oc);
        if (p + 2 < m)
            store1(j, y + 2 * j->y_pixel, _mm512_extracti32x4_epi32(q, 2), t->oc);
        if (p + 3 < m)
            store1(j, y + 3 * j->y_pixel, _mm512_extracti32x4_epi32(q, 3), t->oc);
    }
}

INLINE void store_tile(
    const struct s8_job *j, const struct tile *t, __m512i sum[16][4], const int m, const int n) {
    if (j->out.is_float) {
#pragma GCC unroll 16
        for (int p = 0; p < m; p++) {
#pragma GCC unroll 4
            for (int c = 0; c < n; c++)
                store_floats(j, t->y + p * j->y_pixel + 64 * c, sum[p][c], t->oc + 16 * c);
        }
        return;
    }
#pragma GCC unroll 16
    for (int p = 0; p < m; p += 4 / n)
        store_codes(j, t, sum, p, m, n);
}

#endif
