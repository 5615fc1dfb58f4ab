/* What the instruction sets share: walking over tiles of pixels, and storing a block's counts. */
#ifndef ENGINE_KERNEL_XNOR_TILE_H
#define ENGINE_KERNEL_XNOR_TILE_H

#include "engine/kernel/isa.h"
#include "engine/kernel/xnor.h"

/* A tile: up to XNOR_TILE neighbouring windows and one block of channels. */
struct xnor_tile {
    const uint64_t *x, *w;
    const struct xnor_window *window;
    int64_t pixel; /* the first, in the output */
    int64_t block;
};

typedef void xnor_tile_fn(const struct xnor_job *j, const struct xnor_tile *t, int n);

/* Cut into tiles of nearly the same width. */
KERNEL_INLINE void xnor_walk_run(const struct xnor_job *j, const struct xnor_run *cols, struct xnor_tile t,
    const uint64_t *x, int64_t pixel, xnor_tile_fn *fn) {
    int64_t n_tiles = (cols->n + XNOR_TILE - 1) / XNOR_TILE;

    for (int64_t i = 0; i < n_tiles; i++) {
        int64_t first = cols->n * i / n_tiles, end = cols->n * (i + 1) / n_tiles;

        t.x = x + first * j->pixel;
        t.pixel = pixel + first;
        fn(j, &t, (int)(end - first));
    }
}

KERNEL_INLINE void xnor_walk(const struct xnor_job *j, xnor_tile_fn *fn) {
    struct xnor_tile t;

    for (t.block = j->block0; t.block < j->block1; t.block++) {
        t.w = j->w + t.block * j->w_block;
        for (int r = 0; r < j->n_rows; r++)
            for (int64_t i = 0; i < j->rows[r].n; i++)
                for (int c = 0; c < j->n_cols; c++) {
                    t.window = &j->windows[r * j->n_cols + c];
                    xnor_walk_run(j, &j->cols[c], t, j->x + j->rows[r].x + i * j->row + j->cols[c].x,
                        (j->rows[r].first + i) * j->n_pixels + j->cols[c].first, fn);
                }
    }
}

KERNEL_INLINE float xnor_clamp(float v, float low, float high) {
    v = v > low ? v : low;
    return v < high ? v : high;
}

/* Stores pixel i, whose counts of x ^ w are `count`, by lanes. */
KERNEL_INLINE void xnor_store(
    const struct xnor_job *j, const struct xnor_tile *t, int i, const int32_t count[XNOR_BLOCK]) {
    const struct xnor_output *o = &j->out;
    int64_t c0 = t->block * XNOR_BLOCK, place = (t->pixel + i) * j->y_pixel;
    int64_t at = place / (int64_t)sizeof(float) + c0;
    int n = (int)(j->n_channels - c0 < XNOR_BLOCK ? j->n_channels - c0 : XNOR_BLOCK);
    int32_t sum[XNOR_BLOCK];

    for (int k = 0; k < XNOR_BLOCK; k++)
        sum[k] = t->window->products - 2 * count[xnor_lane(k)];
    if (o->is_bits) {
        unsigned bits = 0;
        uint16_t *to = (uint16_t *)(void *)((char *)j->y + place) + t->block;

        for (int k = 0; k < n; k++)
            bits |= (unsigned)((sum[k] ^ o->flip[c0 + k]) - o->flip[c0 + k] >= o->limit[c0 + k]) << k;
        *to = (uint16_t)bits;
        return;
    }
    for (int k = 0; k < n; k++) {
        float v = (float)sum[k] * o->scale[c0 + k] + o->bias[c0 + k];

        v = xnor_clamp(v, o->low, o->high);
        if (o->has_residual)
            v = xnor_clamp(v + j->residual[at + k], o->low2, o->high2);
        ((float *)j->y)[at + k] = v;
    }
}

#endif
