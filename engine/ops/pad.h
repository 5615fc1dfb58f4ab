/* Pad at a concrete shape, for kernels and passes. */
#ifndef ENGINE_OPS_PAD_H
#define ENGINE_OPS_PAD_H

#include "engine/ops.h"

enum pad_mode { PAD_CONSTANT, PAD_REFLECT, PAD_EDGE, PAD_WRAP };

struct pad_at {
    enum pad_mode mode;
    int64_t begin[SHAPE_MAX_RANK], end[SHAPE_MAX_RANK];
};

/* -EAGAIN: the pads are computed and not known yet. */
int pad_place(const struct node *n, const struct tensor *const *in, struct pad_at *ret, struct error *err);

#endif
