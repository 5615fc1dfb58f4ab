/* Types and shapes of every value of a graph at concrete input shapes. Values that follow from constants and
 * shapes alone (shape subgraphs: Shape, Gather, Concat …, and small folded constants) are computed on the
 * way, so that Reshape, Resize, Slice and the like see them. The graph is not changed. */
#ifndef ENGINE_SHAPE_INFER_H
#define ENGINE_SHAPE_INFER_H

#include "engine/graph.h"

struct shapes {
    size_t n;             /* the graph's n_values */
    struct tensor *value; /* by value id, LAYOUT_PLAIN; data: set when constant (initialisers point into the
                             file, unaligned; computed ones are aligned to 64 and owned here). A value no node
                             makes has rank -1 */
    bool *is_counted; /* by value id: the shape is the largest there may be (ops.h), its data are not known */
    void **blocks;    /* owned */
    size_t n_blocks, cap_blocks;
};

/* inputs[i] is for g->inputs[i]; must agree with the declared fixed dimensions. Errors: shape_mismatch naming
 * the input or the node, invalid_model. shapes_done in any case of success. */
int shapes_infer(const struct graph *g, const struct shape *inputs, struct shapes *ret, struct error *err);
void shapes_done(struct shapes *s);

/* Concrete shapes to try a graph with: free dimensions become `batch` (the first), and `side` (the others
 * of an image: dimensions 2 and up), 1 where neither fits. n_inputs shapes. */
void shapes_sample(const struct graph *g, int64_t batch, int64_t side, struct shape *ret);

/* Ranks and types as they are at some sample, for passes; false: the graph does not take it, or there is no
 * memory, and *ret is empty. */
bool shapes_guess(const struct graph *g, struct shapes *ret);

#endif
