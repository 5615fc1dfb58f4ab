/* Elementwise functions of one float tensor by oneDNN, in any dense layout: the tensor is one long row. */
#include <math.h>
#include <string.h>

#include "engine/kernel/post_onednn.h"
#include "engine/kernel/rows.h"
#include "engine/kernel/simple_onednn.h"
#include "engine/pass.h"

static bool eltwise_fits(const struct cpu *cpu, const struct layer *l) {
    struct post p;
    int64_t n;

    (void)cpu;
    return l->in[0]->dtype == DT_F32 && l->out[0].dtype == DT_F32 && !l->in[0]->data && l->n_out == 1 &&
           shape_equal(&l->in[0]->shape, &l->out[0].shape) && shape_count(&l->in[0]->shape, &n) && n > 0 &&
           fuse_read_numbers(l->graph, l->node, &p) &&
           eltwise_onednn(l->node->op_type) != dnnl_alg_kind_undef;
}

static int eltwise_prepare(const struct layer *l, struct pack_cache *packs, struct kernel_state **ret,
    size_t *ret_scratch, struct error *err) {
    dnnl_eltwise_desc_t d;
    dnnl_memory_desc_t data;
    dnnl_dims_t dims = {0};
    struct post p;
    dnnl_status_t st;

    (void)packs;
    if (!fuse_read_numbers(l->graph, l->node, &p) || !shape_count(&l->in[0]->shape, &dims[0]))
        return onednn_error(err, dnnl_invalid_arguments, "elementwise function");
    st = dnnl_memory_desc_init_by_tag(&data, 1, dims, dnnl_f32, dnnl_a);
    if (st == dnnl_success)
        st = dnnl_eltwise_forward_desc_init(
            &d, dnnl_forward_inference, eltwise_onednn(l->node->op_type), &data, p.alpha, p.beta);
    if (st != dnnl_success)
        return onednn_error(err, st, "elementwise function");
    return simple_onednn_prepare(l, &d, ret, ret_scratch, err);
}

const struct kernel kernel_eltwise_f32_onednn = {
    .name = "eltwise_f32_onednn",
    .op_types = (const char *const[]){"Abs", "Clip", "Elu", "Exp", "HardSwish", "LeakyRelu", "Mish", "Relu",
        "Sigmoid", "Softplus", "Sqrt", "Swish", "Tanh", NULL},
    .fits = eltwise_fits,
    .layouts = {.in = 1u << LAYOUT_NHWC | 1u << LAYOUT_PLAIN, .out = 1u << LAYOUT_NHWC | 1u << LAYOUT_PLAIN},
    .can_run_in_place = true,
    .prepare = eltwise_prepare,
    .run = simple_onednn_run,
    .done = simple_onednn_done,
};
