/* What convolution, transposed convolution and fully connected layers share when oneDNN runs them on floats:
 * weights in the layout the library likes best, fixed by the net's first plan and taken by the later ones;
 * bias; posts. */
#ifndef ENGINE_KERNEL_LAYER_ONEDNN_H
#define ENGINE_KERNEL_LAYER_ONEDNN_H

#include "engine/kernel/kernel.h"
#include "engine/onednn.h"

union onednn_op_desc {
    dnnl_convolution_desc_t conv;
    dnnl_deconvolution_desc_t deconv;
    dnnl_inner_product_desc_t inner;
};

/* What one primitive computes of a layer: all of it, or one thread's part. */
struct layer_slice {
    struct shape in, out; /* of the part */
    size_t in_at, out_at; /* where it begins, in bytes */
    dnnl_memory_desc_t weights;
    size_t weights_at, bias_at;
    bool is_band; /* rows of an image, with this padding in their dimension */
    int64_t begin, end;
};

struct layer_onednn_spec {
    const char *kernel;         /* its name, for the keys of packs */
    dnnl_memory_desc_t weights; /* as kernel_copy_weights() lays them out: plain, with the library's dims */
    float weight_factor;        /* multiplies the weights */
    const struct tensor *bias;  /* constant f32; NULL: none */
    float bias_factor;
    int64_t n_bias; /* output channels; a bias of one element is repeated */
    /* The operation on a slice. */
    dnnl_status_t (*describe)(
        const struct layer *l, const struct layer_slice *slice, bool has_bias, union onednn_op_desc *ret);
    /* Narrows `slice`, the whole layer, to part `part` of `n_parts`; false: it cannot be cut so. */
    bool (*cut)(const struct layer *l, unsigned n_parts, unsigned part, struct layer_slice *slice);
    int64_t macs;
};

int layer_onednn_prepare(const struct layer *l, const struct layer_onednn_spec *spec,
    struct pack_cache *packs, struct kernel_state **ret, size_t *ret_scratch, struct error *err);
void layer_onednn_run(const struct kernel_state *s, const struct run_io *io);
struct kernel_state *layer_onednn_done(struct kernel_state *s);

/* Tensor i of the layer as floats in its layout. */
bool layer_onednn_is_f32(const struct layer *l);

#endif
