/* The normal form methods work on: constants, identities, batch norm and paddings folded; still standard
 * ONNX. */
#ifndef COMPRESS_FOLD_H
#define COMPRESS_FOLD_H

#include "engine/graph.h"

int fold_graph(struct graph *g, struct error *err);
/* The same with batch norm left where it is. */
int fold_but_norms(struct graph *g, struct error *err);

/* Finds the type and rank of every value, by inference for an input of shape `input`; sizes stay free. */
int fold_infer_shapes(struct graph *g, const struct shape *input, struct error *err);

#endif
