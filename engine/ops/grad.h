/* Gradients of the operators: the `backward` of the rows. Plain C in LAYOUT_PLAIN, like `forward`; what a
 * fast training step computes must agree with them, and they with finite differences
 * (tests/unit/test_grad.c).
 *
 * All of them add: d_in[i] += the derivative of the loss by in[i], given d_out[o] = its derivative by out[o].
 * A d_in[i] of NULL is not wanted. Where a function has a kink (Relu at 0, Clip at its bounds, equal maxima)
 * the choice is PyTorch's. */
#ifndef ENGINE_OPS_GRAD_H
#define ENGINE_OPS_GRAD_H

#include "engine/ops.h"

op_backward_fn average_pool_backward, global_average_backward, global_max_backward, max_pool_backward;
op_backward_fn norm_pool_backward, global_norm_backward;
op_backward_fn batch_norm_backward; /* mean and variance are inputs like the others: the inference formula */
op_backward_fn binary_backward, variadic_backward, where_backward;
op_backward_fn conv_backward, conv_transpose_backward, gemm_backward, matmul_backward;
op_backward_fn lrn_backward, softmax_backward;
op_backward_fn layer_norm_backward, group_norm_backward, length_backward, variance_backward;
size_t variance_backward_scratch(
    const struct node *n, const struct tensor *const *in, const struct tensor *out);
op_backward_fn reduce_backward;
op_backward_fn unary_backward; /* of the data, not of Clip's bounds */

/* Of an operator that only moves, repeats or leaves out the elements of its first input (Concat: of all):
 * forward runs on their numbers and tells where each went. */
op_backward_fn move_backward;
size_t move_backward_scratch(const struct node *n, const struct tensor *const *in, const struct tensor *out);

/* The same elements in the same order. */
op_backward_fn view_backward;

#endif
