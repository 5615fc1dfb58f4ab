/* Vectors of floats for bodies that are compiled once for each instruction set: a file NAME_avx512.c or
 * NAME_avx2.c defines F32_LANES (16 or 8) and includes this header and then the body. Products are fused by
 * hand, so that the compiler's habits do not decide the bits (-ffp-contract=off). */
#ifndef ENGINE_KERNEL_F32_VECTOR_H
#define ENGINE_KERNEL_F32_VECTOR_H

#include <immintrin.h>
#include <stdint.h>

#include "engine/kernel/isa.h"

#if F32_LANES == 16

#define F32_TARGET KERNEL_AVX512
#define F32_INLINE KERNEL_INLINE KERNEL_AVX512
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

#else

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

#endif

#endif
