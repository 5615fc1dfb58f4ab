/* What a training is made of between two steps, kept so that it can go on from there: weights, running
 * statistics, moments of the optimiser, averaged weights, and its place in the data. Chance hangs on seed,
 * epoch and picture alone, so that there is no generator to be kept.
 *
 * Two files beside each other (checkpoint.h): PATH.epoch as the present epoch began, which is also where a
 * training goes back to when its loss is no number any more, and PATH.step at some step within it. Without a
 * path the first is held in memory and the second is not written. */
#ifndef COMPRESS_LEARN_STATE_H
#define COMPRESS_LEARN_STATE_H

#include "compress/checkpoint.h"
#include "compress/learn.h"
#include "engine/train/average.h"

struct learn_place {
    int epoch;         /* from 0 */
    int64_t minibatch; /* the epoch's next one */
    int64_t step;      /* made so far */
    double loss;       /* sum over the epoch's minibatches */
    int64_t correct;   /* of the epoch's pictures */
    double rate;       /* factor on the learning rate; halved after a loss that was no number */
    double seconds;    /* spent so far */
};

struct learn_state {
    /* the caller's */
    struct trainer *trainer;
    struct optim *optim;
    struct average *average; /* NULL: none */
    json_t *report;          /* of the epochs that are over */
    struct learn_place *place;

    const char *path;
    char key[65]; /* SHA-256 of what decides the result */
    struct checkpoint_block *block;
    size_t n_blocks;
    void *memory; /* copy of the blocks as the epoch began, without a path */
    json_t *memory_state;
    double every_s, written_s; /* clock */
};

/* After the caller's members are set. `parts`: that a minibatch is cut into; batch norm makes them count. */
int learn_state_init(struct learn_state *s, const struct learn_run *run, const struct learn_options *o,
    int parts, struct error *err);
void learn_state_done(struct learn_state *s);

/* Bytes that a copy in memory takes; 0 with a path. */
size_t learn_state_bytes(const struct learn_state *s);

/* Goes on where the files say; false: there are none of this training, nothing was touched. */
bool learn_state_load(struct learn_state *s);

int learn_state_keep_epoch(struct learn_state *s, struct error *err);
int learn_state_keep_step(struct learn_state *s, struct error *err);

/* Is it time for another learn_state_keep_step()? */
bool learn_state_is_due(const struct learn_state *s);

/* Back to where the epoch began. */
int learn_state_go_back(struct learn_state *s, struct error *err);

#endif
