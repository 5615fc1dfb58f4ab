/* A node's posts for our own float kernels: a residual, clamps, hard-swish and the like, applied to a vector
 * of results before it is stored. */
#ifndef ENGINE_KERNEL_POST_F32_H
#define ENGINE_KERNEL_POST_F32_H

#include "engine/kernel/kernel.h"

enum post_f32_kind {
    POST_F32_ADD,          /* v + residual */
    POST_F32_CLAMP,        /* min(max(v, a), b) */
    POST_F32_LEAKY,        /* v < 0 ? a v : v */
    POST_F32_HARD_SIGMOID, /* clamp(a v + b, 0, 1) */
    POST_F32_HARD_SWISH,   /* v clamp(v / 6 + 1 / 2, 0, 1) */
};

struct post_f32 {
    bool is_clamp; /* there is but one clamp, or nothing: min(max(v, low), high) is all there is to do */
    float low, high;
    int n;
    struct {
        enum post_f32_kind kind;
        float a, b;
    } step[NODE_MAX_POSTS];
};

/* False: there is one among them that it cannot do. */
bool post_f32_init(const struct layer *l, struct post_f32 *ret);

#endif
