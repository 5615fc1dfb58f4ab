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

/* `weight`: shape of a convolution's weights, NULL for pools. False: more than two spatial dimensions,
 * nothing to compute, or negative padding. */
bool conv_geometry_init(const struct layer *l, const struct shape *weight, struct conv_geometry *ret);

/* Multiplications, `ic` input channels an output; attributes are in the product, so not in integers. */
double conv_geometry_macs(const struct conv_geometry *g, int64_t ic);

#endif
