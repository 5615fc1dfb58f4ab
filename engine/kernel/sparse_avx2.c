/* Sparse loops in vectors of 8. */
#include <immintrin.h>
#include <string.h>

#include "engine/kernel/sparse.h"

#define LANES  8
#define TARGET __attribute__((target("avx2,fma")))

typedef float vec __attribute__((vector_size(32)));
typedef int32_t ivec __attribute__((vector_size(32)));

#define EARLY static inline __attribute__((always_inline)) TARGET

EARLY vec load_quads(const uint8_t *const *pixel, size_t offset) {
    __m256 v = _mm256_castps128_ps256(_mm_loadu_ps((const float *)(const void *)(pixel[0] + offset)));

    return (vec)_mm256_insertf128_ps(v, _mm_loadu_ps((const float *)(const void *)(pixel[4] + offset)), 1);
}

EARLY void transpose_lanes(const vec from[4], vec *to) {
    __m256d a = _mm256_castps_pd(_mm256_unpacklo_ps(from[0], from[1]));
    __m256d b = _mm256_castps_pd(_mm256_unpacklo_ps(from[2], from[3]));
    __m256d c = _mm256_castps_pd(_mm256_unpackhi_ps(from[0], from[1]));
    __m256d d = _mm256_castps_pd(_mm256_unpackhi_ps(from[2], from[3]));

    to[0] = (vec)_mm256_unpacklo_pd(a, b);
    to[1] = (vec)_mm256_unpackhi_pd(a, b);
    to[2] = (vec)_mm256_unpacklo_pd(c, d);
    to[3] = (vec)_mm256_unpackhi_pd(c, d);
}

EARLY vec multiply_add(vec a, vec w, vec x) {
    return (vec)_mm256_fmadd_ps(w, x, a);
}

/* Codes 0 and 2, and codes 1 and 3, as 16-bit numbers: the pairs vpmaddwd adds up without saturation. */
struct quad {
    __m256i even, odd;
};

EARLY struct quad quad_of(uint32_t codes) {
    __m256i w = _mm256_set1_epi32((int32_t)codes);

    return (struct quad){_mm256_srai_epi16(_mm256_slli_epi16(w, 8), 8), _mm256_srai_epi16(w, 8)};
}

EARLY ivec quad_dot(ivec sum, ivec x, struct quad w) {
    __m256i even = _mm256_and_si256((__m256i)x, _mm256_set1_epi16(0xff));
    __m256i odd = _mm256_srli_epi16((__m256i)x, 8);

    return sum + (ivec)_mm256_madd_epi16(even, w.even) + (ivec)_mm256_madd_epi16(odd, w.odd);
}

#include "engine/kernel/sparse_body.h"

static bool has(const struct cpu *cpu) {
    return cpu->avx2 && cpu->fma;
}

const struct sparse_isa sparse_isa_avx2 = {
    .name = "avx2",
    .lanes = LANES,
    .has = has,
    .gather = gather,
    .multiply_f32 = multiply_f32,
    .multiply_s8 = multiply_s8,
    .store_f32 = store_f32,
    .store_s8 = store_s8,
};
