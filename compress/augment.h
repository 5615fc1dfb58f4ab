/* Augmentation: what is changed by chance in a training picture, so that the network never sees the same one
 * twice. */
#ifndef COMPRESS_AUGMENT_H
#define COMPRESS_AUGMENT_H

#include <stdbool.h>

struct augment_options {
    int crop_padding; /* pixels */
    bool flip;
    double rotate, scale, cutout, mixup, color;
};

#endif
