/* Augmentation: what chance changes in a training picture, so that the network never sees the same one twice.
 * Works on the bytes between preprocessing's two steps ([height][width][channels], preprocess_pixels()), in
 * the order
 *   flip, rotate, scale, crop   one mapping of places   (augment_place.c)
 *   colour, cutout              values                  (augment_value.c)
 *   mixup                       after normalising, by the reader of minibatches
 * What happens depends on a key alone (chance.h: seed, epoch, item), each kind on numbers of its own: to turn
 * one on leaves the others as they were.
 *
 * Sources: padded crop and flip as He et al. 2016 (CIFAR-10); cutout DeVries and Taylor 2017; mixup Zhang et
 * al. 2018; colours as torchvision's ColorJitter, in the order brightness, contrast, saturation. */
#ifndef COMPRESS_AUGMENT_H
#define COMPRESS_AUGMENT_H

#include "config/param.h"
#include "image/picture.h"

struct augment_options {
    bool is_wanted;   /* the object stood there; false: nothing is changed, whatever the members say */
    int crop_padding; /* pixels on each side */
    bool flip;
    double rotate; /* degrees */
    double scale, cutout, color;
    double mixup; /* alpha of the Beta distribution */
};

/* The rows of struct augment_options. */
extern const struct param_table augment_table;

/* Does anything but mixup happen? */
bool augment_changes_pixels(const struct augment_options *o);

/* `from` to ret (as many bytes, not the same memory). `fill`: what cutout leaves, a colour. */
void augment_picture(const struct augment_options *o, uint64_t key, const struct picture *from,
    const uint8_t fill[static 3], uint8_t *ret);

/* Mixup: the picture's own share in [0, 1], the rest is that of item *ret_other < n; 1: it stays alone. */
double augment_mix(const struct augment_options *o, uint64_t key, uint64_t n, uint64_t *ret_other);

/* ---- the parts ---- */

/* Where the pixels of the result come from, outermost first: (x, y) of the result is (x + right, y + down) of
 * the picture enlarged by `factor` and turned by `angle` about its middle, mirrored or not. What lies outside
 * is black. */
struct augment_place {
    bool is_flipped;
    int right, down;
    double angle;  /* degrees, counter-clockwise as it is seen */
    double factor; /* 1: as large */
};

/* Whole pixels are copied where angle is 0 and factor 1, else bilinear as Pillow's Image.transform (rounded
 * to the nearest instead of down). */
void augment_move(const struct picture *from, const struct augment_place *place, uint8_t *ret);

/* Pillow's ImageEnhance Brightness, Contrast and Color one after the other, byte for byte; 1: unchanged. */
struct augment_color {
    double brightness, contrast, saturation;
};
void augment_recolor(struct picture *p, const struct augment_color *color);

/* A square about (x, y), cut off at the borders. */
void augment_cut(struct picture *p, int x, int y, int side, const uint8_t fill[static 3]);

#endif
