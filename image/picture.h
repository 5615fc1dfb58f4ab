/* image/: pictures to tensors, one copy of it for the daemon and the worker. Uses base/, libjpeg-turbo,
 * libpng and jansson.
 *
 *   picture.h        pixels in memory: turned, made gray
 *   decode.h         JPEG and PNG to pixels, as Pillow gives them, within limits
 *   exif.h           the orientation tag
 *   resize.h         Pillow's resampling, bit for bit
 *   preprocess.h     a model's `preprocess`: JSON, and pixels to a float tensor by it
 *   pack.h           the file a data set is kept in
 *
 * Start here: decode_picture → preprocess_picture. Everything that comes from outside is bounded before it is
 * allocated. */
#ifndef IMAGE_PICTURE_H
#define IMAGE_PICTURE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

struct picture {
    uint8_t *pixels; /* owned; [height][width][channels], no padding */
    int width, height;
    int channels; /* 1: gray, 3: red green blue */
};

/* Memory for the pixels, not cleared. Errors: too_large when the sizes overflow, -ENOMEM. */
int picture_init(struct picture *p, int width, int height, int channels, struct error *err);
void picture_done(struct picture *p);

static inline size_t picture_bytes(const struct picture *p) {
    return (size_t)p->width * (size_t)p->height * (size_t)p->channels;
}

/* n pixels of red, green, blue to luma, as Pillow's convert("L"): (19595 R + 38470 G + 7471 B + 2^15) / 2^16.
 */
void picture_luma(const uint8_t *rgb, size_t n, uint8_t *ret);

/* Makes it gray or coloured (gray three times) in place. */
int picture_set_channels(struct picture *p, int channels, struct error *err);

/* Undoes an EXIF orientation (1 to 8; others do nothing), as Pillow's ImageOps.exif_transpose. */
int picture_orient(struct picture *p, int orientation, struct error *err);

#endif
