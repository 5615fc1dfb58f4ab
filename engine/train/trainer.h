/* Training: reverse-mode gradients of a loaded, unfused graph (design: forward values that backward reads are
 * kept, all others share memory by liveness).
 *
 *   trainer.h     this: minibatches in, gradients and new weights out
 *   loss.h        what is minimised           optim.h      how weights move, and how fast
 *   kernel.h      how a node runs forward and backward     tape.h    the nodes in order, with their memory
 *   transform.h   what stands between stored parameters and operators, and between values
 *
 * A minibatch of B samples is cut into `lanes` equal shares that run side by side on the threads of a pool.
 * All sums over lanes are made in the order of lanes: weights after any number of steps are the same bytes
 * whatever the number of threads. */
#ifndef ENGINE_TRAIN_TRAINER_H
#define ENGINE_TRAIN_TRAINER_H

#include "engine/cpu.h"
#include "engine/graph.h"
#include "engine/pool.h"
#include "engine/train/loss.h"
#include "engine/train/optim.h"
#include "engine/train/transform.h"

struct trainer;

struct trainer_options {
    int64_t batch;         /* a multiple of lanes */
    unsigned lanes;        /* 0: 4 */
    bool uses_batch_stats; /* batch norm normalises by the minibatch and learns its running statistics */
    float momentum;        /* share of the running statistics that is kept; 0: 0.9 */
    bool bf16; /* values between layers and their gradients are bfloat16 where that is possible; weights and
                  all sums stay floats */
    const struct cpu *cpu; /* whose kernels; NULL: this one's */
    bool reference;        /* every node by its operator's own gradient: the oracle of the tests */

    /* transform.h; a parameter or activation that a transform names must be there */
    const struct weight_transform *weights;
    size_t n_weights;
    const struct activation_transform *activations;
    size_t n_activations;

    /* A session on a part of the graph: from the value `cut`, which is fed in place of the graph's input, to
     * the value `tap`, which the loss sees as it is, of any rank (losses that are `is_elementwise`). NULL:
     * the input; the first output. */
    const char *cut, *tap;
    const int *frozen; /* values: initialisers that are not learned */
    size_t n_frozen;
};

/* `g` stays the caller's and must live as long; its constants are folded (pass_fold_constants). One input,
 * whose first dimension is the batch; `item` is the shape of one sample of what is fed (first dimension 1).
 * The loss sees the first output; a Softmax or LogSoftmax at its end is left out. Errors: -EOPNOTSUPP
 * unsupported_operator naming the node that has no gradient, invalid_model (nothing to learn, several inputs
 * or one that is not float), not_a_classifier (the output is not [N,K]), -ENOMEM. */
int trainer_new(const struct graph *g, const struct shape *item, const struct trainer_options *o,
    struct trainer **ret, struct error *err);
struct trainer *trainer_free(struct trainer *t);
DEFINE_CLEANUP(struct trainer *, trainer_free)

/* Why values are floats although the options say bf16; NULL: they are bfloat16, or it was not asked. */
const char *trainer_why_float(const struct trainer *t);

/* Memory of all kinds, known before the first step. */
size_t trainer_bytes(const struct trainer *t);

/* Where sample i of the minibatch is written (plain layout), and its outputs read after a step. */
float *trainer_input(struct trainer *t, int64_t i);
const float *trainer_output(const struct trainer *t, int64_t i);
int64_t trainer_n_outputs(const struct trainer *t); /* of one sample */

/* One minibatch forward and backward. targets: [batch][loss->kind->n_targets][n_outputs] (loss.h). Returns
 * the mean loss. The gradients are then trainer_gradient()'s. */
double trainer_gradients(struct trainer *t, struct pool *pool, const struct loss *loss, const float *targets);

/* Keeps the gradients of the last trainer_gradients() apart: those of the next trainer_move() are the mean
 * over all that were kept and its own, a minibatch larger than memory. False: memory is short. */
bool trainer_keep_gradients(struct trainer *t, struct pool *pool);

/* Runs the minibatch once more, a node at a time: the name of the first value, or of the first parameter with
 * a gradient, that is not finite. NULL: all are. */
const char *trainer_find_not_finite(
    struct trainer *t, struct pool *pool, const struct loss *loss, const float *targets);

/* Forward only, with the running statistics or the minibatch's as the options say. */
void trainer_forward(struct trainer *t, struct pool *pool);

/* A parameter the graph or a transform learns, or a running statistic. */
struct train_param {
    const char *name; /* of its initialiser; INITIALISER/name or VALUE/scale: a transform's own */
    int value;        /* in the graph; -1: a transform's own */
    float *data;      /* as stored, before transforms */
    int64_t n;
    bool is_stat; /* has no gradient: a running statistic, or a weight that a transform replaces */
    bool decays;  /* a weight, no bias and no norm's */
};
size_t trainer_n_params(const struct trainer *t);
const struct train_param *trainer_param(const struct trainer *t, size_t i);

/* The gradient of the mean loss of the last trainer_gradients(), before trainer_move(); n elements to ret. */
void trainer_gradient(const struct trainer *t, size_t i, float *ret);

/* Elements of all gradients together, as optim_init() wants them. */
int64_t trainer_n_gradients(const struct trainer *t);

/* Moves the weights by the gradients of the last trainer_gradients(). False: a gradient is not finite (or
 * memory is short) and nothing was moved. */
bool trainer_move(struct trainer *t, struct pool *pool, struct optim *o, float lr);

/* Where the time goes. From trainer_watch() on, every run adds to each step's sums over all lanes. */
struct trainer_step {
    const char *kernel, *op, *id; /* of the training kernel, the operator, the node */
    double forward_us, backward_us;
};
int trainer_watch(struct trainer *t, struct error *err);
size_t trainer_n_steps(const struct trainer *t);
void trainer_step(const struct trainer *t, size_t i, struct trainer_step *ret);

/* Steps that trainer_move() made so far, for transforms that draw lots; to be set when a checkpoint goes on.
 */
uint64_t trainer_step_count(const struct trainer *t);
void trainer_set_step_count(struct trainer *t, uint64_t n);

/* Puts the parameters into `g` (the graph or a clone of it), which copies them: as operators see them, after
 * their transforms (without chance). A transform's own parameters have no place in a graph: trainer_param().
 */
int trainer_save(const struct trainer *t, struct graph *g, struct error *err);

#endif
