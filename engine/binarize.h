/* The engine's own operator Binarize: the sign of a binary network's activations, +1 where x is at or above
 * its channel's limit and -1 elsewhere. pass_sign makes it of GreaterOrEqual and Where, with the batch norm
 * before them folded into the limits. It is never in a file. */
#ifndef ENGINE_BINARIZE_H
#define ENGINE_BINARIZE_H

#include "engine/ops.h"

/* y = (x, its sign bit flipped where `flip` says) >= limit ? 1 : -1, so that not-a-number is -1 as in
 * GreaterOrEqual. Channels are dimension 1. */
struct binarize_param {
    int64_t n;            /* 1, or one of each channel */
    const float *limit;   /* not-a-number: never reached */
    const uint32_t *flip; /* 1 << 31 or 0 */
};

extern const struct op op_binarize;

/* Does x become +1 in channel c? */
bool binarize_at(const struct binarize_param *p, int64_t c, float x);

#endif
