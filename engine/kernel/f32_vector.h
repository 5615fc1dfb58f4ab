/* Vectors of floats for bodies that are compiled once for each instruction set: a file NAME_avx512.c or
 * NAME_avx2.c defines F32_LANES (16 or 8) and includes this header and then the body; NAME_plain.c, where
 * there is one, defines 4 and gets what any processor has. Products are fused by hand, so that the compiler's
 * habits do not decide the bits (-ffp-contract=off). */
#ifndef ENGINE_KERNEL_F32_VECTOR_H
#define ENGINE_KERNEL_F32_VECTOR_H

#include <stdint.h>
#include <string.h>

#include "engine/kernel/isa.h"

#if F32_LANES > 4
#include <immintrin.h>
#endif

#if F32_LANES == 16

#ifdef F32_BF16 /* NAME_avx512bf16.c */
#define F32_TARGET KERNEL_AVX512BF16
#else
#define F32_TARGET KERNEL_AVX512
#endif
#define F32_INLINE KERNEL_INLINE F32_TARGET
typedef __m512 f32v;

F32_INLINE f32v f32_load(const float *p) {
    return _mm512_loadu_ps(p);
}
F32_INLINE void f32_store(float *p, f32v v) {
    _mm512_storeu_ps(p, v);
}
/* The first n of a vector, the others 0. */
F32_INLINE f32v f32_load_some(const float *p, int64_t n) {
    return _mm512_maskz_loadu_ps((__mmask16)((1u << n) - 1), p);
}
F32_INLINE void f32_store_some(float *p, f32v v, int64_t n) {
    _mm512_mask_storeu_ps(p, (__mmask16)((1u << n) - 1), v);
}
#ifdef F32_BF16
F32_INLINE f32v f32_load_bf16(const uint16_t *p, int64_t n) {
    __m256i v = n >= 16 ? _mm256_loadu_si256((const __m256i *)(const void *)p)
                        : _mm256_maskz_loadu_epi16((__mmask16)((1u << n) - 1), p);

    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(v), 16));
}
F32_INLINE void f32_store_bf16(uint16_t *p, f32v v, int64_t n) {
    __m256i h = (__m256i)_mm512_cvtneps_pbh(v);

    if (n >= 16)
        _mm256_storeu_si256((__m256i *)(void *)p, h);
    else
        _mm256_mask_storeu_epi16(p, (__mmask16)((1u << n) - 1), h);
}
#endif
F32_INLINE f32v f32_set(float x) {
    return _mm512_set1_ps(x);
}
F32_INLINE f32v f32_add(f32v a, f32v b) {
    return _mm512_add_ps(a, b);
}
F32_INLINE f32v f32_sub(f32v a, f32v b) {
    return _mm512_sub_ps(a, b);
}
F32_INLINE f32v f32_mul(f32v a, f32v b) {
    return _mm512_mul_ps(a, b);
}
/* a b + c */
F32_INLINE f32v f32_fma(f32v a, f32v b, f32v c) {
    return _mm512_fmadd_ps(a, b, c);
}
/* c - a b */
F32_INLINE f32v f32_fnma(f32v a, f32v b, f32v c) {
    return _mm512_fnmadd_ps(a, b, c);
}
/* What is not a number in b stays so. */
F32_INLINE f32v f32_max(f32v a, f32v b) {
    return _mm512_max_ps(a, b);
}
F32_INLINE f32v f32_min(f32v a, f32v b) {
    return _mm512_min_ps(a, b);
}
F32_INLINE f32v f32_div(f32v a, f32v b) {
    return _mm512_div_ps(a, b);
}
F32_INLINE f32v f32_sqrt(f32v a) {
    return _mm512_sqrt_ps(a);
}
/* v where low < x < high, else 0. */
F32_INLINE f32v f32_inside(f32v v, f32v x, f32v low, f32v high) {
    __mmask16 above = _mm512_cmp_ps_mask(x, low, _CMP_GT_OQ);

    return _mm512_maskz_mov_ps(_mm512_mask_cmp_ps_mask(above, x, high, _CMP_LT_OQ), v);
}
/* x where a > b, else y. */
F32_INLINE f32v f32_above(f32v a, f32v b, f32v x, f32v y) {
    return _mm512_mask_mov_ps(y, _mm512_cmp_ps_mask(a, b, _CMP_GT_OQ), x);
}
/* v where a == b, else 0. */
F32_INLINE f32v f32_equal(f32v a, f32v b, f32v v) {
    return _mm512_maskz_mov_ps(_mm512_cmp_ps_mask(a, b, _CMP_EQ_OQ), v);
}
/* Whole numbers from 0 to 255 as bytes, and back; the bytes of a vector are there. */
F32_INLINE void f32_to_bytes(uint8_t *p, f32v v) {
    _mm_storeu_si128((__m128i *)(void *)p, _mm512_cvtepi32_epi8(_mm512_cvtps_epi32(v)));
}
F32_INLINE f32v f32_from_bytes(const uint8_t *p) {
    return _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i *)(const void *)p)));
}
/* sum[i] += v[i] */
F32_INLINE void f32_add_to(double *sum, f32v v) {
    __m512d low = _mm512_cvtps_pd(_mm512_castps512_ps256(v)),
            high = _mm512_cvtps_pd(_mm512_extractf32x8_ps(v, 1));

    _mm512_storeu_pd(sum, _mm512_add_pd(_mm512_loadu_pd(sum), low));
    _mm512_storeu_pd(sum + 8, _mm512_add_pd(_mm512_loadu_pd(sum + 8), high));
}

