/* Graph rewrites. The ONNX-level passes leave standard ONNX (compression methods use them too); the execution
 * passes mark nodes and values for the kernels (posts, weight forms, quantised values) and their graph is
 * never written. */
#ifndef ENGINE_PASS_H
#define ENGINE_PASS_H

#include "engine/graph.h"

struct pass {
    const char *name;
    bool is_onnx_level;
    int (*run)(struct graph *g, struct error *err);
};

extern const struct pass *const pass_table[]; /* in the order net_new runs them */
extern const size_t pass_table_size;

/* ONNX level */
int pass_fold_constants(
    struct graph *g, struct error *err); /* nodes all of whose inputs are constant; Constant nodes; not
                                            DequantizeLinear of weights and other compressed patterns */
int pass_remove_identities(
    struct graph *g, struct error *err); /* Identity, Dropout, no-op Cast/Pad/Reshape …, dead nodes */
int pass_expand_qlinear(struct graph *g, struct error *err); /* QLinearConv, QLinearMatMul → Q/DQ around the
                                                                layer */
int pass_global_pools(struct graph *g, struct error *err);   /* reductions over all pixels → global pools */
int pass_fold_batch_norm(
    struct graph *g, struct error *err); /* BatchNormalization, and constant Mul/Add/Sub/Div per
                                            channel, into the Conv, Gemm, ConvTranspose before it */
int pass_merge_pads(struct graph *g, struct error *err); /* Pad of zeros into the Conv or pool after it */

/* Networks of halves (float16, bfloat16) compute in floats: constants become floats, values between layers
 * are floats, inputs are cast before their use and outputs behind the last layer, so that the model's own
 * types stay. Nothing is rounded to a half in between, but where the file has a Cast to one: answers are
 * nearer to the float network's than those of arithmetic in halves. Weights of layers stay halves behind a
 * Cast (forms f16 and bf16), or with pass_widen_all become floats as well. Graphs without halves stay as they
 * are. */
int pass_widen(struct graph *g, struct error *err);
int pass_widen_all(struct graph *g, struct error *err);

/* After pass_widen, inputs and outputs of halves are floats, too. pass_restore_io gives those of such a graph
 * the types inputs[i] and outputs[i] again, where these are halves. */
int pass_float_io(struct graph *g, struct error *err);
int pass_restore_io(struct graph *g, const enum dtype *inputs, const enum dtype *outputs, struct error *err);

/* Dequantised weights become plain floats, Q/DQ pairs on activations go: the float network that a quantised
 * one stands for. Not among the passes a net runs. */
int pass_expand(struct graph *g, struct error *err);

/* Rewrites nodes whose operator changed meaning or form and sets the graph's opset; a higher one stays. */
int pass_raise_opset(struct graph *g, int64_t opset, struct error *err);

/* Execution level */
int pass_match_weights(struct graph *g, struct error *err); /* node->weight */
int pass_qdq(struct graph *g, struct error *err); /* Q/DQ around layers → values that travel as int8 */
int pass_fuse(
    struct graph *g, struct error *err); /* hard-swish spelled out, activations, residual Add → posts */
int pass_sign(struct graph *g, struct error *err); /* signs of activations → values that travel as bits */

/* The numbers of an activation node as a post has them (graph.h); false: no activation that pass_fuse knows,
 * or bounds that are not constant. */
bool fuse_read_numbers(const struct graph *g, const struct node *n, struct post *ret);

#endif
