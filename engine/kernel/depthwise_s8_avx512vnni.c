/* Depthwise convolution by vpdpbusd: four rows of the picture, interleaved bytewise, are the four bytes a
 * 32-bit lane multiplies with a column of the filter; a 3x3 filter is three products for 16 channels, the
 * fourth row's weight 0.
 *
 *    rows  r0: a0 a1 a2 …   r1: b0 b1 …   r2: c0 c1 …   r3: d0 d1 …      (a byte a channel)
 *    column x of scratch: a0 b0 c0 d0 | a1 b1 c1 d1 | …
 *
 * With stride 1 and three filter rows, the same column serves two output rows: weights w0 w1 w2 0 and 0 w0 w1
 * w2.
 *
 * 64 channels at a time, or 32 (the last ones) of two places in the picture, a half of the register each.
 * Unpacking works within 128-bit lanes, so vector j of a column holds channels 16 L + 4 j … + 3 in lane L;
 * weights, bias and scales are packed in that order, and packing the sums back to bytes undoes it. */
#include <immintrin.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/kernel/depthwise_s8.h"
#include "engine/kernel/s8_codes.h"
#include "engine/pack.h"

#define TARGET __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")))
#define INLINE static inline __attribute__((always_inline)) TARGET

#define RUN    64  /* channels */
#define COLUMN 256 /* bytes of a column: 64 channels x 4 rows */

/* ---- packing: [run][row group][kx][4 vectors][16 channels][4 rows], bias and scale [run][4][16] ---- */

static int64_t n_runs(const struct depthwise *d) {
    return (d->g.c + RUN - 1) / RUN;
}

static int64_t n_groups(const struct depthwise *d) {
    return (d->g.kh + 3) / 4;
}

/* The last run may be half as wide, and then works at two places. */
static bool is_half(const struct depthwise *d, int64_t run) {
    return d->g.c - run * RUN <= RUN / 2;
}

/* Channel, within a run, of 32-bit lane i of vector j. */
static int64_t channel_of(bool half, int64_t j, int64_t i) {
    return i / 4 % (half ? 2 : 4) * 16 + j * 4 + i % 4;
}

static bool is_pair(const struct depthwise *d) {
    return d->g.kh == 3 && d->g.sh == 1 && d->g.dh == 1;
}

static int32_t code_at(
    const struct depthwise *d, const struct s8_codes *codes, int64_t c, int64_t ky, int64_t kx) {
    return c < d->g.c && ky < d->g.kh ? s8_codes_at(codes, c, ky * d->g.kw + kx) : 0;
}

static void fill_lane(const struct layer *l, const struct s8_codes *codes, const struct depthwise *d,
    int64_t c, int8_t *w, int32_t *bias, float *scale) {
    int64_t sum = 0;
    float s;

    for (int64_t g = 0; g < n_groups(d); g++)
        for (int64_t kx = 0; kx < d->g.kw; kx++)
            for (int64_t i = 0; i < 4; i++) {
                int32_t code = code_at(d, codes, c, 4 * g + i, kx);

                w[(g * d->g.kw + kx) * COLUMN + i] = (int8_t)code;
                sum += code;
            }
    if (c >= d->g.c)
        return;
    s = l->in_type[0].quant.scale * s8_channel_scale(l->node->weight, c);
    *bias = (int32_t)(uint32_t)(s8_bias(l, c, s) - d->zero_in * sum);
    *scale = s / l->out_type[0].quant.scale;
}

