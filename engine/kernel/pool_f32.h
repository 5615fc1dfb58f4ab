/* Pools on floats, channels last: for each output pixel, vectors of channels over the taps that lie in the
 * picture. Rows of output pixels are shared among the threads. */
#ifndef ENGINE_KERNEL_POOL_F32_H
#define ENGINE_KERNEL_POOL_F32_H

#include "engine/kernel/conv_geometry.h"

struct pool_f32 {
    struct conv_geometry g;
    bool is_max;
    int64_t divisor; /* of an average; 0: the number of taps in the picture */
};

/* Output rows first to last - 1, counted through all images. */
void pool_f32_avx512(const struct pool_f32 *p, const float *x, float *y, int64_t first, int64_t last);
void pool_f32_avx2(const struct pool_f32 *p, const float *x, float *y, int64_t first, int64_t last);

#endif
