/* The sliding window of a convolution or pool at concrete shapes, with the padding at the end that its output
 * really needs (oneDNN and our kernels want that; ONNX rounds). */
#ifndef ENGINE_KERNEL_WINDOW_H
#define ENGINE_KERNEL_WINDOW_H

#include "engine/graph.h"

#define KERNEL_WINDOW_MAX 3

struct kernel_window {
    int rank; /* spatial dimensions */
    int64_t kernel[KERNEL_WINDOW_MAX], stride[KERNEL_WINDOW_MAX], dilation[KERNEL_WINDOW_MAX];
    int64_t begin[KERNEL_WINDOW_MAX], end[KERNEL_WINDOW_MAX]; /* padding; `end` is negative when the last
                                                                 pixels are not read */
};

/* `weight`: shape of a convolution's weights, NULL for MaxPool and AveragePool. False: no such window. */
bool kernel_window_read(const struct node *n, const struct shape *in, const struct shape *out,
    const struct shape *weight, struct kernel_window *ret);

/* Of ConvTranspose: begin and end are what is cut off the full output. */
bool kernel_window_read_transposed(const struct node *n, const struct shape *in, const struct shape *out,
    const struct shape *weight, struct kernel_window *ret);

#endif
