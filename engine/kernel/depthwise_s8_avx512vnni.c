/* Depthwise convolution by vpdpbusd: four rows of the picture, interleaved bytewise, are the four bytes a
 * 32-bit lane multiplies with a column of the filter; a 3x3 filter is three products for 16 channels, the
 * fourth row's weight 0.
 *
 *    rows  r0: a0 a1 a2 …   r1: b0 b1 …   r2: c0 c1 …   r3: d0 d1 …      (a byte a channel)
 *    column x of scratch: a0 b0 c0 d0 | a1 b1 c1 d1 | …
 *
 * 64 channels at a time. Unpacking works within 128-bit lanes, so vector j of a column holds channels 16 L +
 * 4 j … + 3 in lane L; weights, bias and scales are packed in that order, and packing the sums back to bytes
 * undoes it. */
#include <immintrin.h>
#include <stdio.h>
#include <string.h>

#include "engine/kernel/depthwise_s8.h"
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

/* Channel, within a run, of 32-bit lane i of vector j. */
static int64_t channel_of(int64_t j, int64_t i) {
    return i / 4 * 16 + j * 4 + i % 4;
}

static int32_t code_at(const struct layer *l, const struct s8_shape *sh, const struct depthwise *d, int64_t c,
    int64_t ky, int64_t kx) {
    return c < d->g.c && ky < d->g.kh ? s8_code(l->node->weight, sh, c, ky * d->g.kw + kx) : 0;
}

static void fill_lane(const struct layer *l, const struct s8_shape *sh, const struct depthwise *d, int64_t c,
    int8_t *w, int32_t *bias, float *scale) {
    int64_t sum = 0;
    float s;

    for (int64_t g = 0; g < n_groups(d); g++)
        for (int64_t kx = 0; kx < d->g.kw; kx++)
            for (int64_t i = 0; i < 4; i++) {
                int32_t code = code_at(l, sh, d, c, 4 * g + i, kx);

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
        int r = pack_new(key, NULL, 0, weights + 2 * tables, &p, err);

        if (r < 0)
            return r;
        for (int64_t i = 0; i < n_runs(d) * RUN; i++) {
            int64_t b = i / RUN, j = i % RUN / 16, lane = i % 16;
            uint8_t *to = p->data;

            fill_lane(l, &sh, d, b * RUN + channel_of(j, lane),
                (int8_t *)to + (size_t)b * run + (size_t)(j * 64 + lane * 4),
                (int32_t *)(void *)(to + weights) + i, (float *)(void *)(to + weights + tables) + i);
        }
        found = pack_publish(packs, p);
    }
    data = found->data;
    d->w = data;
    d->bias = (const int32_t *)(const void *)(data + weights);
    d->scale = (const float *)(const void *)(data + weights + tables);
    d->scratch = (size_t)(((d->g.ow - 1) * d->g.sw + (d->g.kw - 1) * d->g.dw + 1) * n_groups(d)) * COLUMN;
    return 0;
}

/* ---- running ---- */

