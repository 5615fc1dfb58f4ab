/* u8 x s8 products by vpdpbusd: tiles of M pixels x 16 N channels in registers, K innermost. A step loads N
 * weight vectors, broadcasts four bytes of each pixel, and multiplies: M N instructions. 14 x 2, 16 x 1 and
 * 6 x 4 tiles fill the 32 registers. The instruction is written as assembly: gcc 12 spills all accumulators
 * around the intrinsic. */
#include <immintrin.h>

#include "engine/kernel/s8.h"

#define TARGET __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")))
#define INLINE static inline __attribute__((always_inline)) TARGET

#define BLOCK 32

struct tile {
    const uint8_t *a;
    uint8_t *y;
    const uint8_t *w; /* of the first channel */
    size_t w_next;    /* from one block of 32 channels to the next */
    int64_t oc;       /* first channel */
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

/* m, n are constants after inlining. With n of 4, weights come from two blocks. */
INLINE void tile_run(const struct s8_job *j, const struct tile *t, const int m, const int n) {
    const ptrdiff_t step = j->a_pixel;
    const uint8_t *w = t->w, *w2 = t->w + t->w_next;
    __m512i sum[16][4];

#pragma GCC unroll 4
    for (int c = 0; c < n; c++) {
        const __m512i bias = _mm512_loadu_si512(j->bias + t->oc + 16 * c);
#pragma GCC unroll 16
        for (int p = 0; p < m; p++)
            sum[p][c] = bias;
    }
    for (int s = 0; s < j->n_seg; s++) {
        const uint8_t *a = t->a + j->seg[s], *a4 = a + 4 * step, *a8 = a4 + 4 * step, *a12 = a8 + 4 * step;

        for (int k = 0; k < j->seg_len; k += 4) {
            __m512i wv[4];
#pragma GCC unroll 4
            for (int c = 0; c < n; c++)
                wv[c] = _mm512_loadu_si512((c < 2 ? w : w2) + 64 * (c % 2));
            w += 64 * (n < 2 ? n : 2);
            w2 += 128;
#pragma GCC unroll 16
            for (int p = 0; p < m; p++) {
                const uint8_t *base = p < 4 ? a : p < 8 ? a4 : p < 12 ? a8 : a12;
                const __m512i x = broadcast4(base + (p % 4) * step + k);
#pragma GCC unroll 4
                for (int c = 0; c < n; c++)
                    sum[p][c] = dot(sum[p][c], x, wv[c]);
            }
        }
    }
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

#define TILE(m, n)                                                                                           \
    TARGET static void tile_##m##x##n(const struct s8_job *j, const struct tile *t) {                        \
        tile_run(j, t, m, n);                                                                                \
    }

/* clang-format off */
TILE(1, 1) TILE(2, 1) TILE(3, 1) TILE(4, 1) TILE(5, 1) TILE(6, 1) TILE(7, 1) TILE(8, 1)
TILE(9, 1) TILE(10, 1) TILE(11, 1) TILE(12, 1) TILE(13, 1) TILE(14, 1) TILE(15, 1) TILE(16, 1)
TILE(1, 2) TILE(2, 2) TILE(3, 2) TILE(4, 2) TILE(5, 2) TILE(6, 2) TILE(7, 2) TILE(8, 2)
TILE(9, 2) TILE(10, 2) TILE(11, 2) TILE(12, 2) TILE(13, 2) TILE(14, 2)
TILE(1, 4) TILE(2, 4) TILE(3, 4) TILE(4, 4) TILE(5, 4) TILE(6, 4)

static void (*const tiles1[])(const struct s8_job *, const struct tile *) = {
    tile_1x1, tile_2x1, tile_3x1, tile_4x1, tile_5x1, tile_6x1, tile_7x1, tile_8x1,
    tile_9x1, tile_10x1, tile_11x1, tile_12x1, tile_13x1, tile_14x1, tile_15x1, tile_16x1,
};
static void (*const tiles2[])(const struct s8_job *, const struct tile *) = {
    tile_1x2, tile_2x2, tile_3x2, tile_4x2, tile_5x2, tile_6x2, tile_7x2, tile_8x2,
    tile_9x2, tile_10x2, tile_11x2, tile_12x2, tile_13x2, tile_14x2,
};
static void (*const tiles4[])(const struct s8_job *, const struct tile *) = {
    tile_1x4, tile_2x4, tile_3x4, tile_4x4, tile_5x4, tile_6x4,
};
/* clang-format on */

/* [by vectors of channels]: tiles and the largest M */
static const struct {
    void (*const *tile)(const struct s8_job *, const struct tile *);
    int64_t max;
} shapes[] = {[1] = {tiles1, 16}, [2] = {tiles2, 14}, [4] = {tiles4, 6}};

/* Pixels are cut into nearly equal parts: 28 is 14 + 14, 32 is 11 + 11 + 10. */
static void row_run(const struct s8_job *j, struct tile t, int n) {
    int64_t parts = (j->n_pixels + shapes[n].max - 1) / shapes[n].max;

    for (int64_t i = 0, done = 0; i < parts; i++) {
        int64_t m = (j->n_pixels - done) / (parts - i);

        shapes[n].tile[m - 1](j, &t);
        t.a += m * j->a_pixel;
        t.y += m * j->y_pixel;
        done += m;
    }
}

static void vnni_run(const struct s8_job *j) {
    for (int64_t b = j->block0; b < j->block1;) {
        int64_t left = j->n_channels - b * BLOCK;
        bool narrow = j->n_pixels <= shapes[4].max && b + 2 <= j->block1 && left > 48;
        int n = narrow ? 4 : left > 16 ? 2 : 1;
        struct tile t = {.w = j->w + (size_t)b * j->w_block, .w_next = j->w_block, .oc = b * BLOCK};

        for (int64_t r = 0; r < j->n_rows; r++) {
            t.a = j->a + r * j->a_row;
            t.y = j->y + r * j->y_row + t.oc * (j->out.is_float ? 4 : 1);
            row_run(j, t, n);
        }
        b += narrow ? 2 : 1;
    }
}

static bool vnni_has(const struct cpu *cpu) {
    return cpu->avx512_vnni;
}

const struct s8_isa s8_isa_avx512vnni = {
    .name = "avx512vnni",
    .element = 1,
    .step = 4,
    .block = BLOCK,
    .has = vnni_has,
    .run = vnni_run,
};
