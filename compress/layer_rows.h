/* A layer on samples as a matrix: what its weights are multiplied with in one network, and what it gave in
 * another (its parent), at the same output pixels. */
#ifndef COMPRESS_LAYER_ROWS_H
#define COMPRESS_LAYER_ROWS_H

#include "compress/samples.h"
#include "engine/graph.h"

struct layer_rows {
    int64_t n, k, channels; /* n 0: the layer has not one row a sample */
    float *x;               /* [n][k]: of a convolution [channels of its input][taps], all groups */
    float *y;               /* [n][channels]: what the parent gave, before any activation */
    float *now;             /* [n][channels]: what the layer gives */
};

/* About `rows` of them, evenly from the samples; `weight`: shape of the layer's weights. Errors: those of
 * probe_run. */
int layer_rows_read(const struct graph *g, int node, const struct shape *weight, const struct graph *parent,
    int parent_value, const struct samples *samples, int64_t rows, struct layer_rows *ret, struct error *err);
void layer_rows_done(struct layer_rows *r);

#endif
