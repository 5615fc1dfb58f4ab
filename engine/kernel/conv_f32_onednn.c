/* Conv and ConvTranspose on floats, channels last, by oneDNN: groups, depthwise, dilation, any padding. */
#include <string.h>

#include "engine/kernel/layer_onednn.h"
#include "engine/kernel/post_onednn.h"
#include "engine/kernel/rows.h"
#include "engine/kernel/weights.h"
#include "engine/kernel/window.h"

static bool is_transposed(const struct layer *l) {
    return strcmp(l->node->op_type, "ConvTranspose") == 0;
}

static const struct tensor *bias_of(const struct layer *l) {
    return l->n_in > 2 ? l->in[2] : NULL;
}

static bool window_of(const struct layer *l, struct kernel_window *w) {
    const struct shape *weight = kernel_weight_shape(l);

    return is_transposed(l)
               ? kernel_window_read_transposed(l->node, &l->in[0]->shape, &l->out[0].shape, weight, w)
               : kernel_window_read(l->node, &l->in[0]->shape, &l->out[0].shape, weight, w);
}

/* The library generates code for the padding, step by step, and counts in 32 bits. */
#define MAX_STEPS 4096

static bool is_small(const struct kernel_window *w) {
    for (int i = 0; i < w->rank; i++)
        if (w->begin[i] > MAX_STEPS || w->end[i] > MAX_STEPS || w->stride[i] > MAX_STEPS ||
            w->dilation[i] > MAX_STEPS)
            return false;
    return true;
}

static bool conv_f32_fits(const struct cpu *cpu, const struct layer *l) {
    const struct tensor *bias = bias_of(l);
    struct kernel_window w;

    (void)cpu;
    if (!layer_onednn_is_f32(l) || !kernel_has_weights(l) || l->in[0]->data || l->in[0]->shape.rank > 5)
        return false;
    if (bias && (!bias->data || bias->dtype != DT_F32))
        return false;
    for (int i = 0; i < l->in[0]->shape.rank; i++) {
        if (l->in[0]->shape.dim[i] == 0 || l->out[0].shape.dim[i] == 0)
            return false;
    }
    return window_of(l, &w) && is_small(&w) && post_onednn_fits(l);
}

/* oneDNN's dims of the weights ([g] oc ic k…) with the strides they have in the file. */
static bool weights_desc(const struct layer *l, dnnl_memory_desc_t *ret) {
    const struct shape *w = kernel_weight_shape(l);
    int64_t g = node_attr_int(l->node, "group", 1), inner = 1;
    dnnl_dims_t dims = {0}, strides = {0};
    int n = 0, rows;

    if (g < 1 || w->dim[0] % g)
        return false;
    for (int i = 2; i < w->rank; i++)
        inner *= w->dim[i];
    if (g > 1) {
        dims[n] = g;
        strides[n++] = w->dim[0] / g * w->dim[1] * inner;
    }
    /* Conv: W[g * oc][ic]; ConvTranspose: W[g * ic][oc] */
    rows = is_transposed(l);
    dims[n] = rows ? w->dim[1] : w->dim[0] / g;
    strides[n++] = rows ? inner : w->dim[1] * inner;
    dims[n] = rows ? w->dim[0] / g : w->dim[1];
    strides[n++] = rows ? w->dim[1] * inner : inner;
    for (int i = 2; i < w->rank; i++) {
        inner /= w->dim[i];
        dims[n] = w->dim[i];
        strides[n++] = inner;
    }
    return dnnl_memory_desc_init_by_strides(ret, n, dims, dnnl_f32, strides) == dnnl_success;
}

static dnnl_status_t conv_f32_describe(
    const struct layer *l, const struct layer_slice *slice, bool has_bias, union onednn_op_desc *ret) {
    dnnl_memory_desc_t src, dst, bias;
    dnnl_dims_t stride = {0}, dilation = {0}, begin = {0}, end = {0}, oc = {l->out[0].shape.dim[1]};
    struct kernel_window w;
    dnnl_status_t st;

    if (!window_of(l, &w) || !onednn_desc(&slice->in, DT_F32, l->in_type[0].layout, &src) ||
        !onednn_desc(&slice->out, DT_F32, l->out_type[0].layout, &dst))
        return dnnl_invalid_arguments;
    if (slice->is_band) {
        w.begin[0] = slice->begin;
        w.end[0] = slice->end;
    }
    for (int i = 0; i < w.rank; i++) {
        stride[i] = w.stride[i];
        dilation[i] = w.dilation[i] - 1;
        begin[i] = w.begin[i];
        /* pixels at the end that no window reads need no mention (the library rounds down as ONNX does), but
         * a transposed convolution adds none unless told */
        end[i] = w.end[i] < 0 && !is_transposed(l) ? 0 : w.end[i];
    }
    st = dnnl_memory_desc_init_by_tag(&bias, 1, oc, dnnl_f32, dnnl_a);
    if (st != dnnl_success)
        return st;
    if (is_transposed(l))
        return dnnl_dilated_deconvolution_forward_desc_init(&ret->deconv, dnnl_forward_inference,
            dnnl_deconvolution_direct, &src, &slice->weights, has_bias ? &bias : NULL, &dst, stride, dilation,
            begin, end);
    return dnnl_dilated_convolution_forward_desc_init(&ret->conv, dnnl_forward_inference,
        dnnl_convolution_direct, &src, &slice->weights, has_bias ? &bias : NULL, &dst, stride, dilation,
        begin, end);
}

