/* Networks of float16 or bfloat16: methods see a network of floats, its file keeps the types of the model's
 * inputs and outputs. */
#ifndef COMPRESS_HALVES_H
#define COMPRESS_HALVES_H

#include "engine/graph.h"

struct halves {
    enum dtype *inputs, *outputs; /* as the model declares them; owned */
};

/* Makes all constants, inputs and outputs float; keeps in `ret` what they were. */
int halves_widen(struct graph *g, struct halves *ret, struct error *err);

/* Inputs and outputs become what they were, with a Cast behind or before. */
int halves_restore(struct graph *g, const struct halves *h, struct error *err);
void halves_done(struct halves *h);

#endif
