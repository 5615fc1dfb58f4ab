#ifndef ENGINE_OPS_GEMM_H
#define ENGINE_OPS_GEMM_H

#include <stdbool.h>

#include "engine/tensor.h"

/* Y = alpha A' B' + beta C; A' is A or its transpose. */
struct gemm_param {
    float alpha, beta;
    bool trans_a, trans_b;
};

/* Matrices of MatMul's operands: a vector is a row on the left, a column on the right. */
struct matmul {
    int64_t m, k, n;
    struct shape batch; /* broadcast leading dimensions */
};

int matmul_sizes(const struct shape *a, const struct shape *b, struct matmul *ret, struct error *err);

/* Offset of the matrix for batch index i of an operand with leading dimensions broadcast to `batch`. */
int64_t matmul_offset(const struct shape *t, const struct shape *batch, int64_t i, int64_t matrix);

#endif
