/* How good a network is on what no training of it sees: the part of `train` that is held out as `val`
 * (batches.h). What loops judge by while they compress; `test` is for the end alone. */
#ifndef COMPRESS_HELD_OUT_H
#define COMPRESS_HELD_OUT_H

#include "compress/method.h"

/* *ret: share of the held-out pictures that `g` (in any form) answers right; -1: there are no pictures, no
 * labels, or none is held out. Errors: those of evaluate(), cancelled. */
int held_out_accuracy(const struct work *work, const struct graph *g, double *ret, struct error *err);

#endif
