/* Codes to numbers by byte shuffles. A table of 16 is one vpshufb; 64 are one vpermb and 128 one vpermi2b
 * where the processor has VBMI, else a vpshufb for every 16 entries, of which all but one give zero:
 * (code ^ 16 t) + 0x70 has bit 7 unless the code is in part t. */
#ifndef ENGINE_KERNEL_LOAD_S8_AVX512VNNI_H
#define ENGINE_KERNEL_LOAD_S8_AVX512VNNI_H

#include "engine/kernel/tile_s8_avx512vnni.h"

#define UNIT 64

#define TARGET_VBMI __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx512vbmi")))
#define INLINE_VBMI static inline __attribute__((always_inline)) TARGET_VBMI

/* shifts by a constant; the intrinsics' types differ between compilers */
typedef uint16_t v32hu __attribute__((vector_size(64)));

INLINE __m512i shift_right(__m512i v, int n) {
    return (__m512i)((v32hu)v >> n);
}

INLINE __m512i shift_left(__m512i v, int n) {
    return (__m512i)((v32hu)v << n);
}

/* Codes of unit u, in the low bits of each byte; what lies above them is other units' where all bits are of
 * one plane. All but `codes` are constants after inlining. */
INLINE __m512i codes_of(const uint8_t *codes, const int bits, const int u) {
    __m512i code = _mm512_setzero_si512();
    int at = 0;

#pragma GCC unroll 3
    for (int width = 4; width > 0; width /= 2) {
        const int per = 8 / width;

        if (!(bits & width))
            continue;
        __m512i v = shift_right(_mm512_loadu_si512(codes + u / per * UNIT), u % per * width);

        v = _mm512_and_si512(v, _mm512_set1_epi8((char)(bits == width ? 15 : (1 << width) - 1)));
        code = _mm512_or_si512(code, shift_left(v, at));
        codes += width * UNIT;
        at += width;
    }
    return code;
}

INLINE __m512i part_of(const int8_t *table, int t) {
    return _mm512_broadcast_i32x4(_mm_loadu_si128((const __m128i *)(const void *)(table + 16 * t)));
}

INLINE __m512i look_up(const int8_t *table, __m512i code, const int bits) {
    const int n_parts = bits > 4 ? 1 << (bits - 4) : 1;
    __m512i v = _mm512_setzero_si512();

    if (n_parts == 1)
        return _mm512_shuffle_epi8(part_of(table, 0), code);
#pragma GCC unroll 8
    for (int t = 0; t < n_parts; t++) {
        __m512i in = _mm512_xor_si512(code, _mm512_set1_epi8((char)(t << 4)));

        in = _mm512_add_epi8(in, _mm512_set1_epi8(0x70));
        v = _mm512_or_si512(v, _mm512_shuffle_epi8(part_of(table, t), in));
    }
    return v;
}

INLINE_VBMI __m512i look_up_vbmi(const int8_t *table, __m512i code, const int bits) {
    if (bits < 7)
        return _mm512_permutexvar_epi8(code, _mm512_loadu_si512(table));
    return _mm512_permutex2var_epi8(_mm512_loadu_si512(table), code, _mm512_loadu_si512(table + 64));
}

void s8_few_avx512vnni_1(const struct s8_job *j);
void s8_few_avx512vnni_2(const struct s8_job *j);
void s8_few_avx512vnni_4(const struct s8_job *j);

#define MAX_FEW 8 /* pixels */

#endif
