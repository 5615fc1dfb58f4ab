/* Kernels: the fast ways to run a node. One row each in its own file, one line in the table of kernel.c, best
 * first; the first row that fits is the default. The last row of every list is the operator's own reference
 * forward.
 *
 * The contract of a value between layers is `struct vtype`: {dtype, layout, scale, zero}. NHWC is canonical
 * for images; every kernel lists the (in, out) layouts it takes, and the plan puts a visible conversion step
 * where two layers disagree. Stored integers mean scale * (q - zero).
 *
 * prepare() runs once per plan: it packs weights (through the net's pack cache, so that plans and slots share
 * them), creates primitives, and says how much scratch run() needs. run() is called by many threads at once
 * on one state, each with its own memory; it cannot fail.
 *
 * Tensors of a layer carry logical shapes (N C H W) and stored types. A quantised value (graph.h) has the
 * stored dtype in layer.in[i]->dtype and scale and zero point in in_type[i].quant; a kernel that computes on
 * integers looks at both in fits(). */
#ifndef ENGINE_KERNEL_KERNEL_H
#define ENGINE_KERNEL_KERNEL_H

#include "engine/cpu.h"
#include "engine/graph.h"
#include "engine/ops.h"
#include "engine/weight.h"

struct onednn;     /* onednn.h: the library's engine and stream of a net */
struct pack_cache; /* pack.h: packed weights of a net, shared by its plans */
struct pool;       /* pool.h: our own threads */

struct vtype {
    enum dtype dtype;
    enum layout layout;
    struct quant quant;
};

#define LAYER_MAX_IO 64

/* A node of the execution graph at concrete shapes: what fits() and prepare() see. */
struct layer {
    const struct graph *graph;
    const struct node *node;
    int n_in, n_out;
    const struct tensor *const *in; /* shape, dtype; data (perhaps unaligned) when constant, but of coded
                                       weights only node->weight; NULL: left out */
    const struct tensor *out;
    const struct vtype *in_type; /* as they will arrive; layout chosen by the plan from in_layouts */
    const struct vtype *out_type;
    const int *in_count, *out_count; /* places of shapes that only a run knows, -1: known (counted.c alone) */
    const struct tensor *post_in;    /* the residual operands of posts, in order of node->post; those without
                                        one are left empty */
    const struct vtype *post_type;
    int in_place_post;  /* the post whose residual lies in the output's memory (prepare and run only), -1 */
    unsigned n_threads; /* the pool run() may split over; 1: none */
    bool is_compact;    /* policy memory: packed weights stay as small as their form, whatever that costs */
    const struct cpu *cpu;
    struct onednn *onednn;
};

struct run_io {
    const void *const *in;
    void *const *out;
    const void *const *post_in;
    void *scratch;
    struct shape *shapes; /* of this run, by layer.in_count and out_count */
    struct pool *pool;    /* NULL when n_threads is 1 */
};

/* Layout sets are bits 1u << enum layout. */
struct layouts {
    unsigned in;  /* acceptable for the inputs that are not constant; all of them arrive in the same one */
    unsigned out; /* what it can write; the same as `in` unless `free_out` */
    bool free_out;
};

struct kernel_state; /* each kernel's own; begins with nothing in common */

struct kernel {
    const char *name;            /* what, type, instruction set or library: "conv_f32_onednn" */
    const char *const *op_types; /* NULL-terminated operators it runs; NULL: any */
    bool (*fits)(const struct cpu *cpu, const struct layer *l);
    struct layouts layouts;
    unsigned max_posts;    /* a node with more posts does not reach fits() */
    bool reads_constants;  /* run() wants io.in[] of constant inputs (aligned copies); otherwise prepare()
                              packs  them and io.in[] is NULL */
    bool can_run_in_place; /* out[0] may be the memory of in[0] */
    bool takes_counts;     /* runs the nodes with shapes that only a run knows, and no others */
    bool skips_zeros;      /* its time depends on how many weights are zero */
    bool can_sum_in_place; /* out[0] may be the memory of a residual */
    int (*prepare)(const struct layer *l, struct pack_cache *packs, struct kernel_state **ret,
        size_t *ret_scratch, struct error *err);
    void (*run)(const struct kernel_state *s, const struct run_io *io);
    struct kernel_state *(*done)(struct kernel_state *s);
    bool is_reference;
};

/* Conversions between forms of a value: layer.node is NULL, one input, one output of the same shape. */
extern const struct kernel *const kernel_convert_table[];
extern const size_t kernel_convert_table_size;

extern const struct kernel *const kernel_table[];
extern const size_t kernel_table_size;

#endif
