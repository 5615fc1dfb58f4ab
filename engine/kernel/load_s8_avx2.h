/* Codes to numbers by vpshufb: a table of 16 is one shuffle, a longer one a shuffle for every 16 entries, of
 * which all but one give zero: (code ^ 16 t) + 0x70 has bit 7 unless the code is in part t. */
#ifndef ENGINE_KERNEL_LOAD_S8_AVX2_H
#define ENGINE_KERNEL_LOAD_S8_AVX2_H

#include "engine/kernel/tile_s8_avx2.h"

#define UNIT 32

INLINE __m256i load(const uint8_t *p) {
    return _mm256_loadu_si256((const __m256i *)(const void *)p);
}

/* Codes of unit u, in the low bits of each byte; what lies above them is other units' where all bits are of
 * one plane. All but `codes` are constants after inlining. */
INLINE __m256i codes_of(const uint8_t *codes, const int bits, const int u) {
    __m256i code = _mm256_setzero_si256();
    int at = 0;

#pragma GCC unroll 3
    for (int width = 4; width > 0; width /= 2) {
        const int per = 8 / width;

        if (!(bits & width))
            continue;
        __m256i v = _mm256_srli_epi16(load(codes + u / per * UNIT), u % per * width);

        v = _mm256_and_si256(v, _mm256_set1_epi8((char)(bits == width ? 15 : (1 << width) - 1)));
        code = _mm256_or_si256(code, _mm256_slli_epi16(v, at));
        codes += width * UNIT;
        at += width;
    }
    return code;
}

INLINE __m256i look_up(const int8_t *table, __m256i code, const int bits) {
    const int n_parts = bits > 4 ? 1 << (bits - 4) : 1;
    __m256i v = _mm256_setzero_si256();

    if (n_parts == 1)
        return _mm256_shuffle_epi8(
            _mm256_broadcastsi128_si256(_mm_loadu_si128((const __m128i *)(const void *)table)), code);
#pragma GCC unroll 8
    for (int t = 0; t < n_parts; t++) {
        __m256i part =
            _mm256_broadcastsi128_si256(_mm_loadu_si128((const __m128i *)(const void *)(table + 16 * t)));
        __m256i in =
            _mm256_add_epi8(_mm256_xor_si256(code, _mm256_set1_epi8((char)(t << 4))), _mm256_set1_epi8(0x70));

        v = _mm256_or_si256(v, _mm256_shuffle_epi8(part, in));
    }
    return v;
}

INLINE void unit_of(const uint8_t *codes, const int8_t *table, const int bits, const int u, __m256i ret[2]) {
    __m256i v = look_up(table, codes_of(codes, bits, u), bits);

    ret[0] = _mm256_cvtepi8_epi16(_mm256_castsi256_si128(v));
    ret[1] = _mm256_cvtepi8_epi16(_mm256_extracti128_si256(v, 1));
}

void s8_few_avx2_1(const struct s8_job *j);
void s8_few_avx2_2(const struct s8_job *j);
void s8_few_avx2_4(const struct s8_job *j);

#endif