int depthwise_pack_avx512vnni(
    const struct layer *l, struct pack_cache *packs, struct depthwise *d, struct error *err) {
    size_t run = (size_t)(n_groups(d) * d->g.kw) * COLUMN, weights = (size_t)n_runs(d) * run;
    size_t tables = (size_t)n_runs(d) * RUN * sizeof(int32_t);
    const struct pack *found;
    struct conv_geometry g;
    struct s8_shape sh;
    struct pack *p;
    char key[512];
    const uint8_t *data;

    (void)depthwise_shape(l, &g, &sh);
    snprintf(key, sizeof(key), "depthwise_s8_avx512vnni/%.400s", l->node->id);
    found = pack_find(packs, key);
    if (!found) {
        struct s8_codes codes = {0};
        int r = s8_codes_read(l->node->weight, &sh, &codes, err);

        if (r == 0)
            r = pack_new(key, NULL, 0, weights + 2 * tables, &p, err);
        for (int64_t i = 0; r == 0 && i < n_runs(d) * RUN; i++) {
            int64_t b = i / RUN, j = i % RUN / 16, lane = i % 16;
            uint8_t *to = p->data;

            fill_lane(l, &codes, d, b * RUN + channel_of(is_half(d, b), j, lane),
                (int8_t *)to + (size_t)b * run + (size_t)(j * 64 + lane * 4),
                (int32_t *)(void *)(to + weights) + i, (float *)(void *)(to + weights + tables) + i);
        }
        free(codes.code);
        if (r < 0)
            return r;
        found = pack_publish(packs, p);
    }
    data = found->data;
    d->w = data;
    d->bias = (const int32_t *)(const void *)(data + weights);
    d->scale = (const float *)(const void *)(data + weights + tables);
    d->rows = is_pair(d) ? 4 : 2;
    d->is_tame = true;
    for (int64_t i = 0; i < n_runs(d) * RUN; i++)
        d->is_tame = d->is_tame && d->scale[i] <= 1;
    d->scratch = (size_t)(((d->g.ow - 1) * d->g.sw + (d->g.kw - 1) * d->g.dw + 1) * n_groups(d)) * COLUMN;
    return 0;
}

/* ---- running ---- */

INLINE __m512i dot(__m512i sum, __m512i u8, __m512i s8) {
    __asm__("vpdpbusd %2, %1, %0" : "+v"(sum) : "v"(u8), "vm"(s8));
    return sum;
}

INLINE void interleave(const __m512i r[4], uint8_t *to) {
    const __m512i ab0 = _mm512_unpacklo_epi8(r[0], r[1]), ab1 = _mm512_unpackhi_epi8(r[0], r[1]);
    const __m512i cd0 = _mm512_unpacklo_epi8(r[2], r[3]), cd1 = _mm512_unpackhi_epi8(r[2], r[3]);

    _mm512_store_si512(to, _mm512_unpacklo_epi16(ab0, cd0));
    _mm512_store_si512(to + 64, _mm512_unpackhi_epi16(ab0, cd0));
    _mm512_store_si512(to + 128, _mm512_unpacklo_epi16(ab1, cd1));
    _mm512_store_si512(to + 192, _mm512_unpackhi_epi16(ab1, cd1));
}

/* Where a run works: output rows `at[0]` and, in the upper half of the registers, `at[1]`. */
struct place {
    int64_t run;
    bool half;
    int64_t at[2];
    __mmask64 mask; /* of the channels, in one half */
};

/* The row's channels; a row of zero points where the picture has none. */
static const uint8_t *row_of(const struct depthwise *d, const uint8_t *x, int64_t y) {
    return y >= 0 && y < d->g.h ? x + y * d->g.w * d->g.c : NULL;
}

INLINE __m512i load(const struct place *p, const uint8_t *a, const uint8_t *b, __m512i zero) {
    __m256i low, high;

    if (!p->half)
        return a ? _mm512_maskz_loadu_epi8(p->mask, a) : zero;
    low = a ? _mm256_maskz_loadu_epi8((__mmask32)p->mask, a) : _mm512_castsi512_si256(zero);
    high = b ? _mm256_maskz_loadu_epi8((__mmask32)p->mask, b) : _mm512_castsi512_si256(zero);
    return _mm512_inserti64x4(_mm512_castsi256_si512(low), high, 1);
}

