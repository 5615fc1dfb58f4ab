#include "engine/kernel/bits.h"

#include <immintrin.h>
#include <string.h>

#include "engine/kernel/isa.h"

struct bits_source bits_source_of(const float *x, enum layout l, int64_t n, int64_t c, int64_t pixels) {
    if (l == LAYOUT_nChw16c)
        return (struct bits_source){x + n * ((c + 15) / 16 * 16) * pixels, 16, 16 * pixels};
    return (struct bits_source){x + n * c * pixels, c, 16};
}

static unsigned bits_scalar(const float *x, const uint32_t *flip, const float *limit, int64_t n) {
    unsigned bits = 0;

    for (int64_t i = 0; i < n; i++) {
        uint32_t u;
        float v;

        memcpy(&u, x + i, sizeof(u));
        u ^= flip[i];
        memcpy(&v, &u, sizeof(v));
        bits |= (unsigned)(v >= limit[i]) << i;
    }
    return bits;
}

static void bits_pack_plain(const struct bits_source *s, int64_t n_pixels, int64_t c, const uint32_t *flip,
    const float *limit, uint64_t *y) {
    for (int64_t p = 0; p < n_pixels; p++) {
        const float *x = s->x + p * s->pixel;

        memset(y, 0, (size_t)bits_words(c) * sizeof(*y));
        for (int64_t at = 0, run = 0; at < c; at += 16, run++) {
            uint64_t bits = bits_scalar(x + run * s->run, flip + at, limit + at, c - at < 16 ? c - at : 16);

            y[at / 64] |= bits << at % 64;
        }
        y += bits_words(c);
    }
}

#if KERNEL_HAS_X86
KERNEL_AVX2 static unsigned bits_avx2(const float *x, const uint32_t *flip, const float *limit) {
    __m256 v = _mm256_xor_ps(_mm256_loadu_ps(x), _mm256_loadu_ps((const float *)(const void *)flip));

    return (unsigned)_mm256_movemask_ps(_mm256_cmp_ps(v, _mm256_loadu_ps(limit), _CMP_GE_OQ));
}

KERNEL_AVX2 static void bits_pack_avx2(const struct bits_source *s, int64_t n_pixels, int64_t c,
    const uint32_t *flip, const float *limit, uint64_t *y) {
    for (int64_t p = 0; p < n_pixels; p++) {
        const float *x = s->x + p * s->pixel;

        memset(y, 0, (size_t)bits_words(c) * sizeof(*y));
        for (int64_t at = 0, run = 0; at < c; at += 16, run++) {
            const float *from = x + run * s->run;
            uint64_t bits;

            if (c - at >= 16)
                bits = bits_avx2(from, flip + at, limit + at) |
                       bits_avx2(from + 8, flip + at + 8, limit + at + 8) << 8;
            else
                bits = bits_scalar(from, flip + at, limit + at, c - at);
            y[at / 64] |= bits << at % 64;
        }
        y += bits_words(c);
    }
}

KERNEL_AVX512 static uint64_t bits_avx512(
    const float *x, const uint32_t *flip, const float *limit, __mmask16 mask) {
    __m512i v = _mm512_xor_si512(_mm512_maskz_loadu_epi32(mask, x), _mm512_loadu_si512(flip));

    return _mm512_mask_cmp_ps_mask(mask, _mm512_castsi512_ps(v), _mm512_loadu_ps(limit), _CMP_GE_OQ);
}

KERNEL_AVX512 static void bits_pack_avx512(const struct bits_source *s, int64_t n_pixels, int64_t c,
    const uint32_t *flip, const float *limit, uint64_t *y) {
    for (int64_t p = 0; p < n_pixels; p++) {
        const float *x = s->x + p * s->pixel;

        for (int64_t at = 0; at < c; at += 64) {
            uint64_t word = 0;

            for (int64_t k = at; k < c && k < at + 64; k += 16, x += s->run) {
                __mmask16 mask = (__mmask16)(c - k >= 16 ? 0xffffu : (1u << (c - k)) - 1);

                word |= bits_avx512(x, flip + k, limit + k, mask) << (k - at);
            }
            *y++ = word;
        }
    }
}
#endif

bits_pack_fn *bits_pack_for(const struct cpu *cpu) {
#if KERNEL_HAS_X86
    if (cpu->avx512)
        return bits_pack_avx512;
    if (cpu->avx2)
        return bits_pack_avx2;
#endif
    (void)cpu;
    return bits_pack_plain;
}
