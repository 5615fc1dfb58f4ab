/* Depthwise convolution on floats (one filter a channel), channels last, 3x3 and 5x5 at stride 1 and 2: two
 * output rows at once, the filter of a vector of channels in registers while x moves. A row outside of the
 * picture is a row of zeros; columns outside are left out. */
#ifndef ENGINE_KERNEL_DEPTHWISE_F32_H
#define ENGINE_KERNEL_DEPTHWISE_F32_H

#include "engine/kernel/conv_geometry.h"
#include "engine/kernel/post_f32.h"

struct depthwise_f32 {
    struct conv_geometry g;
    struct post_f32 post;
    int64_t c_pack;      /* channels in the packs, a multiple of 16 */
    const float *w;      /* [tap][c_pack] */
    const float *bias;   /* [c_pack] */
    int64_t left, right; /* output columns left to right - 1 read no column outside of the picture */
};

struct depthwise_f32_job {
    const float *x;
    float *y;
    const float *zeros; /* a row of the input */
    const void *const *residual;
    int64_t first, last; /* pairs of output rows, counted through all images */
};

void depthwise_f32_avx512(const struct depthwise_f32 *d, const struct depthwise_f32_job *j);
void depthwise_f32_avx2(const struct depthwise_f32 *d, const struct depthwise_f32_job *j);

#endif
