/* Importance of weights by gradients: what the loss says about each element of each parameter, over
 * minibatches of the data set's `train` split (without what is held out). Every criterion that looks at
 * gradients is made of these: single weights from importance_sums(), groups (a filter, a block) by a function
 * that sees each minibatch, because a group's sum comes before the square (Molchanov et al. 2019, "Importance
 * estimation for neural network pruning", equation 8).
 *
 * taylor: first order, what the loss changes by when w goes, the mean over minibatches of |g w| (Molchanov et
 * al. 2017, "Pruning convolutional neural networks for resource efficient inference", equation 7).
 *
 * hessian: second order at a minimum, w² H / 2 with the diagonal of the empirical Fisher matrix for H: w²
 * mean(g²) / 2 (LeCun, Denker and Solla 1990, "Optimal brain damage", equation 5; Theis et al. 2018, "Faster
 * gaze prediction with dense networks and Fisher pruning", equation 9).
 *
 * The loss is cross entropy with the labels. Without labels each picture's class is drawn from the network's
 * own answer (by the seed): the expectation of g² is then the Fisher matrix itself (Martens 2020, "New
 * insights and perspectives on the natural gradient method", section 5), while distilling a network into
 * itself has no gradient at all. The same sums from the same seed, whatever the threads. */
#ifndef COMPRESS_IMPORTANCE_H
#define COMPRESS_IMPORTANCE_H

#include "compress/method.h"

#define IMPORTANCE_PICTURES 1024 /* usual */

/* Called for each parameter of each minibatch. value: the initialiser in the graph; w: as it is; g: gradient
 * of the minibatch's mean loss; both [n], in the tensor's own order. */
typedef void importance_fn(
    void *ctx, int64_t minibatch, int value, const float *w, const float *g, int64_t n);

/* Shows the gradients of `pictures` pictures (rounded to minibatches of 16, at most those that there are).
 * `g`: float weights, constants folded (finetune_prepare); it is as it was afterwards. *ret_minibatches (may
 * be NULL): how many there were. Errors: data_required, no_train_split, bad_dataset, classes_do_not_match,
 * not_a_classifier, unsupported_operator (a node without gradient), cancelled. */
int importance_run(struct work *work, struct graph *g, int64_t pictures, importance_fn *fn, void *ctx,
    int64_t *ret_minibatches, struct error *err);

/* Of one parameter, means over the minibatches. */
struct importance_of {
    int value; /* in the graph */
    int64_t n;
    float *change; /* [n] mean |g w| */
    float *fisher; /* [n] mean g² */
};

struct importance {
    struct importance_of *of; /* [n] */
    size_t n;
};

/* values[n_values]: initialisers. */
int importance_sums(struct work *work, struct graph *g, const int *values, size_t n_values, int64_t pictures,
    struct importance *ret, struct error *err);
void importance_done(struct importance *i);

/* NULL: not among the values asked for. */
const struct importance_of *importance_find(const struct importance *i, int value);

#endif
