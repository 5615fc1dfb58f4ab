/* The sliding window of a convolution or pool, from a node's attributes and the concrete shapes. */
#ifndef ENGINE_KERNEL_WINDOW_H
#define ENGINE_KERNEL_WINDOW_H

#include "engine/graph.h"

#define WINDOW_MAX_RANK 3

struct window {
    int rank; /* spatial dimensions */
    int64_t kernel[WINDOW_MAX_RANK], stride[WINDOW_MAX_RANK], dilation[WINDOW_MAX_RANK];
    int64_t begin[WINDOW_MAX_RANK], end[WINDOW_MAX_RANK]; /* padding; `end` such that the output has its size,
                                                             negative when the last pixels are not read */
};

/* `weight`: shape of a convolution's weights, NULL for pools. False: more than three spatial dimensions, or
 * attributes that fit no window. */
bool window_read(const struct node *n, const struct shape *in, const struct shape *out,
    const struct shape *weight, struct window *ret);

/* For ConvTranspose, where `end` follows from the output the other way round. */
bool window_read_transposed(const struct node *n, const struct shape *in, const struct shape *out,
    const struct shape *weight, struct window *ret);

#endif
