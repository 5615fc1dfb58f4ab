/* Mean and variance of each channel of a value over the samples. Channels are dimension 1 of images and the
 * last dimension of anything of rank 2 or less. */
#ifndef COMPRESS_CHANNEL_STATS_H
#define COMPRESS_CHANNEL_STATS_H

#include "engine/tensor.h"

struct channel_stats {
    int64_t n;      /* channels; 0: nothing seen yet */
    double count;   /* elements a channel */
    double *sum;    /* [n] */
    double *square; /* [n] sum of squares */
};

/* Float tensors only; -EINVAL when the number of channels changes. */
int channel_stats_add(struct channel_stats *s, const struct tensor *x, struct error *err);
double channel_mean(const struct channel_stats *s, int64_t c);
double channel_deviation(const struct channel_stats *s, int64_t c);
void channel_stats_done(struct channel_stats *s);

#endif
