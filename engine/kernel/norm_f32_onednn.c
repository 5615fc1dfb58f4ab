/* Softmax, LogSoftmax and LRN on floats by oneDNN. */
#include <string.h>

#include "engine/kernel/rows.h"
#include "engine/kernel/simple_onednn.h"
#include "engine/ops/norm.h"

/* The tensor as x[rows][classes], what is normalised together last; false: the axis is inside. */
static bool softmax_matrix(const struct layer *l, dnnl_dims_t ret) {
    const struct softmax_param *p = l->node->param;
    const struct shape *x = &l->in[0]->shape;
    int64_t axis = p->axis < 0 ? p->axis + x->rank : p->axis;

    if (axis < 0 || axis >= x->rank || (!p->is_flat && axis != x->rank - 1))
        return false;
    ret[0] = ret[1] = 1;
    for (int d = 0; d < x->rank; d++)
        ret[d >= axis] *= x->dim[d];
    return true;
}

static bool is_float_to_float(const struct layer *l) {
    return l->in[0]->dtype == DT_F32 && l->out[0].dtype == DT_F32 && !l->in[0]->data;
}

static bool softmax_fits(const struct cpu *cpu, const struct layer *l) {
    dnnl_dims_t dims;

    (void)cpu;
    return is_float_to_float(l) && softmax_matrix(l, dims);
}

static int softmax_prepare(const struct layer *l, struct pack_cache *packs, struct kernel_state **ret,
    size_t *ret_scratch, struct error *err) {
    bool is_log = strcmp(l->node->op_type, "LogSoftmax") == 0;
    dnnl_dims_t dims = {0};
    dnnl_memory_desc_t data;
    dnnl_softmax_v2_desc_t d;
    dnnl_status_t st;

    (void)packs;
    if (!softmax_matrix(l, dims))
        return onednn_error(err, dnnl_invalid_arguments, "softmax");
    st = dnnl_memory_desc_init_by_tag(&data, 2, dims, dnnl_f32, dnnl_ab);
    if (st == dnnl_success)
        st = dnnl_softmax_v2_forward_desc_init(
            &d, dnnl_forward_inference, is_log ? dnnl_softmax_log : dnnl_softmax_accurate, &data, &data, 1);
    if (st != dnnl_success)
        return onednn_error(err, st, "softmax");
    return simple_onednn_prepare(l, &d, ret, ret_scratch, err);
}

const struct kernel kernel_softmax_f32_onednn = {
    .name = "softmax_f32_onednn",
    .op_types = (const char *const[]){"LogSoftmax", "Softmax", NULL},
    .fits = softmax_fits,
    .layouts = {.in = 1u << LAYOUT_PLAIN, .out = 1u << LAYOUT_PLAIN},
    .can_run_in_place = true,
    .prepare = softmax_prepare,
    .run = simple_onednn_run,
    .done = simple_onednn_done,
};

static bool lrn_fits(const struct cpu *cpu, const struct layer *l) {
    const struct lrn_param *p = l->node->param;

    (void)cpu;
    return is_float_to_float(l) && l->in[0]->shape.rank == 4 && p->size % 2 == 1;
}

static int lrn_prepare(const struct layer *l, struct pack_cache *packs, struct kernel_state **ret,
    size_t *ret_scratch, struct error *err) {
    const struct lrn_param *p = l->node->param;
    dnnl_memory_desc_t data;
    dnnl_lrn_desc_t d;
    dnnl_status_t st = dnnl_invalid_arguments;

    (void)packs;
    if (onednn_desc(&l->in[0]->shape, DT_F32, l->in_type[0].layout, &data))
        st = dnnl_lrn_forward_desc_init(
            &d, dnnl_forward_inference, dnnl_lrn_across_channels, &data, p->size, p->alpha, p->beta, p->bias);
    if (st != dnnl_success)
        return onednn_error(err, st, "local response normalisation");
    return simple_onednn_prepare(l, &d, ret, ret_scratch, err);
}

const struct kernel kernel_lrn_f32_onednn = {
    .name = "lrn_f32_onednn",
    .op_types = (const char *const[]){"LRN", NULL},
    .fits = lrn_fits,
    .layouts = {.in = 1u << LAYOUT_NHWC, .out = 1u << LAYOUT_NHWC},
    .prepare = lrn_prepare,
    .run = simple_onednn_run,
    .done = simple_onednn_done,
};
