/* oneDNN (Debian's 2.6.3) behind few functions: engine and stream of a net; primitives with user scratchpads
 * and the memory objects to run them from many threads at once.
 *
 * Every calling thread computes with one OpenMP thread (kernels are built for the number of threads that is
 * set when the primitive descriptor is made, so it is set before that too). An implementation whose name
 * says "ref" is refused with -EOPNOTSUPP: the caller's next choice is better than it. */
#ifndef ENGINE_ONEDNN_H
#define ENGINE_ONEDNN_H

#include <dnnl.h>
#include <stdatomic.h>

#include "base/error.h"
#include "engine/graph.h"

struct onednn {
    dnnl_engine_t engine;
    dnnl_stream_t stream;
    atomic_size_t n_prims; /* alive: their memory is counted by it */
};

int onednn_new(struct onednn **ret, struct error *err);
struct onednn *onednn_free(struct onednn *o);

/* Sets this thread's OpenMP team to one. */
void onednn_enter(void);

/* Status to errno and sentence: -ENOMEM, -EOPNOTSUPP (unimplemented, invalid arguments) or -EIO. */
int onednn_error(struct error *err, dnnl_status_t st, const char *what);

/* Descriptor of a tensor in its layout; false: layout or type is not oneDNN's. */
bool onednn_desc(const struct shape *s, enum dtype t, enum layout l, dnnl_memory_desc_t *ret);

/* A primitive and how its arguments are described. */
#define ONEDNN_MAX_ARGS 12

struct onednn_prim;

/* `op_desc`: dnnl_convolution_desc_t and the like; attr may be NULL (a scratchpad is always the user's).
 * `args`: the DNNL_ARG_* run will give, except the scratchpad; their descriptors are queried, except those of
 * binary post-ops, given in `post_desc` (in order of the DNNL_ARG_ATTR_MULTIPLE_POST_OP arguments). */
int onednn_prim_new(const struct onednn *o, const void *op_desc, const_dnnl_primitive_attr_t attr,
    const int *args, int n_args, const dnnl_memory_desc_t *post_desc, struct onednn_prim **ret,
    struct error *err);
/* A primitive of backward propagation; `forward` is the one that it belongs to. */
int onednn_prim_new_backward(const struct onednn *o, const void *op_desc, const struct onednn_prim *forward,
    const int *args, int n_args, struct onednn_prim **ret, struct error *err);

/* A copy between descriptors that is made again and again; args: DNNL_ARG_FROM, DNNL_ARG_TO. */
int onednn_reorder_new(const struct onednn *o, const dnnl_memory_desc_t *from, const dnnl_memory_desc_t *to,
    struct onednn_prim **ret, struct error *err);

struct onednn_prim *onednn_prim_free(struct onednn_prim *p);
size_t onednn_prim_scratch(const struct onednn_prim *p);
const char *onednn_prim_name(const struct onednn_prim *p);
/* Descriptor of argument `arg`, as the primitive wants it. */
const dnnl_memory_desc_t *onednn_prim_desc(const struct onednn_prim *p, int arg);

/* data[i] belongs to args[i] of onednn_prim_new. From any thread. */
void onednn_prim_run(const struct onednn_prim *p, void *const *data, void *scratch);

/* Copies between descriptors (packing weights; not for the running of layers). */
int onednn_reorder(const struct onednn *o, const dnnl_memory_desc_t *from_desc, const void *from,
    const dnnl_memory_desc_t *to_desc, void *to, struct error *err);

/* A dense matrix by rows, or its transpose. */
struct onednn_matrix {
    const float *data;
    int64_t row; /* elements from one row to the next, as it lies in memory */
    bool is_transposed;
};

/* y[m][n] = alpha a[m][k] b[k][n] + beta y; rows of y are n apart. One thread. */
void onednn_product(const struct onednn_matrix *a, const struct onednn_matrix *b, float alpha, float beta,
    int64_t m, int64_t k, int64_t n, float *y);

#endif
