/* Batch norms for a network that was stored with them folded: one behind each convolution, which at first
 * changes nothing, because it gives back the mean and the deviation that it takes away; so that training
 * normalises again. At the end they are folded into the convolutions once more.
 *
 *   y = conv(x)  ->  y = gamma (conv(x) - mu) / sqrt(var + epsilon) + beta,  gamma = sqrt(var + epsilon),
 * beta = mu
 *
 * with mu and var of conv(x) over samples (Ioffe and Szegedy 2015, section 3: what represents the identity).
 */
#ifndef COMPRESS_NORM_INSERT_H
#define COMPRESS_NORM_INSERT_H

#include "compress/frozen.h"
#include "compress/progress.h"
#include "compress/samples.h"
#include "engine/graph.h"

struct norm_insert {
    struct graph *before; /* owned: what the graph was; NULL: nothing was inserted */
    char **node;          /* [n] owned: ids of the batch norms */
    size_t n;
};

/* No batch norm, and so deep (10 convolutions and more) that it was hardly trained without: they were folded.
 */
bool norm_insert_is_due(const struct graph *g);

/* Behind each convolution with constant float weights that has no batch norm behind it, gives no output of
 * the graph and is not frozen. `s` NULL: as for samples of mean 0 and variance 1, which changes what the
 * graph computes: for its size alone. On failure the graph is as it was. */
int norm_insert(struct graph *g, const struct samples *s, const struct frozen *frozen,
    const struct progress *p, struct norm_insert *ret, struct error *err);

/* Folds the inserted ones into their convolutions. */
int norm_insert_fold(struct norm_insert *n, struct graph *g, struct error *err);

/* Makes the graph what it was before norm_insert(). */
void norm_insert_undo(struct norm_insert *n, struct graph *g);

void norm_insert_done(struct norm_insert *n);

#endif
