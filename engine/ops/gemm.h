#ifndef ENGINE_OPS_GEMM_H
#define ENGINE_OPS_GEMM_H

#include <stdbool.h>

/* Y = alpha A' B' + beta C; A' is A or its transpose. */
struct gemm_param {
    float alpha, beta;
    bool trans_a, trans_b;
};

#endif
