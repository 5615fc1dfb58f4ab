/* Sliding windows: what convolutions and pools share. Dimensions are the spatial ones, in order (H, W for
 * images). */
#ifndef ENGINE_OPS_WINDOW_H
#define ENGINE_OPS_WINDOW_H

#include "engine/ops.h"

#define WINDOW_MAX_DIMS 3

enum auto_pad { AUTO_PAD_NOTSET, AUTO_PAD_SAME_UPPER, AUTO_PAD_SAME_LOWER, AUTO_PAD_VALID };

struct window {
    int n_kernel, n_stride, n_dilation, n_pad; /* how many the attributes give; 0: default */
    int64_t kernel[WINDOW_MAX_DIMS];
    int64_t stride[WINDOW_MAX_DIMS];
    int64_t dilation[WINDOW_MAX_DIMS];
    int64_t pad[2 * WINDOW_MAX_DIMS]; /* ONNX: all begins, then all ends */
    enum auto_pad auto_pad;
    bool ceil_mode;
};

/* kernel_shape, strides, dilations, pads, auto_pad, ceil_mode. */
int window_parse(const struct node *n, struct window *ret, struct error *err);

/* A window at concrete sizes: everything filled for `dims` dimensions. */
struct window_at {
    int dims;
    int64_t in[WINDOW_MAX_DIMS], out[WINDOW_MAX_DIMS];
    int64_t kernel[WINDOW_MAX_DIMS], stride[WINDOW_MAX_DIMS], dilation[WINDOW_MAX_DIMS];
    int64_t begin[WINDOW_MAX_DIMS], end[WINDOW_MAX_DIMS]; /* padding */
};

/* x: N C spatial…; kernel: the spatial sizes, NULL: from the attributes. */
int window_place(const struct window *w, const struct shape *x, const int64_t *kernel, struct window_at *ret,
    struct error *err);

/* The same window with three dimensions; missing leading ones are 1. */
struct window_at window_to_3d(const struct window_at *at);

#endif
