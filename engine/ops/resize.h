/* Resize and Upsample at a concrete shape, for kernels. */
#ifndef ENGINE_OPS_RESIZE_H
#define ENGINE_OPS_RESIZE_H

#include "engine/ops.h"

enum resize_mode { RESIZE_NEAREST, RESIZE_LINEAR };
enum resize_coordinate { COORD_HALF_PIXEL, COORD_ASYMMETRIC, COORD_ALIGN_CORNERS, COORD_PYTORCH_HALF_PIXEL };
enum resize_round { ROUND_PREFER_FLOOR, ROUND_PREFER_CEIL, ROUND_FLOOR, ROUND_CEIL };

struct resize_param {
    enum resize_mode mode;
    enum resize_coordinate coordinate;
    enum resize_round round;
};

/* scale[d] as the file gives it or out/in. -EAGAIN: not known yet. */
int resize_place(
    const struct node *n, const struct tensor *const *in, struct shape *ret, float *scale, struct error *err);

/* The input coordinate of output index i along a dimension. */
float resize_source(const struct resize_param *p, int64_t i, float scale, int64_t in, int64_t out);

/* resize_source rounded as the node says and kept inside [0, in). */
int64_t resize_nearest(const struct resize_param *p, int64_t i, float scale, int64_t in, int64_t out);

#endif
