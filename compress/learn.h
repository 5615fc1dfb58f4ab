/* Learning from labelled data: the one loop that everything which trains goes through. Minibatches of a data
 * set's `train` split in an order that depends on seed and epoch alone, a step each (engine/train), a
 * schedule of the learning rate; a tenth of the split, chosen by the pictures' digests, is held out as `val`
 * and says after each epoch how far it is. The same bytes from the same seed, whatever the threads. */
#ifndef COMPRESS_LEARN_H
#define COMPRESS_LEARN_H

#include <jansson.h>

#include "compress/augment.h"
#include "compress/feed.h"
#include "compress/frozen.h"
#include "compress/progress.h"
#include "config/param.h"
#include "engine/train/trainer.h"

struct learn_options {
    int loss, optimizer, schedule, batch_norm; /* indices of the choices below */
    int epochs, batch;
    double lr; /* 0: learn_rate() */
    double warmup, momentum, weight_decay, label_smoothing, clip, ema;
    bool nesterov, bf16;
    struct augment_options augment;
};

/* The choices of the options, in order; NULL-terminated. `auto` of the loss is cross entropy. Batch norm:
 * `keep` normalises by the minibatch and learns its statistics; `insert` puts one behind each convolution
 * that has none and folds it at the end (norm_insert.h); `auto` is `insert` for networks of ten convolutions
 * and more without any, else `keep`; `none` leaves statistics as they are, clips and learns more slowly. */
extern const char *const learn_losses[], *const learn_optimizers[], *const learn_schedules[],
                                                                        *const learn_batch_norms[];

/* The rows of struct learn_options. */
extern const struct param_table learn_table;

/* Learning what another network answers, beside the labels or without them. */
struct learn_distil {
    const struct graph *teacher; /* of the same input and classes */
    double weight;               /* share of the teacher's part; with labels */
    double temperature;
    bool labels;
};

/* What a method does while its network learns: masks that grow (gradual pruning), pulls towards zero between
 * steps (regularisers as proximal steps). Each function may be NULL. */
struct learn_hook {
    void *ctx;
    /* What it must know to go on: part of checkpoints, and copied back where a training goes on or back. */
    void *state;
    size_t state_bytes;
    /* Before each step: `step` of `n_steps`, from 0; parameters of `t` may be changed. */
    int (*begin)(void *ctx, struct trainer *t, int64_t step, int64_t n_steps, struct error *err);
    /* After each step with its learning rate; parameters may be changed. */
    void (*moved)(void *ctx, struct trainer *t, float rate);
    /* Each time before parameters go into a graph, after the last step and to be judged after an epoch: to
     * read what a transform learned. With an average of the weights `t` has it. */
    int (*done)(void *ctx, const struct trainer *t, struct error *err);
};

/* What a training has around it. */
struct learn_run {
    const struct feed_source *source; /* labelled pictures */
    uint64_t seed;
    const struct progress *progress;        /* may be NULL */
    const struct learn_distil *distil;      /* NULL: labels alone */
    const struct frozen *frozen;            /* what is not learned; NULL: all is */
    const struct weight_transform *weights; /* engine/train/transform.h */
    size_t n_weights;
    const struct activation_transform *activations;
    size_t n_activations;
    const char *transforms_key;    /* says what the transforms' parameters are; NULL: there are none */
    const struct learn_hook *hook; /* may be NULL */
    /* What the trained network will be when it is judged between epochs: `g` as it is saved, *ret (owned) as
     * it is deployed. NULL: the same. */
    int (*deploy)(void *ctx, const struct graph *g, struct graph **ret, struct error *err);
    void *deploy_ctx;
    const char *checkpoint; /* begin of the names of the files to go on from and to write; NULL: none */
    int checkpoint_seconds; /* at least so often within an epoch; 0: after every step */
    uint64_t memory_bytes;  /* most that training may take; 0: any */
    double seconds; /* after so long it ends, its schedule with it; 0: when the epochs are over. What it has
                       learnt by then depends on the machine */
};

/* Trains `g` (constants folded, weights float) in place. `report` gets "epochs", one object each,
 * "first_losses", of the first 20 steps (whether two trainings are the same one shows there first),
 * "batch_norms_inserted", and with bf16 "bf16", whether it was, and "why_float", why not. Errors:
 * no_train_split, bad_dataset, classes_do_not_match, not_a_classifier, unsupported_operator (of a node
 * without gradient), method_not_applicable (the loss is no number, also with half the learning rate),
 * memory_budget, disk_budget, cancelled: `g` is as it was. */
int learn(struct graph *g, const struct learn_run *run, const struct learn_options *o, json_t *report,
    struct error *err);

/* What a training would be. */
struct learn_plan {
    int64_t pictures; /* of an epoch */
    int64_t steps;    /* of all epochs */
    size_t bytes;     /* that it takes, known before the first step */
};

/* Everything learn() would refuse before its first step, refused; nothing is learnt. */
int learn_plan(struct graph *g, const struct learn_run *run, const struct learn_options *o,
    struct learn_plan *ret, struct error *err);

#endif