INLINE __m512i dot(__m512i sum, __m512i u8, __m512i s8) {
    __asm__("vpdpbusd %2, %1, %0" : "+v"(sum) : "v"(u8), "v"(s8));
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

/* Columns of four rows from `iy` (dilated), the 64 channels at `x`: the row's pixels with their borders. */
TARGET static void fill_columns(const struct depthwise *d, const uint8_t *x, int64_t iy, int64_t wide,
    int64_t rows, __mmask64 mask, uint8_t *to) {
    const struct conv_geometry *g = &d->g;
    const __m512i zero = _mm512_set1_epi8((char)d->zero_in);
    const uint8_t *row[4];

    for (int64_t i = 0; i < 4; i++) {
        int64_t y = iy + i * g->dh;

        row[i] = i < rows && y >= 0 && y < g->h ? x + y * g->w * g->c : NULL;
    }
    for (int64_t p = 0; p < wide; p++, to += COLUMN) {
        int64_t ix = p - g->pl;
        bool inside = ix >= 0 && ix < g->w;
        __m512i r[4];

        for (int i = 0; i < 4; i++)
            r[i] = inside && row[i] ? _mm512_maskz_loadu_epi8(mask, row[i] + ix * g->c) : zero;
        interleave(r, to);
    }
}

INLINE __m512i requantise(const struct s8_output *o, __m512i sum, const float *scale) {
    __m512 v = _mm512_mul_ps(_mm512_cvtepi32_ps(sum), _mm512_loadu_ps(scale));

    v = _mm512_min_ps(_mm512_max_ps(v, _mm512_set1_ps(o->low)), _mm512_set1_ps(o->high));
    return _mm512_add_epi32(_mm512_cvtps_epi32(v), _mm512_set1_epi32(o->zero));
}

INLINE void store(const struct depthwise *d, const __m512i sum[4], int64_t run, __mmask64 mask, uint8_t *y) {
    const float *scale = d->scale + run * RUN;
    const __m512i q0 = requantise(&d->out, sum[0], scale), q1 = requantise(&d->out, sum[1], scale + 16);
    const __m512i q2 = requantise(&d->out, sum[2], scale + 32), q3 = requantise(&d->out, sum[3], scale + 48);

    _mm512_mask_storeu_epi8(
        y, mask, _mm512_packus_epi16(_mm512_packs_epi32(q0, q1), _mm512_packs_epi32(q2, q3)));
}

INLINE void multiply_row(const struct depthwise *d, int64_t run, __mmask64 mask, const uint8_t *columns,
    int64_t wide, uint8_t *y) {
    const struct conv_geometry *g = &d->g;
    const uint8_t *w = (const uint8_t *)d->w + (size_t)(run * n_groups(d) * g->kw) * COLUMN;

    for (int64_t ox = 0; ox < g->ow; ox++) {
        const uint8_t *wt = w;
        __m512i sum[4];

        for (int j = 0; j < 4; j++)
            sum[j] = _mm512_loadu_si512(d->bias + run * RUN + 16 * j);
        for (int64_t r = 0; r < n_groups(d); r++)
            for (int64_t kx = 0; kx < g->kw; kx++, wt += COLUMN) {
                const uint8_t *column = columns + (r * wide + ox * g->sw + kx * g->dw) * COLUMN;

                for (int j = 0; j < 4; j++)
                    sum[j] = dot(sum[j], _mm512_load_si512(column + 64 * j), _mm512_loadu_si512(wt + 64 * j));
            }
        store(d, sum, run, mask, y + ox * g->c);
    }
}

/* 3x3: the filter stays in twelve registers */
INLINE void multiply_row3(
    const struct depthwise *d, int64_t run, __mmask64 mask, const uint8_t *columns, uint8_t *y) {
    const struct conv_geometry *g = &d->g;
    const uint8_t *w = (const uint8_t *)d->w + (size_t)(run * 3) * COLUMN;
    __m512i wv[3][4], bias[4];

#pragma GCC unroll 4
    for (int j = 0; j < 4; j++) {
        bias[j] = _mm512_loadu_si512(d->bias + run * RUN + 16 * j);
#pragma GCC unroll 3
        for (int k = 0; k < 3; k++)
            wv[k][j] = _mm512_loadu_si512(w + k * COLUMN + 64 * j);
    }
    for (int64_t ox = 0; ox < g->ow; ox++) {
        const uint8_t *column = columns + ox * g->sw * COLUMN;
        __m512i sum[4];

#pragma GCC unroll 4
        for (int j = 0; j < 4; j++) {
            sum[j] = bias[j];
#pragma GCC unroll 3
            for (int k = 0; k < 3; k++)
                sum[j] = dot(sum[j], _mm512_load_si512(column + k * COLUMN + 64 * j), wv[k][j]);
        }
        store(d, sum, run, mask, y + ox * g->c);
    }
}

TARGET void depthwise_row_avx512vnni(
    const struct depthwise *d, const uint8_t *x, int64_t oy, uint8_t *y, void *scratch) {
    const struct conv_geometry *g = &d->g;
    int64_t wide = (g->ow - 1) * g->sw + (g->kw - 1) * g->dw + 1;

    for (int64_t run = 0; run < n_runs(d); run++) {
        int64_t left = g->c - run * RUN;
        __mmask64 mask = left >= RUN ? ~(__mmask64)0 : ((__mmask64)1 << left) - 1;

        for (int64_t r = 0; r < n_groups(d); r++)
            fill_columns(d, x + run * RUN, oy * g->sh - g->pt + 4 * r * g->dh, wide, g->kh - 4 * r, mask,
                (uint8_t *)scratch + (size_t)(r * wide) * COLUMN);
        if (g->kh <= 4 && g->kw == 3 && g->dw == 1)
            multiply_row3(d, run, mask, scratch, y + run * RUN);
        else
            multiply_row(d, run, mask, scratch, wide, y + run * RUN);
    }
}
