/* Tiles of a weight tensor (struct weight_tile): an array [tiles][out * in], and the way from it to the
 * tensor's own order, in a graph and in memory:
 *
 *     [tiles][out * in] ── Reshape[O / out][taps][I / in][out][in] ── Transpose ── Reshape(shape)
 *
 * O and I are dimensions 0 and 1 of the tensor (or 1 and 0: out_axis), taps all the others. */
#ifndef ENGINE_WEIGHT_TILE_H
#define ENGINE_WEIGHT_TILE_H

#include "engine/weight_rows.h"

/* The array's value, or -1: another pattern. Fills the shape and all of the tile but `kept`. */
int weight_match_tiles(const struct graph *g, int v, struct shape *ret_shape, struct weight_tile *ret);
int weight_write_tiles(struct weight_writer *to, int value, enum dtype t, const struct weight *w);

/* 0: the shape cannot be cut into such tiles. */
int64_t weight_count_tiles(const struct shape *s, const struct weight_tile *t);

struct weight_tiles {
    struct weight_tile tile;
    int64_t taps, n_out, n_in; /* tiles along each */
};

void weight_tiles_init(struct weight_tiles *ret, const struct shape *s, const struct weight_tile *t);

/* Where element k of a tile stands in the tensor. */
static inline int64_t weight_tile_element(const struct weight_tiles *t, int64_t tile, int64_t k) {
    int64_t i = tile % t->n_in * t->tile.in + k % t->tile.in, tap = tile / t->n_in % t->taps;
    int64_t o = tile / t->n_in / t->taps * t->tile.out + k / t->tile.in;
    int64_t row = t->tile.out_axis == 0 ? o * (t->n_in * t->tile.in) + i : i * (t->n_out * t->tile.out) + o;

    return row * t->taps + tap;
}

#endif
