/* Pools on floats, channels last, by oneDNN. */
#include <string.h>

#include "engine/kernel/rows.h"
#include "engine/kernel/simple_onednn.h"
#include "engine/kernel/window.h"

static bool is_op(const struct layer *l, const char *name) {
    return strcmp(l->node->op_type, name) == 0;
}

static bool is_max(const struct layer *l) {
    return is_op(l, "MaxPool") || is_op(l, "GlobalMaxPool");
}

static bool window_of(const struct layer *l, struct kernel_window *w) {
    const struct shape *in = &l->in[0]->shape;

    if (is_op(l, "MaxPool") || is_op(l, "AveragePool"))
        return kernel_window_read(l->node, in, &l->out[0].shape, NULL, w);
    *w = (struct kernel_window){.rank = in->rank - 2};
    for (int i = 0; i < w->rank && i < KERNEL_WINDOW_MAX; i++) {
        w->kernel[i] = in->dim[i + 2];
        w->stride[i] = w->dilation[i] = 1;
    }
    return w->rank >= 1 && w->rank <= KERNEL_WINDOW_MAX;
}

static bool pool_f32_fits(const struct cpu *cpu, const struct layer *l) {
    struct kernel_window w;

    (void)cpu;
    if (l->in[0]->dtype != DT_F32 || l->out[0].dtype != DT_F32 || l->in[0]->data || l->n_out != 1 ||
        !window_of(l, &w))
        return false;
    /* what ceil_mode adds beyond the padding is not counted in ONNX, but is by the library */
    if (node_attr_int(l->node, "count_include_pad", 0) && node_attr_int(l->node, "ceil_mode", 0))
        return false;
    for (int i = 0; i < w.rank; i++) {
        /* a window that lies in the padding altogether has no average */
        if (w.begin[i] >= w.kernel[i] * w.dilation[i] || w.end[i] >= w.kernel[i] * w.dilation[i] ||
            l->out[0].shape.dim[i + 2] < 1)
            return false;
    }
    return l->in[0]->shape.dim[0] > 0 && l->in[0]->shape.dim[1] > 0;
}

static int pool_f32_prepare(const struct layer *l, struct pack_cache *packs, struct kernel_state **ret,
    size_t *ret_scratch, struct error *err) {
    dnnl_dims_t kernel = {0}, stride = {0}, dilation = {0}, begin = {0}, end = {0};
    dnnl_alg_kind_t alg = dnnl_pooling_avg_exclude_padding;
    dnnl_memory_desc_t src, dst;
    dnnl_pooling_v2_desc_t d;
    struct kernel_window w;
    dnnl_status_t st;

    (void)packs;
    if (!window_of(l, &w) || !onednn_desc(&l->in[0]->shape, DT_F32, l->in_type[0].layout, &src) ||
        !onednn_desc(&l->out[0].shape, DT_F32, l->out_type[0].layout, &dst))
        return onednn_error(err, dnnl_invalid_arguments, "pool");
    if (is_max(l))
        alg = dnnl_pooling_max;
    else if (node_attr_int(l->node, "count_include_pad", 0))
        alg = dnnl_pooling_avg_include_padding;
    for (int i = 0; i < w.rank; i++) {
        kernel[i] = w.kernel[i];
        stride[i] = w.stride[i];
        dilation[i] = w.dilation[i] - 1;
        begin[i] = w.begin[i];
        end[i] = w.end[i] > 0 ? w.end[i] : 0;
    }
    st = dnnl_pooling_v2_forward_desc_init(
        &d, dnnl_forward_inference, alg, &src, &dst, stride, kernel, dilation, begin, end);
    if (st != dnnl_success)
        return onednn_error(err, st, "pool");
    return simple_onednn_prepare(l, &d, ret, ret_scratch, err);
}

const struct kernel kernel_pool_f32_onednn = {
    .name = "pool_f32_onednn",
    .op_types = (const char *const[]){"MaxPool", "AveragePool", "GlobalAveragePool", "GlobalMaxPool", NULL},
    .fits = pool_f32_fits,
    .layouts = {.in = 1u << LAYOUT_NHWC, .out = 1u << LAYOUT_NHWC},
    .prepare = pool_f32_prepare,
    .run = simple_onednn_run,
    .done = simple_onednn_done,
};
