/* A convolution's or pool's numbers at concrete shapes, one-dimensional ones as pictures of height 1. */
#ifndef ENGINE_KERNEL_CONV_GEOMETRY_H
#define ENGINE_KERNEL_CONV_GEOMETRY_H

#include "engine/kernel/kernel.h"

struct conv_geometry {
    int64_t n, c, h, w; /* input */
    int64_t oc, oh, ow; /* output */
    int64_t kh, kw, sh, sw, dh, dw;
    int64_t pt, pl; /* padding before; behind is what the output needs */
};

/* `kernel`: {kh, kw} or {kw}, as many as spatial dimensions. False: rank is not 3 or 4. */
bool conv_geometry_init(const struct layer *l, const int64_t *kernel, struct conv_geometry *ret);

#endif
