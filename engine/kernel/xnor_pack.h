/* Weights of a layer of signs as xnor_isa.run wants them, in the net's pack cache. */
#ifndef ENGINE_KERNEL_XNOR_PACK_H
#define ENGINE_KERNEL_XNOR_PACK_H

#include "engine/kernel/conv_geometry.h"
#include "engine/kernel/xnor.h"

struct pack_cache;

struct xnor_shape {
    int64_t oc, ic, taps;
    int64_t words; /* of a pixel */
    bool is_kn;    /* the weights are [ic][oc] */
};

/* What the layer's posts make of a sum; false: something the kernels do not know. `ret` has the clamps, and
 * whether there is a residual (*ret_residual: which post) and bits come out. */
bool xnor_output_read(const struct layer *l, struct xnor_output *ret, int *ret_residual);

struct xnor_weights {
    const uint64_t *w;
    int64_t n_blocks;
    int64_t block; /* words */
};

/* Also sets scale and bias, or limit and flip, of `out`. Errors: -ENOMEM, -EFBIG. */
int xnor_pack(const struct layer *l, struct pack_cache *packs, const struct xnor_shape *sh,
    struct xnor_output *out, struct xnor_weights *ret, struct error *err);

#endif
