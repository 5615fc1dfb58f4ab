/* Training kernels: how a node runs forward and backward in a minibatch that is cut into lanes. One row a
 * kernel, one line in the table of kernel.c, best first; the last, "reference", runs any operator that has a
 * `backward` (ops.h).
 *
 * A lane is a fixed share of the minibatch with memory of its own. Lanes run side by side on as many threads
 * as there are, each lane's numbers depend on that lane alone, and where lanes are combined (statistics of
 * batch norm, gradients of parameters) it is done in the order of lanes: the bytes do not depend on the
 * threads.
 *
 * Work goes in phases. Before the first phase of a node only its inputs (or, backward, the gradients of its
 * outputs) of the same lane are complete; before each further one every lane has done the phase before. A
 * kernel that needs sums over the whole minibatch writes its lane's into `shared` in one phase and adds all
 * lanes' up in the next.
 *
 * Values of rank 3 and more lie channels last (NHWC), all others plain. They are floats or, where the tape
 * chose so, bfloat16 (DT_BF16), as are their gradients. Parameters and their gradients are plain floats. */
#ifndef ENGINE_TRAIN_KERNEL_H
#define ENGINE_TRAIN_KERNEL_H

#include "engine/cpu.h"
#include "engine/graph.h"
#include "engine/onednn.h"
#include "engine/ops.h"

#define TRAIN_MAX_IO 64

/* What stands behind a node and is done in the same passes (rows with takes_tail). */
struct train_tail {
    int residual;    /* index in in[] of what is added to the output, -1: nothing */
    float low, high; /* the sum is clamped to these; infinite: not */
};

/* A node at a lane's shapes: what fits() and prepare() see. */
struct train_layer {
    const struct graph *graph;
    const struct node *node;
    int n_in, n_out;
    const struct tensor *const *in; /* data set when constant or a parameter; NULL: left out */
    const struct tensor *out;
    const bool *wants;     /* [n_in] is the gradient wanted? */
    const bool *is_param;  /* [n_in] */
    bool uses_batch_stats; /* batch norm normalises by the minibatch's own mean and variance */
    float momentum;        /* … and keeps this share of the running ones */
    unsigned n_lanes;
    struct train_tail tail;
    const struct cpu *cpu;
    bool reference; /* only the row that is so called */
    const struct onednn *onednn;
};

/* What a kernel needs, in bytes; filled by prepare(). */
struct train_needs {
    size_t scratch; /* a lane's, within one phase */
    size_t saved;   /* a lane's, from forward to backward */
    size_t shared;  /* all lanes' together, as long as the trainer lives */
    bool saves_out; /* backward of this layer reads out[], whatever the row says */
    int in_place;   /* the input that is_in_place speaks of */
};

/* Memory of one lane. */
struct train_io {
    unsigned lane;
    const void *const *in;
    void *const *out;
    const void *const *d_out; /* NULL: nothing came back through that output */
    void *const *d_in;        /* NULL: not wanted */
    const bool *adds;         /* [n_in] d_in holds a sum already: add to it; else it is to be written */
    void *const *stats; /* [n_in] of running statistics that this node keeps: to be written; else NULL */
    void *scratch, *saved, *shared;
};

struct train_state;

struct train_kernel {
    const char *name;
    const char *const *op_types; /* NULL-terminated; NULL: any */
    bool (*fits)(const struct train_layer *l);
    int (*prepare)(
        const struct train_layer *l, struct train_state **ret, struct train_needs *needs, struct error *err);
    /* Once a minibatch, before anything else, when in[] of the parameters has changed. NULL: nothing to do.
     */
    void (*pack)(const struct train_state *s, const void *const *in);
    int n_forward, n_backward; /* phases */
    void (*forward)(const struct train_state *s, const struct train_io *io, int phase);
    void (*backward)(const struct train_state *s, const struct train_io *io, int phase);
    struct train_state *(*done)(struct train_state *s);
    bool saves_in, saves_out; /* what backward reads of in[] (not parameters) and out[] */
    bool is_in_place;         /* out[0] may be the memory of in[0], d_in[0] of d_out[0] */
    bool takes_tail;          /* knows train_layer.tail */
};

extern const struct train_kernel *const train_kernel_table[];
extern const size_t train_kernel_table_size;

/* The row that runs this layer, prepared. Errors: -EOPNOTSUPP naming operator (code unsupported_operator). */
int train_kernel_pick(const struct train_layer *l, const struct train_kernel **ret_kernel,
    struct train_state **ret, struct train_needs *needs, struct error *err);

/* y = x, or y += x. */
void train_store(float *y, const float *x, int64_t n, bool adds);

/* Between channels last and plain, for a shape of rank 3 and more (others are copied); `adds` as above. */
void train_to_plain(const struct shape *s, const float *x, float *y, bool adds);
void train_from_plain(const struct shape *s, const float *x, float *y, bool adds);

/* … to bfloat16, of rank 3 and more. */
void train_from_plain_bf16(const struct shape *s, const float *x, uint16_t *y);

static inline int64_t train_count(const struct shape *s) {
    int64_t n = 0;

    (void)shape_count(s, &n);
    return n;
}

#endif
