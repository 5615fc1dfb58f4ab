/* What the instruction sets share: walking over tiles of pixels, and storing a block's counts. */
#ifndef ENGINE_KERNEL_XNOR_TILE_H
#define ENGINE_KERNEL_XNOR_TILE_H

#include "engine/kernel/isa.h"
#include "engine/kernel/xnor.h"

/* A tile: up to XNOR_TILE neighbouring windows and one block of channels. */
struct xnor_tile {
    const uint64_t *x, *w;
    int64_t row, pixel, block;
};

typedef void xnor_tile_fn(const struct xnor_job *j, const struct xnor_tile *t, int n);

/* Rows are cut into tiles of nearly the same width. */
KERNEL_INLINE void xnor_walk(const struct xnor_job *j, xnor_tile_fn *fn) {
    int64_t n_tiles = (j->n_pixels + XNOR_TILE - 1) / XNOR_TILE;
    int64_t w_block = (int64_t)j->n_seg * j->seg_len * XNOR_BLOCK;

    for (int64_t b = j->block0; b < j->block1; b++)
        for (int64_t r = 0; r < j->n_rows; r++)
            for (int64_t t = 0; t < n_tiles; t++) {
                int64_t first = j->n_pixels * t / n_tiles, end = j->n_pixels * (t + 1) / n_tiles;

                fn(j,
                    &(struct xnor_tile){
                        j->x + r * j->row + first * j->pixel, j->w + b * w_block, r, first, b},
                    (int)(end - first));
            }
}

static inline int64_t xnor_class(const struct xnor_job *j, const struct xnor_tile *t, int i) {
    return (int64_t)j->border.row[t->row] * j->border.n_col + j->border.col[t->pixel + i];
}

/* Byte offset of pixel i's channels in the output. */
static inline int64_t xnor_place(const struct xnor_job *j, const struct xnor_tile *t, int i) {
    return (t->row * j->n_pixels + t->pixel + i) * j->y_pixel;
}

KERNEL_INLINE float xnor_clamp(float v, float low, float high) {
    v = v > low ? v : low;
    return v < high ? v : high;
}

/* Stores pixel i, whose counts of x ^ w are `count`. */
KERNEL_INLINE void xnor_store(
    const struct xnor_job *j, const struct xnor_tile *t, int i, const int32_t count[XNOR_BLOCK]) {
    const struct xnor_output *o = &j->out;
    int64_t class = xnor_class(j, t, i), c0 = t->block * XNOR_BLOCK, place = xnor_place(j, t, i);
    const int16_t *fix = j->border.fix + class * j->padded + c0;
    int32_t taken = j->border.taken[class], sum[XNOR_BLOCK];
    int n = (int)(j->n_channels - c0 < XNOR_BLOCK ? j->n_channels - c0 : XNOR_BLOCK);

    for (int k = 0; k < XNOR_BLOCK; k++)
        sum[k] = taken - 2 * (count[k] - fix[k]);
    if (o->is_bits) {
        unsigned bits = 0;

        for (int k = 0; k < n; k++)
            bits |= (unsigned)((sum[k] ^ o->flip[c0 + k]) - o->flip[c0 + k] >= o->limit[c0 + k]) << k;
        ((uint8_t *)j->y)[place + t->block] = (uint8_t)bits;
        return;
    }
    for (int k = 0; k < n; k++) {
        float v = (float)sum[k] * o->scale[c0 + k] + o->bias[c0 + k];

        v = xnor_clamp(v, o->low, o->high);
        if (o->has_residual)
            v = xnor_clamp(v + j->residual[place / (int64_t)sizeof(float) + c0 + k], o->low2, o->high2);
        ((float *)j->y)[place / (int64_t)sizeof(float) + c0 + k] = v;
    }
}

#endif
