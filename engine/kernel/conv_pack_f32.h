/* What our own float convolutions ask of a layer, and their biases. */
#ifndef ENGINE_KERNEL_CONV_PACK_F32_H
#define ENGINE_KERNEL_CONV_PACK_F32_H

#include "engine/kernel/conv_geometry.h"

/* Floats in and out, weights and bias known, at most two spatial dimensions; fills *ret. */
bool conv_pack_f32_fits(const struct layer *l, struct conv_geometry *ret);

/* n floats and zeros up to the next multiple of 16; zeros where the layer has none. */
int conv_pack_f32_bias(
    const struct layer *l, struct pack_cache *packs, int64_t n, const float **ret, struct error *err);

#endif
