/* Folding y' = mul y + add (per output channel) into a layer's weights and bias, whatever form they have:
 * dense float, or integers of any form behind DequantizeLinear, whose scales take the factor. */
#ifndef COMPRESS_AFFINE_H
#define COMPRESS_AFFINE_H

#include "engine/graph.h"

/* Can the layer take it: known weight form, output channels along one dimension (not ConvTranspose, whose
 * groups share theirs), and a bias it has or may have? */
bool affine_can_fold(const struct graph *g, int node);

/* Can it take a factor too? One scale for the layer, or one for blocks of inputs, cannot: mul is then taken
 * as 1. */
bool affine_can_scale(const struct graph *g, int node);

/* mul, add: [n], n output channels. Initialisers shared with other nodes are copied first. */
int affine_fold(struct graph *g, int node, const float *mul, const float *add, int64_t n, struct error *err);

#endif
