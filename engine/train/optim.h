/* Optimisers and schedules of the learning rate, one row each. */
#ifndef ENGINE_TRAIN_OPTIM_H
#define ENGINE_TRAIN_OPTIM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

struct optim_param {
    float momentum;     /* sgd */
    bool nesterov;      /* sgd */
    float beta1, beta2; /* adam, adamw */
    float epsilon;
    float weight_decay; /* of weights, not of biases and norms; adamw's does not go through the moments
                           (Loshchilov and Hutter 2019) */
    float clip;         /* largest L2 norm of all gradients together; 0: none */
};

struct optim_kind {
    const char *name;
    unsigned n_moments;
    /* w[0..n) by the gradient g; m: n_moments arrays, zero at first. step counts from 1. */
    void (*move)(const struct optim_param *p, float lr, float decay, int64_t step, int64_t n, float *w,
        const float *g, float *const *m);
};

struct optim {
    const struct optim_kind *kind;
    struct optim_param param;
    int64_t step;  /* made so far */
    int64_t n;     /* elements of all parameters */
    float *moment; /* [n_moments][n] */
};

/* "adam", "adamw", "sgd"; NULL: none such. */
const struct optim_kind *optim_find(const char *name);
/* Usual values: momentum 0.9, beta 0.9 and 0.999, epsilon 1e-8. */
struct optim_param optim_defaults(void);
int optim_init(struct optim *o, const struct optim_kind *kind, const struct optim_param *p, int64_t n,
    struct error *err);
void optim_done(struct optim *o);

struct schedule_kind {
    const char *name;
    double (*factor)(double at); /* of the learning rate, at ∈ [0, 1] of the way */
};

/* "constant", "cosine", "onecycle" (Smith 2018: up over the first 30%, then down by cosine), "step" (a tenth
 * after half and after three quarters). */
const struct schedule_kind *schedule_find(const char *name);
/* Learning rate of step `step` of `n`; over the first `warmup` of all steps it rises from 0. */
float schedule_rate(const struct schedule_kind *k, float lr, double warmup, int64_t step, int64_t n);

#endif
