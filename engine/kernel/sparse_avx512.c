/* Sparse loops in vectors of 16. The dot product is written as assembly: gcc 12 spills all sums around the
 * intrinsic. */
#include <immintrin.h>
#include <string.h>

#include "engine/kernel/sparse.h"

#define LANES       16
#define N_REGISTERS 32
#define TARGET      __attribute__((target("avx2,fma,avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")))

typedef float vec __attribute__((vector_size(64)));
typedef int32_t ivec __attribute__((vector_size(64)));

#define EARLY static inline __attribute__((always_inline)) TARGET

EARLY vec load_quads(const uint8_t *const *pixel, size_t offset) {
    __m512 v = _mm512_castps128_ps512(_mm_loadu_ps((const float *)(const void *)(pixel[0] + offset)));

    v = _mm512_insertf32x4(v, _mm_loadu_ps((const float *)(const void *)(pixel[4] + offset)), 1);
    v = _mm512_insertf32x4(v, _mm_loadu_ps((const float *)(const void *)(pixel[8] + offset)), 2);
    return (vec)_mm512_insertf32x4(v, _mm_loadu_ps((const float *)(const void *)(pixel[12] + offset)), 3);
}

EARLY void transpose_lanes(const vec from[4], vec *to) {
    __m512d a = _mm512_castps_pd(_mm512_unpacklo_ps(from[0], from[1]));
    __m512d b = _mm512_castps_pd(_mm512_unpacklo_ps(from[2], from[3]));
    __m512d c = _mm512_castps_pd(_mm512_unpackhi_ps(from[0], from[1]));
    __m512d d = _mm512_castps_pd(_mm512_unpackhi_ps(from[2], from[3]));

    to[0] = (vec)_mm512_unpacklo_pd(a, b);
    to[1] = (vec)_mm512_unpackhi_pd(a, b);
    to[2] = (vec)_mm512_unpacklo_pd(c, d);
    to[3] = (vec)_mm512_unpackhi_pd(c, d);
}

EARLY vec multiply_add(vec a, vec w, vec x) {
    return (vec)_mm512_fmadd_ps(w, x, a);
}

struct quad {
    ivec codes;
};

EARLY struct quad quad_of(uint32_t codes) {
    return (struct quad){(int32_t)codes - (ivec){0}};
}

EARLY ivec quad_dot(ivec sum, ivec x, struct quad w) {
    __asm__("vpdpbusd %2, %1, %0" : "+v"(sum) : "v"(x), "v"(w.codes));
    return sum;
}

/* Four outputs of each pixel as codes, one dword: packing saturates within 128-bit lanes, so that the codes
 * of a lane's four pixels lie together, output by output. */
EARLY ivec encode_quad(const vec v[4], const struct s8_output *o) {
    const __m512i by_pixel =
        _mm512_broadcast_i32x4(_mm_setr_epi8(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15));
    const __m512i zero = _mm512_set1_epi16((int16_t)o->zero);
    __m512i q[4];

    /* what is too large for int32 would become the smallest number; what is too small does anyway */
    for (int i = 0; i < 4; i++)
        q[i] = _mm512_cvtps_epi32(_mm512_min_ps((__m512)v[i], _mm512_set1_ps(1 << 20)));
    q[0] = _mm512_adds_epi16(_mm512_packs_epi32(q[0], q[1]), zero);
    q[2] = _mm512_adds_epi16(_mm512_packs_epi32(q[2], q[3]), zero);
    q[0] = _mm512_packus_epi16(q[0], q[2]);
    q[0] = _mm512_max_epu8(q[0], _mm512_set1_epi8((char)o->low_code));
    q[0] = _mm512_min_epu8(q[0], _mm512_set1_epi8((char)o->high_code));
    return (ivec)_mm512_shuffle_epi8(q[0], by_pixel);
}

#include "engine/kernel/sparse_body.h"

static bool has(const struct cpu *cpu) {
    return cpu->avx512 && cpu->avx512_vnni;
}

const struct sparse_isa sparse_isa_avx512 = {
    .name = "avx512",
    .lanes = LANES,
    .has = has,
    .gather = gather,
    .multiply_f32 = multiply_f32,
    .multiply_s8 = multiply_s8,
    .store_f32 = store_f32,
    .store_s8 = store_s8,
};
