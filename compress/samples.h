/* Calibration data as a method sees it: `n` ready inputs of one network, float, in the input's own shape.
 * Where they come from (a pack, generated values in tests) is the maker's business. */
#ifndef COMPRESS_SAMPLES_H
#define COMPRESS_SAMPLES_H

#include "engine/tensor.h"

struct feed;
struct feed_source;

struct samples {
    const struct feed_source *source; /* the labelled pictures they are a part of (feed.h); NULL: none */
    struct feed *feed; /* … through which they are read, in its order; NULL: not from there */
    void *ctx;
    int64_t n;
    struct shape item; /* of one sample, first dimension 1 */
    /* Samples first .. first+count-1, one after the other, to ret. */
    int (*read)(void *ctx, int64_t first, int64_t count, float *ret, struct error *err);
    void (*done)(void *owner); /* NULL: nothing to free */
    void *owner;
};

void samples_done(struct samples *s);

/* From an .npy file of float inputs, [N][…]. */
int samples_from_npy(const char *path, struct samples *ret, struct error *err);

#endif
