/* Which channels of a network are tied to one another, so that they can only go together (Fang et al. 2023,
 * DepGraph: towards any structural pruning; here on the ONNX graph).
 *
 *   conv a ──┐            unit 3 of a, of b and of what Add gives are one channel: rows 3 of both weights,
 *   conv b ──Add── conv c  their biases and norms, column 3 of c's weights
 *
 * Each value whose channels can be followed numbers them along one axis, or along neighbouring ones in
 * row-major order (a channel shuffle between its two Reshapes). Where channels meet they become one:
 *
 *   Add, Mul, … of two values         the same numbers, also broadcast [N,C,1,1] (squeeze-excite)
 *   depthwise convolution             input and outputs of one group
 *   grouped convolution               place p of all groups, inputs among themselves and outputs
 *   Concat, Split, Slice, Pad         an offset
 *   Flatten, Reshape, Squeeze, …      a run of features a channel; two axes: the first stays whole
 *   Transpose                         a permutation
 *
 * What cannot be followed (graph inputs and outputs, operators that mix channels) keeps its channels, with a
 * reason. */
#ifndef COMPRESS_COUPLING_H
#define COMPRESS_COUPLING_H

#include <stdbool.h>

#include "engine/graph.h"

/* A value's channels: element i of the axes first .. last, row-major, is of channel[i]. */
struct coupling_value {
    int rank; /* of the value */
    int first, last;
    int64_t n;    /* 0: not followed */
    int *channel; /* [n] */
};

enum coupling_role {
    COUPLING_ROW,    /* weights that make the channel */
    COUPLING_COLUMN, /* weights that read it */
    COUPLING_PARAM,  /* bias, norm, constant operand */
};

/* A constant of which a part belongs to each channel: index i of `axis` to channel[i]. */
struct coupling_site {
    int node, input, axis;
    enum coupling_role role;
    int64_t n;
    const int *channel; /* [n] */
};

struct coupling {
    int n;               /* channels; all tied to one another count as one */
    const char **reason; /* [n]: why it must stay; NULL: it may go */
    size_t n_values, n_sites;
    struct coupling_value *value; /* by value id */
    struct coupling_site *site;   /* in the order of nodes */
    struct shape *sample;         /* of the inputs, at which all this was found */
    struct coupling_block *blocks;
};

/* `g`: constants folded. `trusts_computed`: target shapes that the network computes are taken to follow the
 * channels; whether they do, shows when the shapes are inferred again. Errors: those of shapes_infer. */
int coupling_find(const struct graph *g, bool trusts_computed, struct coupling *ret, struct error *err);
void coupling_done(struct coupling *c);

/* The layer's own channels: the site of its rows; NULL: not followed. */
const struct coupling_site *coupling_rows(const struct coupling *c, int node);

#endif
