/* A sparse convolution or fully connected layer at concrete shapes: panels, parts for threads, scratch. */
#ifndef ENGINE_KERNEL_SPARSE_LAYER_H
#define ENGINE_KERNEL_SPARSE_LAYER_H

#include "engine/kernel/conv_geometry.h"
#include "engine/kernel/sparse_pack.h"

/* False: not a layer of this kind, or of other weights. */
bool sparse_conv_shape(
    const struct layer *l, int per_dword, struct conv_geometry *g, struct sparse_shape *sh);
bool sparse_gemm_shape(
    const struct layer *l, int per_dword, struct conv_geometry *g, struct sparse_shape *sh);

struct sparse_spec {
    const struct sparse_isa *isa;
    struct conv_geometry g;
    struct sparse_shape sh;
    struct sparse_weights w;
    bool is_s8;
    struct s8_output out; /* int8 only */
};

int sparse_layer_prepare(const struct layer *l, const struct sparse_spec *spec, struct kernel_state **ret,
    size_t *ret_scratch, struct error *err);
void sparse_layer_run(const struct kernel_state *s, const struct run_io *io);
struct kernel_state *sparse_layer_done(struct kernel_state *s);

#endif
