/* Observers: from the values seen on calibration data to the scale and zero point of a quantised value.
 *
 * Two passes over the data: the first finds the range (observer_range), the second counts a histogram over it
 * (observer_count); then a quantiser is chosen. `minmax` takes the whole range. `mse` shrinks it to the
 * factor in [0.5, 1] that gives the least mean squared quantisation error over the histogram (grid of 80
 * steps; the search of Banner et al. 2019, "Post training 4-bit quantization", without the distribution
 * assumption). `percentile` leaves a ten-thousandth of the values that are not zero outside, in all.
 * `entropy` takes the range whose values lose the least information when they are counted in as many levels
 * as the type has (Kullback-Leibler divergence; Migacz 2017, "8-bit inference with TensorRT"). */
#ifndef COMPRESS_OBSERVER_H
#define COMPRESS_OBSERVER_H

#include <stdint.h>

#include "engine/graph.h"

#define OBSERVER_BINS 2048

enum observer_kind {
    OBSERVER_MSE,
    OBSERVER_MINMAX,
    OBSERVER_PERCENTILE,
    OBSERVER_ENTROPY,
};

struct observer {
    float low, high; /* of all values seen; low <= 0 <= high, so that zero is exactly representable */
    uint64_t n_zero; /* exact zeros are counted apart: they cost nothing at any scale */
    uint64_t bins[OBSERVER_BINS];
};

void observer_init(struct observer *o);
void observer_range(struct observer *o, const float *x, int64_t n);
void observer_count(struct observer *o, const float *x, int64_t n);

/* u8: zero point 0 when nothing is negative, else asymmetric; s8: symmetric, zero 0. A value that is always
 * zero gets scale 1. */
struct quant observer_quant(const struct observer *o, enum observer_kind kind, enum dtype t);

/* The quantiser of a given range. */
struct quant quant_of_range(float low, float high, enum dtype t);

#endif
