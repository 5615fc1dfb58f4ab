/* Elementwise functions of one value: y[i] = f(x[i]). Kernels read the parameters for post-ops. */
#ifndef ENGINE_OPS_UNARY_H
#define ENGINE_OPS_UNARY_H

#include "engine/ops.h"

/* alpha, beta: Clip's bounds, LeakyRelu's slope, HardSigmoid's line, …; an operator without leaves them 0. */
struct unary_param {
    float alpha, beta;
};

#endif
