/* Convolution's parameters, for kernels. */
#ifndef ENGINE_OPS_CONV_H
#define ENGINE_OPS_CONV_H

#include "engine/ops/window.h"

struct conv_param {
    struct window window;
    int64_t group;
    int64_t output_padding[WINDOW_MAX_DIMS]; /* ConvTranspose */
    int64_t output_shape[WINDOW_MAX_DIMS];   /* ConvTranspose; 0: not given */
};

int conv_parse(struct graph *g, struct node *n, struct error *err);

/* Where the windows of Conv (weights O I/g k…) or ConvTranspose (weights I O/g k…) lie. For ConvTranspose,
 * `in` and `out` are the transposed convolution's own input and output, begin/end its cropping. */
int conv_place(const struct node *n, const struct shape *x, const struct shape *w, struct window_at *ret,
    struct error *err);
int conv_transpose_place(const struct node *n, const struct shape *x, const struct shape *w,
    struct window_at *ret, struct error *err);

#endif
