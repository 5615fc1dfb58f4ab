/* Pools' parameters, for kernels. */
#ifndef ENGINE_OPS_POOL_H
#define ENGINE_OPS_POOL_H

#include "engine/ops/window.h"

struct pool_param {
    struct window window;
    bool count_include_pad; /* AveragePool: padding counts in the divisor */
    bool is_column_major;   /* MaxPool: the indices run down the columns first */
    int norm;               /* LpPool: p */
};

int pool_place(const struct node *n, const struct shape *x, struct window_at *ret, struct error *err);

#endif
