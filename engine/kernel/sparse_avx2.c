/* Sparse loops in vectors of 8. */
#include <immintrin.h>
#include <string.h>

#include "engine/kernel/sparse.h"

#define LANES       8
#define N_REGISTERS 16
#define TARGET      __attribute__((target("avx2,fma")))

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

/* Four outputs of each pixel as codes, one dword: packing saturates within 128-bit lanes, so that the codes
 * of a lane's four pixels lie together, output by output. */
EARLY ivec encode_quad(const vec v[4], const struct s8_output *o) {
    const __m256i by_pixel =
        _mm256_broadcastsi128_si256(_mm_setr_epi8(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15));
    const __m256i zero = _mm256_set1_epi16((int16_t)o->zero);
    __m256i q[4];

    /* what is too large for int32 would become the smallest number; what is too small does anyway */
    for (int i = 0; i < 4; i++)
        q[i] = _mm256_cvtps_epi32(_mm256_min_ps((__m256)v[i], _mm256_set1_ps(1 << 20)));
    q[0] = _mm256_adds_epi16(_mm256_packs_epi32(q[0], q[1]), zero);
    q[2] = _mm256_adds_epi16(_mm256_packs_epi32(q[2], q[3]), zero);
    q[0] = _mm256_packus_epi16(q[0], q[2]);
    q[0] = _mm256_max_epu8(q[0], _mm256_set1_epi8((char)o->low_code));
    q[0] = _mm256_min_epu8(q[0], _mm256_set1_epi8((char)o->high_code));
    return (ivec)_mm256_shuffle_epi8(q[0], by_pixel);
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
