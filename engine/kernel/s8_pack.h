/* Weights of a layer as s8_isa.run wants them, with bias and scales, in the net's pack cache. */
#ifndef ENGINE_KERNEL_S8_PACK_H
#define ENGINE_KERNEL_S8_PACK_H

#include "engine/kernel/s8.h"

/* How the layer's K inputs lie. The weight tensor is [groups * oc][ic][taps], or [ic][oc] when `is_kn`. */
struct s8_shape {
    int64_t groups, oc, ic, taps; /* oc, ic: of a group */
    int n_seg, seg_len;           /* pieces of K in memory, seg_len padded to a multiple of 4 */
    int seg_taps;                 /* taps next to each other in a piece, ic elements each */
    bool is_kn;
    bool is_matrix; /* fully connected: the weights are read once and the time is the memory's */
};

struct s8_weights {
    const uint8_t *w;               /* group after group */
    const struct s8_loader *loader; /* of codes; NULL: numbers */
    const int8_t *table;
    size_t panel;             /* bytes of a block as numbers, where there is a loader */
    const int32_t *bias;      /* [groups][n_blocks * isa->block] */
    const float *scale;       /* the same */
    size_t group, block;      /* bytes of a group and of a block */
    int64_t n_blocks, padded; /* of a group; padded = n_blocks * isa->block */
};

/* Can `isa` multiply these weights? Their codes must be integers, less the zero point in the range of the
 * isa's element; scales one, or one an output channel; a bias constant, one number a channel. */
bool s8_weights_fit(const struct layer *l, const struct s8_isa *isa, const struct s8_shape *sh);

/* `input`: scale and zero point of the layer's input. Errors: -ENOMEM, -EFBIG. */
int s8_pack(const struct layer *l, struct pack_cache *packs, const struct s8_isa *isa,
    const struct s8_shape *sh, struct s8_weights *ret, struct error *err);

float s8_channel_scale(const struct weight *w, int64_t oc);

/* The bias of channel `oc` as int32 at `scale` = s_x * s_w. */
int32_t s8_bias(const struct layer *l, int64_t oc, float scale);

#endif