#elif F32_LANES == 8

#define F32_TARGET KERNEL_AVX2
#define F32_INLINE KERNEL_INLINE KERNEL_AVX2
typedef __m256 f32v;

F32_INLINE __m256i f32_mask(int64_t n) {
    return _mm256_cmpgt_epi32(_mm256_set1_epi32((int)n), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}
F32_INLINE f32v f32_load(const float *p) {
    return _mm256_loadu_ps(p);
}
F32_INLINE void f32_store(float *p, f32v v) {
    _mm256_storeu_ps(p, v);
}
F32_INLINE f32v f32_load_some(const float *p, int64_t n) {
    return _mm256_maskload_ps(p, f32_mask(n));
}
F32_INLINE void f32_store_some(float *p, f32v v, int64_t n) {
    _mm256_maskstore_ps(p, f32_mask(n), v);
}
F32_INLINE f32v f32_set(float x) {
    return _mm256_set1_ps(x);
}
F32_INLINE f32v f32_add(f32v a, f32v b) {
    return _mm256_add_ps(a, b);
}
F32_INLINE f32v f32_sub(f32v a, f32v b) {
    return _mm256_sub_ps(a, b);
}
F32_INLINE f32v f32_mul(f32v a, f32v b) {
    return _mm256_mul_ps(a, b);
}
F32_INLINE f32v f32_fma(f32v a, f32v b, f32v c) {
    return _mm256_fmadd_ps(a, b, c);
}
F32_INLINE f32v f32_fnma(f32v a, f32v b, f32v c) {
    return _mm256_fnmadd_ps(a, b, c);
}
F32_INLINE f32v f32_max(f32v a, f32v b) {
    return _mm256_max_ps(a, b);
}
F32_INLINE f32v f32_min(f32v a, f32v b) {
    return _mm256_min_ps(a, b);
}
F32_INLINE f32v f32_div(f32v a, f32v b) {
    return _mm256_div_ps(a, b);
}
F32_INLINE f32v f32_sqrt(f32v a) {
    return _mm256_sqrt_ps(a);
}
F32_INLINE f32v f32_inside(f32v v, f32v x, f32v low, f32v high) {
    f32v above = _mm256_cmp_ps(x, low, _CMP_GT_OQ), below = _mm256_cmp_ps(x, high, _CMP_LT_OQ);

    return _mm256_and_ps(_mm256_and_ps(above, below), v);
}
F32_INLINE f32v f32_above(f32v a, f32v b, f32v x, f32v y) {
    return _mm256_blendv_ps(y, x, _mm256_cmp_ps(a, b, _CMP_GT_OQ));
}
F32_INLINE f32v f32_equal(f32v a, f32v b, f32v v) {
    return _mm256_and_ps(_mm256_cmp_ps(a, b, _CMP_EQ_OQ), v);
}
F32_INLINE void f32_to_bytes(uint8_t *p, f32v v) {
    __m256i words = _mm256_packus_epi32(_mm256_cvtps_epi32(v), _mm256_setzero_si256());
    __m256i bytes = _mm256_packus_epi16(words, words); /* in each half the first four are those of v */
    int32_t low = _mm256_extract_epi32(bytes, 0), high = _mm256_extract_epi32(bytes, 4);

    memcpy(p, &low, sizeof(low));
    memcpy(p + 4, &high, sizeof(high));
}
F32_INLINE f32v f32_from_bytes(const uint8_t *p) {
    return _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *)(const void *)p)));
}
F32_INLINE void f32_add_to(double *sum, f32v v) {
    __m256d low = _mm256_cvtps_pd(_mm256_castps256_ps128(v)),
            high = _mm256_cvtps_pd(_mm256_extractf128_ps(v, 1));

    _mm256_storeu_pd(sum, _mm256_add_pd(_mm256_loadu_pd(sum), low));
    _mm256_storeu_pd(sum + 4, _mm256_add_pd(_mm256_loadu_pd(sum + 4), high));
}

