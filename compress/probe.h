/* A probe runs a float graph over samples and shows chosen inner values: what calibration looks through. The
 * graph is run without fusing the values away: each probed value becomes an output of a copy of the graph. */
#ifndef COMPRESS_PROBE_H
#define COMPRESS_PROBE_H

#include "compress/progress.h"
#include "compress/samples.h"
#include "engine/graph.h"

/* Called once per batch and probed value k (index into `values`); x is float, plain layout, first dimension
 * the batch. */
typedef void probe_fn(void *ctx, size_t k, const struct tensor *x);

/* Runs all samples through `g` (one input) in batches; values[] are value ids of g. */
int probe_run(const struct graph *g, const int *values, size_t n_values, const struct samples *s,
    const struct progress *p, probe_fn *fn, void *ctx, struct error *err);

#endif
