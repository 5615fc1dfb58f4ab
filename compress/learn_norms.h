/* What the choice of batch norm means for a training. */
#ifndef COMPRESS_LEARN_NORMS_H
#define COMPRESS_LEARN_NORMS_H

#include "compress/learn.h"
#include "compress/norm_insert.h"

/* Where the options say so (`insert`; `auto` of a network whose norms were folded), batch norms measured on
 * some of the pictures that are learned from; with `measures` false, for their size alone. */
int learn_insert_norms(struct graph *g, const struct learn_run *run, const struct learn_options *o,
    bool measures, struct norm_insert *ret, struct error *err);

/* At the end: r as the training ended. What was inserted is folded, or, after a failure, gone. */
int learn_fold_norms(struct norm_insert *n, struct graph *g, int r, struct error *err);

/* Does batch norm normalise by the minibatch? */
bool learn_uses_batch_stats(const struct learn_options *o);

/* Largest learning rate and norm of the gradients: as given, else what suits the choice. */
double learn_rate(const struct learn_options *o);
double learn_clip(const struct learn_options *o);

#endif