/* Bytes of one step of dimension `dim` (0: images, 2: rows), channels last. */
static size_t step_bytes(const struct shape *s, int dim) {
    size_t bytes = sizeof(float) * (size_t)s->dim[1];

    for (int d = s->rank; d-- > 2 + (dim == 2);)
        bytes *= (size_t)s->dim[d];
    return bytes;
}

/* Whole images when there are enough, else bands of rows of the one image: output rows first to last read
 * input rows first * stride - begin to (last - 1) * stride - begin + extent; what lies outside is padding. */
static bool conv_f32_cut(const struct layer *l, unsigned n_parts, unsigned part, struct layer_slice *s) {
    const struct shape *x = &l->in[0]->shape, *y = &l->out[0].shape;
    int64_t all = y->dim[0] >= (int64_t)n_parts ? y->dim[0] : y->dim[2];
    int64_t first = all * part / n_parts, last = all * (part + 1) / n_parts, low, high;
    struct kernel_window w;

    if (y->dim[0] >= (int64_t)n_parts) {
        s->in.dim[0] = s->out.dim[0] = last - first;
        s->in_at = (size_t)first * step_bytes(x, 0);
        s->out_at = (size_t)first * step_bytes(y, 0);
        return true;
    }
    if (y->dim[0] != 1 || is_transposed(l) || last == first || !window_of(l, &w))
        return false;
    low = first * w.stride[0] - w.begin[0];
    high = (last - 1) * w.stride[0] - w.begin[0] + (w.kernel[0] - 1) * w.dilation[0] + 1;
    s->is_band = true;
    s->begin = low < 0 ? -low : 0;
    s->end = high > x->dim[2] ? high - x->dim[2] : 0;
    low += s->begin;
    high -= s->end;
    if (low >= high)
        return false;
    s->in.dim[2] = high - low;
    s->out.dim[2] = last - first;
    s->in_at = (size_t)low * step_bytes(x, 2);
    s->out_at = (size_t)first * step_bytes(y, 2);
    return true;
}

static int64_t count_macs(const struct layer *l) {
    const struct shape *w = kernel_weight_shape(l),
                       *y = is_transposed(l) ? &l->in[0]->shape : &l->out[0].shape;
    int64_t n = 0, filter = 0;

    if (!shape_count(y, &n) || !shape_count(w, &filter) || w->dim[0] == 0)
        return 0;
    return n * (filter / w->dim[0]);
}

static int conv_f32_prepare(const struct layer *l, struct pack_cache *packs, struct kernel_state **ret,
    size_t *ret_scratch, struct error *err) {
    struct layer_onednn_spec spec = {
        .kernel = is_transposed(l) ? "conv_transpose_f32_onednn" : "conv_f32_onednn",
        .weight_factor = 1,
        .bias = bias_of(l),
        .bias_factor = 1,
        .n_bias = l->out[0].shape.dim[1],
        .describe = conv_f32_describe,
        .cut = conv_f32_cut,
        .macs = count_macs(l),
    };

    if (!weights_desc(l, &spec.weights))
        return onednn_error(err, dnnl_invalid_arguments, spec.kernel);
    return layer_onednn_prepare(l, &spec, packs, ret, ret_scratch, err);
}

const struct kernel kernel_conv_f32_onednn = {
    .name = "conv_f32_onednn",
    .op_types = (const char *const[]){"Conv", NULL},
    .fits = conv_f32_fits,
    .layouts = {.in = 1u << LAYOUT_NHWC, .out = 1u << LAYOUT_NHWC},
    .max_posts = NODE_MAX_POSTS,
    .can_sum_in_place = true,
    .prepare = conv_f32_prepare,
    .run = layer_onednn_run,
    .done = layer_onednn_done,
};

const struct kernel kernel_conv_transpose_f32_onednn = {
    .name = "conv_transpose_f32_onednn",
    .op_types = (const char *const[]){"ConvTranspose", NULL},
    .fits = conv_f32_fits,
    .layouts = {.in = 1u << LAYOUT_NHWC, .out = 1u << LAYOUT_NHWC},
    .max_posts = NODE_MAX_POSTS,
    .can_sum_in_place = true,
    .prepare = conv_f32_prepare,
    .run = layer_onednn_run,
    .done = layer_onednn_done,
};
