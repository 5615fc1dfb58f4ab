/* What the files of the loop share: before the first step (learn_start.c), a step (learn_step.c), epochs
 * (learn.c). */
#ifndef COMPRESS_LEARN_PRIV_H
#define COMPRESS_LEARN_PRIV_H

#include "compress/batches.h"
#include "compress/learn_state.h"
#include "compress/teacher.h"

struct learner {
    const struct learn_options *o;
    const struct learn_run *run;
    const struct progress *p;
    struct batches *batches;
    struct trainer *trainer; /* of a part of the minibatch */
    struct pool *pool;
    struct optim optim;
    struct average average;
    struct teacher *teacher; /* NULL: none */
    struct loss loss;
    int parts;                /* that a minibatch is cut into, for the memory's sake */
    int64_t part;             /* pictures of one */
    int64_t item;             /* floats of a picture */
    float *waiting;           /* [batch][item] of parts that are not run yet; NULL: one part */
    float *labels;            /* [batch][classes]; NULL: none are needed */
    float *targets;           /* [part][loss.kind->n_targets][classes] */
    int64_t classes, n_steps; /* n_steps: of all epochs */
    struct learn_place place;
    struct learn_state state;
    double counted_us; /* until when time is in place.seconds */
    double begin_us;   /* since when the pictures a second are counted */
    int64_t begin_step;
};

/* ---- learn_start.c ---- */

/* Everything but the report of its state. The minibatch in parts where memory is short. Errors: as learn().
 */
int learner_start(struct learner *l, struct graph *g, struct error *err);
void learner_done(struct learner *l);

/* Of all that is made before the first step. */
size_t learner_bytes(const struct learner *l);

/* ---- learn_step.c ---- */

/* One minibatch. Errors: -EDOM: the loss is no number; those of batches_read(). */
int learner_step(struct learner *l, struct error *err);

/* Time since the last call counts to the training. */
void learner_count_time(struct learner *l);
bool learner_is_time_over(const struct learner *l);

/* Where the schedule is: at this step, or further where the time runs out before the steps do. */
int64_t learner_schedule_at(const struct learner *l, int64_t step);

/* The learning rate of this step. */
float learner_rate_at(const struct learner *l, int64_t step);

#endif
