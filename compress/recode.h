/* A weight form written again with other numbers: the same structure, places and code, new values. */
#ifndef COMPRESS_RECODE_H
#define COMPRESS_RECODE_H

#include "engine/weight.h"

/* What may differ besides the values; each NULL: as the form has it. */
struct recode_options {
    const float *scale;   /* as many as form->scale holds */
    const float *entries; /* of a book, [words]: codes stay, and `dense` is not looked at. Entries of an int8
                             book are rounded to it, the scales taking the factor */
};

/* Brings layer `node` (its in[1]) into the form with the values `dense`, in the order of form->shape, rounded
 * to what the code can say; graph_finish is the caller's. *ret_scale (may be NULL): the scales it got,
 * allocated, *ret_n of them, 0: none. Errors: -ENOMEM; -EOPNOTSUPP for codes that have no such way (product,
 * u8). */
int recode_layer(struct graph *g, int node, const struct weight *form, const float *dense,
    const struct recode_options *o, float **ret_scale, int64_t *ret_n, struct error *err);

#endif