#else

#include <math.h>

#define F32_TARGET
#define F32_INLINE KERNEL_INLINE
typedef float f32v __attribute__((vector_size(16)));
typedef int32_t f32_bits __attribute__((vector_size(16)));

F32_INLINE f32v f32_load(const float *p) {
    f32v v;

    memcpy(&v, p, sizeof(v));
    return v;
}
F32_INLINE void f32_store(float *p, f32v v) {
    memcpy(p, &v, sizeof(v));
}
F32_INLINE f32v f32_load_some(const float *p, int64_t n) {
    f32v v = {0};

    for (int i = 0; i < n; i++)
        v[i] = p[i];
    return v;
}
F32_INLINE void f32_store_some(float *p, f32v v, int64_t n) {
    for (int i = 0; i < n; i++)
        p[i] = v[i];
}
F32_INLINE f32v f32_set(float x) {
    return (f32v){x, x, x, x};
}
F32_INLINE f32v f32_add(f32v a, f32v b) {
    return a + b;
}
F32_INLINE f32v f32_sub(f32v a, f32v b) {
    return a - b;
}
F32_INLINE f32v f32_mul(f32v a, f32v b) {
    return a * b;
}
/* In two roundings: fusing is a call where the processor cannot. */
F32_INLINE f32v f32_fma(f32v a, f32v b, f32v c) {
    return a * b + c;
}
F32_INLINE f32v f32_fnma(f32v a, f32v b, f32v c) {
    return c - a * b;
}
F32_INLINE f32v f32_choose(f32_bits which, f32v a, f32v b) {
    return (f32v)((which & (f32_bits)a) | (~which & (f32_bits)b));
}
F32_INLINE f32v f32_max(f32v a, f32v b) {
    return f32_choose(a > b, a, b);
}
F32_INLINE f32v f32_min(f32v a, f32v b) {
    return f32_choose(a < b, a, b);
}
F32_INLINE f32v f32_div(f32v a, f32v b) {
    return a / b;
}
F32_INLINE f32v f32_sqrt(f32v a) {
    return (f32v){sqrtf(a[0]), sqrtf(a[1]), sqrtf(a[2]), sqrtf(a[3])};
}
F32_INLINE f32v f32_inside(f32v v, f32v x, f32v low, f32v high) {
    return (f32v)((f32_bits)v & (x > low) & (x < high));
}
F32_INLINE f32v f32_above(f32v a, f32v b, f32v x, f32v y) {
    return f32_choose(a > b, x, y);
}
F32_INLINE f32v f32_equal(f32v a, f32v b, f32v v) {
    return (f32v)((f32_bits)v & (a == b));
}
F32_INLINE void f32_to_bytes(uint8_t *p, f32v v) {
    for (int i = 0; i < 4; i++)
        p[i] = (uint8_t)v[i];
}
F32_INLINE f32v f32_from_bytes(const uint8_t *p) {
    return (f32v){p[0], p[1], p[2], p[3]};
}
F32_INLINE void f32_add_to(double *sum, f32v v) {
    for (int i = 0; i < 4; i++)
        sum[i] += (double)v[i];
}

#endif

#endif
