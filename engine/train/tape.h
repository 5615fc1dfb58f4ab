/* The tape: the nodes that lie between the input and the loss, in order, each with its training kernel; every
 * value with its place in a lane's memory; and the program, the phases in the order in which they run.
 *
 * Time: forward of step i is i, the loss is n, backward of step i is 2 n - i. A value lives from where it is
 * made to its last reader, forward or backward; its gradient from its first writer to its maker's backward.
 */
#ifndef ENGINE_TRAIN_TAPE_H
#define ENGINE_TRAIN_TAPE_H

#include "engine/shape_infer.h"
#include "engine/train/kernel.h"
#include "engine/train/trainer.h"
#include "engine/train/transform_run.h"

struct tape_span {
    int first, last; /* in time; -1: none */
    size_t size, at; /* bytes; offset in the lane's arena */
    int shares;      /* index of the value whose memory it is, -1: its own */
};

struct tape_value {
    struct tensor t; /* lane's shape; data: constant or parameter */
    bool is_lane;    /* follows from the batch */
    bool wants;      /* a parameter lies behind it */
    int param;       /* -1 */
    int producer;    /* step, -1 */
    struct tape_span span, d_span;
};

struct tape_step {
    const struct train_kernel *kernel;
    struct train_state *state;
    const struct node *node;
    int n_in, n_out;
    int *in, *out;      /* the node's, with those of the nodes that are done with it */
    bool *wants, *adds; /* [n_in] */
    struct train_needs needs;
    struct tape_span saved;
    void *shared;
};

enum tape_pass { TAPE_FORWARD, TAPE_LOSS, TAPE_BACKWARD };

struct tape_item {
    enum tape_pass pass;
    int step, phase;
    bool waits; /* for all lanes to have done the item before */
};

struct tape {
    const struct graph *graph;
    struct shapes shapes; /* of a lane */
    struct tape_value *value;
    size_t n_values, n_bf16; /* … of which are kept as bfloat16 */
    struct tape_step *step;
    int n_steps;
    struct tape_item *program;
    size_t n_items;
    int input, logits;
    struct train_param *param;
    size_t n_params;
    int64_t *param_at; /* offset of each in one block of all gradients */
    int64_t n_grad;    /* elements of that block that parameters are moved by */
    int64_t n_block;   /* … and, behind them, gradients of weights that transforms replace */
    struct transforms transforms;
    size_t arena_size, scratch_at;
    struct onednn *onednn;
    struct cpu cpu;
};

int tape_build(const struct graph *g, const struct shape *item, const struct trainer_options *o,
    struct tape *ret, struct error *err);
void tape_done(struct tape *t);

/* tape_tail.c: nodes that are done in one step with the batch norm before them. */
struct tape_tail {
    int head, last, adds; /* nodes: the batch norm (-1: none), the last, the addition or -1 */
    int other;            /* value that is added, -1 */
    float low, high;      /* clamped to; infinite: not */
};

/* For each node the tail that ends with it; nodes that no longer stand for themselves lose `is_needed`. */
int tape_find_tails(const struct tape *t, bool *is_needed, struct tape_tail **ret, struct error *err);

/* tape_types.c: makes values bfloat16 that may be. `tail` is what tape_find_tails() gave. */
int tape_choose_types(struct tape *t, const bool *is_needed, const struct tape_tail *tail, struct error *err);

/* memory.c: spans and offsets of values, gradients and what kernels keep. */
int tape_place(struct tape *t, struct error *err);

#endif
