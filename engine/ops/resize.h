/* Resize and Upsample at a concrete shape, for kernels. */
#ifndef ENGINE_OPS_RESIZE_H
#define ENGINE_OPS_RESIZE_H

#include "engine/ops.h"

enum resize_mode { RESIZE_NEAREST, RESIZE_LINEAR, RESIZE_CUBIC };
enum resize_coordinate {
    COORD_HALF_PIXEL,
    COORD_ASYMMETRIC,
    COORD_ALIGN_CORNERS,
    COORD_PYTORCH_HALF_PIXEL,
    COORD_HALF_PIXEL_SYMMETRIC,
    COORD_CROP, /* tf_crop_and_resize: a part of the input, given by the roi */
};
enum resize_round { ROUND_PREFER_FLOOR, ROUND_PREFER_CEIL, ROUND_FLOOR, ROUND_CEIL };
enum resize_policy { POLICY_STRETCH, POLICY_NOT_LARGER, POLICY_NOT_SMALLER };

struct resize_param {
    enum resize_mode mode;
    enum resize_coordinate coordinate;
    enum resize_round round;
    enum resize_policy policy; /* what sizes mean: the picture keeps its proportions within or around them */
    bool is_antialias;         /* when shrinking, the filter is as wide as the pixels that become one */
    bool excludes_outside;     /* taps outside of the input do not count */
    float cubic_a;             /* Keys' coefficient */
    float extrapolation;       /* the value of what a crop reads outside of the input */
    const int64_t *axes;       /* of sizes, scales and roi; NULL: all in order */
    size_t n_axes;
};

/* scale[d] as the file gives it or out/in. -EAGAIN: not known yet. */
int resize_place(
    const struct node *n, const struct tensor *const *in, struct shape *ret, float *scale, struct error *err);

/* One dimension. */
struct resize_axis {
    const struct resize_param *param;
    int64_t in, out;
    float scale, start, end; /* start and end of the crop as parts of the input */
};

/* Nearest or linear from two neighbours a dimension: resize_source and resize_nearest say all there is. */
bool resize_is_plain(const struct resize_param *p);

/* The input coordinate of output index i along a dimension; not for COORD_CROP. */
float resize_source(const struct resize_param *p, int64_t i, float scale, int64_t in, int64_t out);

/* resize_source rounded as the node says and kept inside [0, in). */
int64_t resize_nearest(const struct resize_param *p, int64_t i, float scale, int64_t in, int64_t out);

/* The input elements output index i is made of, and their weights, which sum to 1. Their number, at most
 * resize_max_taps(); 0: outside of the input, the extrapolation value. */
int64_t resize_max_taps(const struct resize_axis *a);
int64_t resize_taps(const struct resize_axis *a, int64_t i, int64_t *index, float *weight);

#endif
