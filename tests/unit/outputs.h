/* How far the answers of two networks are from each other: their first outputs on the same samples. */
#ifndef TESTS_UNIT_OUTPUTS_H
#define TESTS_UNIT_OUTPUTS_H

#include "compress/samples.h"
#include "engine/graph.h"

/* |a - b| (L2) of all samples together. Fails the test when one of them does not run. */
double outputs_distance(const struct graph *a, const struct graph *b, const struct samples *s);

/* |a - b| / |b|. */
double outputs_relative_distance(const struct graph *a, const struct graph *b, const struct samples *s);

#endif
