/* How a data set's pictures reach a network that is made for them: the size of its input, grey or colour, and
 * the mean and deviation of each channel, measured on the split `train`. */
#ifndef COMPRESS_TRAIN_PICTURES_H
#define COMPRESS_TRAIN_PICTURES_H

#include <jansson.h>

#include "compress/progress.h"
#include "image/pack.h"
#include "image/preprocess.h"

/* `size` > 0: a square input of that size. Else pictures all of one size up to 256 pixels a side keep it, and
 * others are cut to a square: of the usual sizes (32 … 224) the largest that their shorter sides (the median)
 * fill. Pictures that must be made smaller are resized by the shorter side and cut about the centre. Mean and
 * deviation come from at most 4096 pictures, the same ones each time, and are rounded to four digits;
 * 0 and 1 unless `measures`.
 * Errors: no_train_split, bad_dataset (a picture that cannot be decoded), cancelled. */
int train_pictures_look(const struct pack *pack, int size, bool measures, const struct progress *progress,
    struct preprocess *ret, struct error *err);

#endif
