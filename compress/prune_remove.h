/* Channels taken out of a graph: weights, biases and norms lose their parts, and what is written down about
 * numbers of channels (groups, Reshape's targets, Split's sizes, Slice's bounds, pads) follows. */
#ifndef COMPRESS_PRUNE_REMOVE_H
#define COMPRESS_PRUNE_REMOVE_H

#include "compress/coupling.h"

/* goes: [c->n], none that `c` gives a reason to stay; `c` is of `g` as it is. Layers keep their ids and
 * initialisers their names, unless other nodes read them, too. Errors: -ESTALE when the network that is left
 * has other shapes than the channels say (a shape that is computed does not follow them); `g` is then of no
 * use. */
int prune_remove(struct graph *g, const struct coupling *c, const bool *goes, struct error *err);

/* Of n elements, how many stay. */
int64_t prune_count_kept(const int *channel, int64_t n, const bool *goes);

#endif