/* Columns of four rows of filter row group `group`, the run's channels, borders included. */
TARGET static void fill_columns(const struct depthwise *d, const struct place *p, const uint8_t *x,
    int64_t group, int64_t wide, uint8_t *to) {
    const struct conv_geometry *g = &d->g;
    const __m512i zero = _mm512_set1_epi8((char)d->zero_in);
    const uint8_t *row[2][4];

    for (int k = 0; k < 2; k++)
        for (int64_t i = 0; i < 4; i++)
            row[k][i] = row_of(d, x, p->at[k] * g->sh - g->pt + (4 * group + i) * g->dh);
    for (int64_t ix = -g->pl; ix < wide - g->pl; ix++, to += COLUMN) {
        bool inside = ix >= 0 && ix < g->w;
        __m512i r[4];

        for (int i = 0; i < 4; i++)
            r[i] = load(p, inside && row[0][i] ? row[0][i] + ix * g->c : NULL,
                inside && row[1][i] ? row[1][i] + ix * g->c : NULL, zero);
        interleave(r, to);
    }
}

INLINE __m512i rounded(const struct depthwise *d, __m512i sum, const float *scale) {
    __m512 v = _mm512_mul_ps(_mm512_cvtepi32_ps(sum), _mm512_loadu_ps(scale));

    /* what is too large for int32 would become the smallest number; what is too small does anyway */
    if (!d->is_tame)
        v = _mm512_min_ps(v, _mm512_set1_ps(1 << 20));
    return _mm512_cvtps_epi32(v);
}

/* The codes of one pixel, for output row `dy` behind the place's. */
INLINE void store(const struct depthwise *d, const struct place *p, const __m512i sum[4], int64_t ox,
    int64_t dy, uint8_t *y) {
    const struct conv_geometry *g = &d->g;
    const float *scale = d->scale + p->run * RUN;
    const __m512i zero = _mm512_set1_epi16((int16_t)d->out.zero);
    const __m512i a = _mm512_packs_epi32(rounded(d, sum[0], scale), rounded(d, sum[1], scale + 16));
    const __m512i b = _mm512_packs_epi32(rounded(d, sum[2], scale + 32), rounded(d, sum[3], scale + 48));
    __m512i q = _mm512_packus_epi16(_mm512_adds_epi16(a, zero), _mm512_adds_epi16(b, zero));
    uint8_t *to = y + ((p->at[0] + dy) * g->ow + ox) * g->c;

    q = _mm512_max_epu8(q, _mm512_set1_epi8((char)d->out.low_code));
    q = _mm512_min_epu8(q, _mm512_set1_epi8((char)d->out.high_code));
    if (!p->half) {
        _mm512_mask_storeu_epi8(to, p->mask, q);
        return;
    }
    _mm256_mask_storeu_epi8(to, (__mmask32)p->mask, _mm512_castsi512_si256(q));
    to = y + ((p->at[1] + dy) * g->ow + ox) * g->c;
    if (p->at[1] + dy < g->oh)
        _mm256_mask_storeu_epi8(to, (__mmask32)p->mask, _mm512_extracti64x4_epi64(q, 1));
}

/* Any filter: one output row at each place. */
TARGET static void multiply(
    const struct depthwise *d, const struct place *p, const uint8_t *columns, int64_t wide, uint8_t *y) {
    const struct conv_geometry *g = &d->g;
    const uint8_t *w = (const uint8_t *)d->w + (size_t)(p->run * n_groups(d) * g->kw) * COLUMN;

    for (int64_t ox = 0; ox < g->ow; ox++) {
        const uint8_t *wt = w;
        __m512i sum[4];

        for (int j = 0; j < 4; j++)
            sum[j] = _mm512_loadu_si512(d->bias + p->run * RUN + 16 * j);
        for (int64_t r = 0; r < n_groups(d); r++)
            for (int64_t kx = 0; kx < g->kw; kx++, wt += COLUMN) {
                const uint8_t *column = columns + (r * wide + ox * g->sw + kx * g->dw) * COLUMN;

                for (int j = 0; j < 4; j++)
                    sum[j] = dot(sum[j], _mm512_load_si512(column + 64 * j), _mm512_loadu_si512(wt + 64 * j));
            }
        store(d, p, sum, ox, 0, y);
    }
}

