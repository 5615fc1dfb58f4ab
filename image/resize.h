/* Resampling, bit for bit as Pillow's Image.resize (Pillow 9.4, Resample.c and Geometry.c; checked against
 * its results): the filter is widened by the scale when shrinking (antialiased), weights are rounded to
 * 22-bit fixed point, rows are resampled first, then columns, with 8 bits between. */
#ifndef IMAGE_RESIZE_H
#define IMAGE_RESIZE_H

#include "image/picture.h"

enum resize_mode { RESIZE_BILINEAR, RESIZE_BICUBIC, RESIZE_NEAREST };

/* No picture on the way may have more pixels. */
#define RESIZE_MAX_PIXELS ((int64_t)1 << 28)

/* A new picture of width x height; picture_done(ret). Errors: too_large, -ENOMEM. */
int resize_picture(const struct picture *p, int width, int height, enum resize_mode mode, struct picture *ret,
    struct error *err);

#endif
