/* Gemm and MatMul with constant weights, as oneDNN's inner product: y[n][oc] = x[n][ic] W[oc][ic]^T + b. */
#include <string.h>

#include "engine/kernel/layer_onednn.h"
#include "engine/kernel/post_onednn.h"
#include "engine/kernel/rows.h"
#include "engine/kernel/weights.h"

static bool is_gemm(const struct layer *l) {
    return strcmp(l->node->op_type, "Gemm") == 0;
}

static bool is_transposed(const struct layer *l) {
    return is_gemm(l) && node_attr_int(l->node, "transB", 0) != 0;
}

static const struct tensor *bias_of(const struct layer *l) {
    return is_gemm(l) && l->n_in > 2 ? l->in[2] : NULL;
}

/* Rows of x and y: all dimensions but the last. */
static bool rows_of(const struct shape *s, int64_t *ret) {
    struct shape rows = *s;

    if (rows.rank < 2)
        return false;
    rows.rank--;
    return shape_count(&rows, ret) && *ret > 0;
}

static bool bias_fits(const struct tensor *b, int64_t oc) {
    int64_t n;

    if (!b)
        return true;
    return b->data && b->dtype == DT_F32 && shape_count(&b->shape, &n) &&
           (n == 1 || (n == oc && b->shape.dim[b->shape.rank - 1] == oc));
}

static bool gemm_f32_fits(const struct cpu *cpu, const struct layer *l) {
    const struct shape *w;
    int64_t rows, oc;

    (void)cpu;
    if (!layer_onednn_is_f32(l) || !kernel_has_weights(l) || l->in[0]->data ||
        (is_gemm(l) && node_attr_int(l->node, "transA", 0) != 0))
        return false;
    w = kernel_weight_shape(l);
    if (w->rank != 2 || w->dim[0] < 1 || w->dim[1] < 1 || !rows_of(&l->in[0]->shape, &rows))
        return false;
    oc = w->dim[is_transposed(l) ? 0 : 1];
    if (!bias_fits(bias_of(l), oc))
        return false;
    for (int i = 0; i < l->node->n_post; i++) {
        if (l->node->post[i].other >= 0 && l->out[0].shape.rank != 2)
            return false;
    }
    return post_onednn_fits(l);
}

/* Slices are of the matrices x[rows][ic] and y[rows][oc], whatever the tensors' ranks. */
static dnnl_status_t gemm_f32_describe(
    const struct layer *l, const struct layer_slice *slice, bool has_bias, union onednn_op_desc *ret) {
    dnnl_memory_desc_t src, dst, bias;
    dnnl_dims_t src_dims = {0}, dst_dims = {0},
                dst_strides = {l->out[0].shape.dim[l->out[0].shape.rank - 1], 1};
    dnnl_dims_t oc = {slice->weights.dims[0]};
    int64_t rows = 0;
    dnnl_status_t st;

    if (!rows_of(&l->in[0]->shape, &rows))
        return dnnl_invalid_arguments;
    src_dims[0] = dst_dims[0] = rows;
    src_dims[1] = slice->weights.dims[1];
    dst_dims[1] = slice->weights.dims[0];
    st = dnnl_memory_desc_init_by_tag(&src, 2, src_dims, dnnl_f32, dnnl_ab);
    if (st == dnnl_success)
        st = dnnl_memory_desc_init_by_strides(&dst, 2, dst_dims, dnnl_f32, dst_strides);
    if (st == dnnl_success)
        st = dnnl_memory_desc_init_by_tag(&bias, 1, oc, dnnl_f32, dnnl_a);
    if (st != dnnl_success)
        return st;
    return dnnl_inner_product_forward_desc_init(
        &ret->inner, dnnl_forward_inference, &src, &slice->weights, has_bias ? &bias : NULL, &dst);
}

/* Output columns of one row, in multiples of the weights' blocks. */
static bool gemm_f32_cut(const struct layer *l, unsigned n_parts, unsigned part, struct layer_slice *s) {
    const dnnl_blocking_desc_t *b = &s->weights.format_desc.blocking;
    int64_t block = 1, all, first, last, rows = 0;

    if (!rows_of(&l->in[0]->shape, &rows) || rows != 1 || s->weights.format_kind != dnnl_blocked ||
        s->out.rank != 2)
        return false;
    for (int i = 0; i < b->inner_nblks; i++)
        block *= b->inner_idxs[i] == 0 ? b->inner_blks[i] : 1;
    all = s->weights.padded_dims[0] / block;
    first = all * part / n_parts;
    last = all * (part + 1) / n_parts;
    if (first == last)
        return false;
    s->weights_at = (size_t)(first * b->strides[0]) * sizeof(float);
    s->bias_at = s->out_at = (size_t)(first * block) * sizeof(float);
    if (last < all)
        s->weights.dims[0] = s->weights.padded_dims[0] = (last - first) * block;
    else {
        s->weights.dims[0] -= first * block;
        s->weights.padded_dims[0] -= first * block;
    }
    s->out.dim[1] = s->weights.dims[0];
    return true;
}

static int gemm_f32_prepare(const struct layer *l, struct pack_cache *packs, struct kernel_state **ret,
    size_t *ret_scratch, struct error *err) {
    const struct shape *w = kernel_weight_shape(l);
    bool t = is_transposed(l);
    dnnl_dims_t dims = {t ? w->dim[0] : w->dim[1], t ? w->dim[1] : w->dim[0]};
    dnnl_dims_t strides = {t ? w->dim[1] : 1, t ? 1 : w->dim[1]};
    struct layer_onednn_spec spec = {
        .kernel = "gemm_f32_onednn",
        .weight_factor = is_gemm(l) ? node_attr_float(l->node, "alpha", 1) : 1,
        .bias = bias_of(l),
        .bias_factor = is_gemm(l) ? node_attr_float(l->node, "beta", 1) : 1,
        .n_bias = dims[0],
        .describe = gemm_f32_describe,
        .cut = gemm_f32_cut,
    };
    int64_t rows = 0;
    dnnl_status_t st = dnnl_memory_desc_init_by_strides(&spec.weights, 2, dims, dnnl_f32, strides);

    if (st != dnnl_success)
        return onednn_error(err, st, spec.kernel);
    if (rows_of(&l->in[0]->shape, &rows))
        spec.macs = rows * dims[0] * dims[1];
    return layer_onednn_prepare(l, &spec, packs, ret, ret_scratch, err);
}

const struct kernel kernel_gemm_f32_onednn = {
    .name = "gemm_f32_onednn",
    .op_types = (const char *const[]){"Gemm", "MatMul", NULL},
    .fits = gemm_f32_fits,
    .layouts = {.in = 1u << LAYOUT_PLAIN, .out = 1u << LAYOUT_PLAIN},
    .max_posts = NODE_MAX_POSTS,
    .can_sum_in_place = true,
    .prepare = gemm_f32_prepare,
    .run = layer_onednn_run,
    .done = layer_onednn_done,
};
