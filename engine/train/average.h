/* Exponential moving average of everything a trainer learns, running statistics included (Polyak and Juditsky
 * 1992; with the rising decay of Tan and Le 2019): a = d a + (1 - d) w after each step, where
 * d = min(decay, (1 + step) / (10 + step)). */
#ifndef ENGINE_TRAIN_AVERAGE_H
#define ENGINE_TRAIN_AVERAGE_H

#include "engine/train/trainer.h"

struct average {
    float decay;
    float *data; /* all parameters, one after the other */
    int64_t n;
};

/* Begins with the trainer's parameters. */
int average_init(struct average *a, const struct trainer *t, float decay, struct error *err);
void average_done(struct average *a);

/* step: made so far, from 1. */
void average_update(struct average *a, const struct trainer *t, struct pool *pool, int64_t step);

/* Exchanges average and parameters; twice is as before. */
void average_swap(struct average *a, struct trainer *t);

#endif
