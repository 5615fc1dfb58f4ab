/* The minibatches of a training: a data set's `train` split without the tenth that is held out as `val`
 * (chosen by the pictures' digests), in an order drawn from seed and epoch alone, read ahead by threads.
 * The same bytes from the same seed, whatever the threads and wherever reading begins. */
#ifndef COMPRESS_BATCHES_H
#define COMPRESS_BATCHES_H

#include "compress/augment.h"
#include "compress/feed.h"

struct batches;

struct batches_options {
    int64_t batch; /* pictures in a minibatch */
    uint64_t seed;
    unsigned threads; /* that read ahead; 0: the caller of batches_read() reads */
    /* How many threads may work now, the caller of batches_read() among them: while it is one, the others
     * stop. NULL: all. */
    unsigned (*allowed)(void *ctx);
    void *ctx;
    struct augment_options augment;
};

/* `input`: the network's one input. `s` stays the caller's and must live as long. Errors: those of
 * feed_open(); bad_dataset: fewer pictures to learn from than a minibatch. */
int batches_open(const struct feed_source *s, const struct value *input, const struct batches_options *o,
    struct batches **ret, struct error *err);
struct batches *batches_free(struct batches *b); /* waits for its threads */
DEFINE_CLEANUP(struct batches *, batches_free)

/* Whole minibatches of the part that is learned from; what does not fill one is left out of that epoch. */
int64_t batches_per_epoch(const struct batches *b);

/* Of one sample, first dimension 1. */
const struct shape *batches_shape(const struct batches *b);

/* Before the first batches_read(): the data set's classes to the network's (feed_map_classes). */
int batches_map_classes(struct batches *b, const json_t *labels, int64_t n_classes, struct error *err);

/* Minibatch k of `epoch` (both from 0): sample i goes to place(ctx, i) in the input's own layout, what it
 * should give to targets[batch][n_classes]; NULL: no label is needed. The next ones in order are read ahead;
 * any other position is possible. One caller at a time. Errors: bad_dataset (no label), those of feed_read()
 * for the first sample that cannot be read. */
int batches_read(struct batches *b, int epoch, int64_t k, float *(*place)(void *ctx, int64_t i), void *ctx,
    float *targets, struct error *err);

/* What is held out, for judging; its n may be 0. Lives as long as `b`. */
struct feed *batches_val(struct batches *b);

#endif
