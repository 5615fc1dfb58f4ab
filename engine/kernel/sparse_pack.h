/* Weights to the packed stream of sparse.h, and how many of them are zero. */
#ifndef ENGINE_KERNEL_SPARSE_PACK_H
#define ENGINE_KERNEL_SPARSE_PACK_H

#include "engine/kernel/sparse.h"
#include "engine/pack.h"

struct sparse_shape {
    int64_t groups, oc, ic; /* oc, ic: of a group */
    int64_t taps;
    bool is_kn;    /* W[ic][oc], otherwise W[oc][ic][taps] */
    int per_dword; /* channels: 1 of floats, 4 of codes */
};

/* Dwords of a tap, and the slices they take. */
static inline int64_t sparse_dwords(const struct sparse_shape *sh) {
    return sh->ic / sh->per_dword;
}

static inline int64_t sparse_tap_slices(const struct sparse_shape *sh) {
    return (sparse_dwords(sh) + SPARSE_SLICE - 1) / SPARSE_SLICE;
}

/* Fraction of the dwords that are zero, by a sample; 0 too when the first look finds few. For float weights,
 * of codes for blocks of four. Negative: cannot be told. */
float sparse_f32_zeros(const struct layer *l);
float sparse_s8_zeros(const struct layer *l, const struct sparse_shape *sh);

/* The same pack serves all instruction sets and shapes of pictures. `factor` multiplies floats. Errors:
 * -ENOMEM, -EFBIG. */
int sparse_pack_f32(const struct layer *l, const struct sparse_shape *sh, float factor, float bias_factor,
    struct pack_cache *packs, struct sparse_weights *ret, struct error *err);
int sparse_pack_s8(const struct layer *l, const struct sparse_shape *sh, struct pack_cache *packs,
    struct sparse_weights *ret, struct error *err);

#endif
