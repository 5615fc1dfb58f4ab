/* Normalisations' parameters, for kernels and passes. */
#ifndef ENGINE_OPS_NORM_H
#define ENGINE_OPS_NORM_H

#include <stdbool.h>
#include <stdint.h>

struct batch_norm_param {
    float epsilon;
};

struct lrn_param {
    int64_t size;
    float alpha, beta, bias;
};

struct softmax_param {
    int64_t axis;
    bool is_flat; /* opset < 13: everything from the axis on is normalised together */
};

#endif
