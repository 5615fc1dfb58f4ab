/* Windows of a convolution's input as rows: what its weights are multiplied with at one output pixel. */
#ifndef COMPRESS_PATCHES_H
#define COMPRESS_PATCHES_H

#include <stdbool.h>
#include <stdint.h>

#include "engine/kernel/window.h"

/* One of n pixels for sampled row `row`: the same whenever it is asked for, so that two networks are looked
 * at in the same places. */
int64_t patch_pixel(int64_t row, int64_t n);

/* Where a window stands. */
struct patch {
    const struct kernel_window *window;
    const struct shape *in;
    int64_t place[KERNEL_WINDOW_MAX]; /* the pixel of the output */
    int64_t plane;                    /* elements of an input channel */
};

void patch_init(struct patch *ret, const struct kernel_window *w, const struct shape *in,
    const struct shape *out, int64_t pixel);

/* What tap `tap` reads in a channel's plane; -1: padding. */
int64_t patch_tap(const struct patch *p, int64_t tap);

/* The window at `pixel` of out's plane: to[channels of `in`][taps], zeros where it is in the padding. x: one
 * sample, plain layout. */
void patch_take(const struct kernel_window *w, const struct shape *in, const struct shape *out,
    const float *x, int64_t pixel, float *to);

#endif
