/* The first convolution of a net on floats: an image of one to four channels, read as it comes (a plane a
 * channel), written channels last. Rows of the image are copied into a band with zeros at both ends; then the
 * factors of neighbouring outputs lie `stride` floats apart, and a tile of pixels x channels of sums stays in
 * registers over all taps. */
#ifndef ENGINE_KERNEL_CONV_FIRST_F32_H
#define ENGINE_KERNEL_CONV_FIRST_F32_H

#include "engine/kernel/conv_geometry.h"
#include "engine/kernel/post_f32.h"

#define CONV_FIRST_BAND 4 /* output rows whose input is copied at once */

struct conv_first {
    struct conv_geometry g;
    struct post_f32 post;
    int64_t band_w, band_h; /* of the copy, a plane */
    const float *w;         /* [panel][ic][ky][kx][columns of the panel] */
    const float *bias;
};

/* Output rows first to last - 1, counted through all images. */
struct conv_first_job {
    const float *x;
    float *y, *band;
    const void *const *residual;
    int64_t first, last;
};

void conv_first_f32_avx512(const struct conv_first *c, const struct conv_first_job *j);
void conv_first_f32_avx2(const struct conv_first *c, const struct conv_first_job *j);

#endif
