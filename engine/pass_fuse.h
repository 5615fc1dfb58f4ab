/* Inside of pass_fuse: hard-swish spelled out in parts, made one node (pass_swish.c), before activations
 * become posts (pass_fuse.c). */
#ifndef ENGINE_PASS_FUSE_H
#define ENGINE_PASS_FUSE_H

#include "engine/graph.h"

int pass_fuse_swish(struct graph *g, struct error *err);

/* The one number of a constant float value; false: it is something else. */
bool fuse_scalar(const struct graph *g, int value, float *ret);

/* Bounds of a Clip, from attributes or constant inputs; -inf and inf where left out. */
bool fuse_clip_bounds(const struct graph *g, const struct node *n, float *ret_low, float *ret_high);

#endif
