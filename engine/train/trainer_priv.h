/* What the files of the trainer share: trainer.c runs the program, trainer_move.c has the parameters. */
#ifndef ENGINE_TRAIN_TRAINER_PRIV_H
#define ENGINE_TRAIN_TRAINER_PRIV_H

#include "engine/train/tape.h"

#define TRAINER_MAX_LANES 64

struct trainer {
    struct trainer_options options;
    struct graph *session; /* owned; NULL: the tape's graph is the caller's */
    struct tape tape;
    uint64_t n_moves; /* steps made */
    struct error why_float;
    int64_t lane_batch, item, outputs;
    size_t lane_size;                 /* of a lane's arena */
    char *arena[TRAINER_MAX_LANES];   /* values, gradients of values, scratch */
    float *plain[TRAINER_MAX_LANES];  /* the input as it is written */
    float *grad[TRAINER_MAX_LANES];   /* gradients of the parameters */
    float *turned[TRAINER_MAX_LANES]; /* outputs of rank 3 and more, plain; then their gradient. NULL: as they
                                         lie */
    double loss[TRAINER_MAX_LANES];   /* sums */
    float *kept;                      /* sum of the gradients that were kept apart; NULL: never */
    int n_kept;                       /* minibatches in that sum */
    double *us;                       /* [lanes][program] when watched */
};

/* Sums the lanes' gradients of the parameters into the first lane's, in order. */
void trainer_sum_lanes(struct trainer *t, struct pool *pool);

#endif
