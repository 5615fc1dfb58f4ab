/* What the normalisations by an input's own statistics and their gradients share. */
#ifndef ENGINE_OPS_LAYER_NORM_H
#define ENGINE_OPS_LAYER_NORM_H

#include "engine/ops.h"

/* InstanceNormalization, GroupNormalization: instances are groups of one channel. */
struct group_param {
    float epsilon;
    int64_t groups;         /* 0: each channel */
    bool scales_are_groups; /* opset 18 to 20: one scale and bias a group, not a channel */
};

/* MeanVarianceNormalization: axes as bits; ONNX's default is all but the channels of an image. */
int variance_axes(const struct node *n, int rank, unsigned *ret, struct error *err);

/* Index among the results of the element i, whose coordinates on `axes` do not count; how many there are. */
int64_t variance_group_of(const struct shape *s, unsigned axes, int64_t i);
int64_t variance_count_groups(const struct shape *s, unsigned axes);

#endif
