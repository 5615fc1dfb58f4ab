/* Windows of a convolution's input as rows: what its weights are multiplied with at one output pixel. */
#ifndef COMPRESS_PATCHES_H
#define COMPRESS_PATCHES_H

#include <stdint.h>

#include "engine/kernel/window.h"

/* One of n pixels for sampled row `row`: the same whenever it is asked for, so that two networks are looked
 * at in the same places. */
int64_t patch_pixel(int64_t row, int64_t n);

/* The window at `pixel` of out's plane: to[channels of `in`][taps], zeros where it is in the padding. x: one
 * sample, plain layout. */
void patch_take(const struct kernel_window *w, const struct shape *in, const struct shape *out,
    const float *x, int64_t pixel, float *to);

#endif
