/* How many numbers of a constant are not zero: what pruning brings, and what it costs to keep. */
#ifndef ENGINE_NONZERO_H
#define ENGINE_NONZERO_H

#include "engine/graph.h"

/* Of a value that is an initialiser, or a DequantizeLinear of one (then: other than its zero point). -1: it
 * cannot be told without computing. */
int64_t nonzero_count(const struct graph *g, int value);

#endif
