/* The weight transforms of a session, ready to run: chains from stored parameters to what operators see. */
#ifndef ENGINE_TRAIN_TRANSFORM_RUN_H
#define ENGINE_TRAIN_TRANSFORM_RUN_H

#include "engine/pool.h"
#include "engine/train/transform.h"

struct tape;

struct transform_link {
    const struct transform *row;
    const void *param;
    struct transform_site site;
    struct transform_needs needs;
    int stored; /* the tape's parameter */
    int own[TRANSFORM_MAX_OWN];
    char *own_name[TRANSFORM_MAX_OWN];
    int depth;      /* transforms before it at the same parameter */
    int before;     /* the last of them, -1: none */
    bool is_behind; /* a later one replaces the parameter: nothing comes back */
    float *y;       /* [site.n] */
    double *sums;
};

struct transform_unit {
    int link;
    unsigned part;
};

struct transforms {
    struct transform_link *link;
    int n, n_depths;
    struct transform_unit *unit; /* by depth */
    size_t n_units;
    size_t bytes;
};

/* Adds the transforms' own parameters to the tape and lets operators see what comes out. Between find_params
 * and the first step of the tape. Errors: -EINVAL naming the value that is no parameter, those of the rows.
 */
int transforms_build(struct tape *t, const struct weight_transform *list, size_t n, struct error *err);
void transforms_done(struct transforms *t);

/* `grad`: the block of all gradients, summed over the lanes: what comes back takes the place of what it is
 * made of. */
void transforms_forward(const struct tape *t, struct pool *pool, uint64_t step, bool is_training);
void transforms_backward(const struct tape *t, struct pool *pool, float *grad, uint64_t step);
void transforms_confine(const struct tape *t);

#endif
