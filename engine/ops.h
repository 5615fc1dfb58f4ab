/* Operators: one row each, at the end of its family's file in engine/ops/, and one line in the sorted table
 * of ops.c. Nothing else in the tree names an operator: pruning, quantising, planning and counting walk the
 * fields of the row.
 *
 * Life of a node: parse (once, at load) → shape (at each plan; every check lives here) → forward (cannot
 * fail). The forward function is the reference: plain C in LAYOUT_PLAIN, correct before fast. Fast versions
 * are kernels (kernel/kernel.h) and must agree with it. */
#ifndef ENGINE_OPS_H
#define ENGINE_OPS_H

#include "engine/graph.h"

struct op_cost {
    int64_t macs;
    int64_t bytes; /* read and written, weights included */
};

/* What a layer's quantisation may do with scales. */
enum op_quant {
    OP_QUANT_FLOAT, /* float only: its inputs and outputs stay float */
    OP_QUANT_OWN,   /* output has its own scale (Conv, Add, …) */
    OP_QUANT_SAME,  /* inputs and outputs share one scale (MaxPool, Concat, Reshape, nearest Resize, …) */
};

/* How channels (dimension 1) of inputs and outputs are tied: what pruning needs. */
enum op_couple {
    OP_COUPLE_NONE, /* no channel structure goes through: a pruned channel may not cross it */
    OP_COUPLE_SAME, /* output channel i is made of input channel i of the first input (Relu, pools, BatchNorm)
                     */
    OP_COUPLE_JOIN, /* as SAME, and all non-constant inputs are tied to each other (Add, Mul) */
    OP_COUPLE_FREE, /* output channels are rows of the weight, input channels its columns (Conv, Gemm, MatMul)
                     */
    OP_COUPLE_CONCAT,  /* output channels are the inputs' one after the other */
    OP_COUPLE_FLATTEN, /* channel i becomes a run of features */
};

/* Which values backward needs from forward. */
enum op_saves {
    OP_SAVES_NONE = 0,
    OP_SAVES_IN = 1,
    OP_SAVES_OUT = 2,
};

/* Memory layouts forward accepts. OP_LAYOUT_ANY: elementwise over memory, all tensors of one shape and
 * layout; a planner may run it in any layout. */
enum op_layouts {
    OP_LAYOUT_PLAIN,
    OP_LAYOUT_ANY,
};

/* The gradient: d_in[i] += …, NULL where not wanted; in and out as in forward, d_out[o] given for every
 * output that has a consumer, NULL data for the others. */
typedef void op_backward_fn(const struct node *n, const struct tensor *const *in, const struct tensor *out,
    const struct tensor *d_out, struct tensor *const *d_in, void *scratch);

struct op {
    const char *name;   /* ONNX op_type */
    const char *domain; /* "" */
    int since, until;   /* opsets of the ONNX domain it can execute, both included */
    int min_in, max_in, min_out, max_out;

    /* Attributes to node->param (graph_alloc). NULL: no attributes. */
    int (*parse)(struct graph *g, struct node *n, struct error *err);

    /* Output types and shapes (dtype, shape of out[]; data untouched). in[i] is NULL for an input left out;
     * in[i]->data is set when the value is constant. Checks everything forward relies on; -EAGAIN with no
     * error set: needs the value of an input that is not known yet. Errors: invalid_model or shape_mismatch,
     * without the node's name (the caller prefixes it). */
    int (*shape)(const struct node *n, const struct tensor *const *in, struct tensor *out, struct error *err);

    /* Bytes of scratch forward needs; NULL: none. */
    size_t (*scratch)(const struct node *n, const struct tensor *const *in, const struct tensor *out);

    /* Computes out[]->data. All data aligned to 64 bytes; outputs never overlap inputs unless `inplace`. */
    void (*forward)(const struct node *n, const struct tensor *const *in, struct tensor *out, void *scratch);

    op_backward_fn *backward; /* NULL: not trainable */
    size_t (*backward_scratch)(const struct node *n, const struct tensor *const *in,
        const struct tensor *out); /* bytes backward needs; NULL: none */

    void (*cost)(
        const struct node *n, const struct tensor *const *in, const struct tensor *out, struct op_cost *ret);

    unsigned params; /* bits 1u << i of the inputs that training learns when they are initialisers (weights,
                        biases, scales of norms) */
    unsigned stats;  /* … that it keeps as running statistics */
    unsigned saves;  /* enum op_saves bits */
    enum op_couple couple;
    enum op_quant quant;
    enum op_layouts layouts;
    bool is_clamp; /* is_unary and y = min(max(x, low), high): vanishes in the requantisation before it */
    bool is_unary; /* y[i] = f(x[i]): may be a post-op, a 256-entry table in int8, may run in place */
    bool reads_shape_only; /* forward reads its inputs' shapes, not their data (Shape, Size) */
    bool sees_codes;       /* takes or gives the stored integers of a quantised value (QuantizeLinear,
                              DequantizeLinear) */
    bool is_counted; /* how much there is depends on data: shape() says the most, forward sets out[].shape to
                        what it found */
    bool is_view; /* the output has the input's elements in the same order (Reshape, Flatten, Identity, …) */
};

extern const struct op *const op_table[];
extern const size_t op_table_size;

/* NULL: unknown. Picks the row by name and domain; the caller compares opset with since/until. */
const struct op *op_find(const char *domain, const char *name);

#endif