/* Three columns and at most four rows: the filter stays in registers. With `pair`, two output rows. */
INLINE void multiply3(
    const struct depthwise *d, const struct place *p, const uint8_t *columns, uint8_t *y, const bool pair) {
    const struct conv_geometry *g = &d->g;
    const uint8_t *w = (const uint8_t *)d->w + (size_t)(p->run * 3) * COLUMN;
    __m512i wv[3][4], bias[4];
    bool second = pair && p->at[0] + 1 < g->oh;

#pragma GCC unroll 4
    for (int j = 0; j < 4; j++) {
        bias[j] = _mm512_loadu_si512(d->bias + p->run * RUN + 16 * j);
#pragma GCC unroll 3
        for (int k = 0; k < 3; k++)
            wv[k][j] = _mm512_loadu_si512(w + k * COLUMN + 64 * j);
    }
    for (int64_t ox = 0; ox < g->ow; ox++) {
        const uint8_t *column = columns + ox * g->sw * COLUMN;
        __m512i sum[2][4];

#pragma GCC unroll 4
        for (int j = 0; j < 4; j++) {
            sum[0][j] = sum[1][j] = bias[j];
#pragma GCC unroll 3
            for (int k = 0; k < 3; k++) {
                const __m512i c = _mm512_load_si512(column + k * COLUMN + 64 * j);

                sum[0][j] = dot(sum[0][j], c, wv[k][j]);
                if (pair) /* the bytes move up a row */
                    sum[1][j] = dot(sum[1][j], c, _mm512_slli_epi32(wv[k][j], 8));
            }
        }
        store(d, p, sum[0], ox, 0, y);
        if (second)
            store(d, p, sum[1], ox, 1, y);
    }
}

TARGET static void multiply3_one(
    const struct depthwise *d, const struct place *p, const uint8_t *columns, uint8_t *y) {
    multiply3(d, p, columns, y, false);
}

TARGET static void multiply3_pair(
    const struct depthwise *d, const struct place *p, const uint8_t *columns, uint8_t *y) {
    multiply3(d, p, columns, y, true);
}

static void run_place(
    const struct depthwise *d, const struct place *p, const uint8_t *x, uint8_t *y, uint8_t *scratch) {
    const struct conv_geometry *g = &d->g;
    int64_t wide = (g->ow - 1) * g->sw + (g->kw - 1) * g->dw + 1;

    for (int64_t r = 0; r < n_groups(d); r++)
        fill_columns(d, p, x + p->run * RUN, r, wide, scratch + (size_t)(r * wide) * COLUMN);
    if (g->kh > 4 || g->kw != 3 || g->dw != 1)
        multiply(d, p, scratch, wide, y + p->run * RUN);
    else if (is_pair(d))
        multiply3_pair(d, p, scratch, y + p->run * RUN);
    else
        multiply3_one(d, p, scratch, y + p->run * RUN);
}

void depthwise_rows_avx512vnni(
    const struct depthwise *d, const uint8_t *x, int64_t oy, uint8_t *y, void *scratch) {
    const struct conv_geometry *g = &d->g;
    int64_t step = is_pair(d) && g->kw == 3 && g->dw == 1 ? 2 : 1;

    for (int64_t run = 0; run < n_runs(d); run++) {
        int64_t left = g->c - run * RUN;
        struct place p = {.run = run, .half = is_half(d, run)};

        p.mask = left >= RUN ? ~(__mmask64)0 : ((__mmask64)1 << left) - 1;
        for (int64_t row = oy; row < oy + d->rows && row < g->oh; row += p.half ? 2 * step : step) {
            p.at[0] = row;
            p.at[1] = row + step;
            run_place(d, &p, x, y, scratch);
        }
    }
}
