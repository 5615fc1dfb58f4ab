#include "engine/kernel/post_onednn.h"

#include <string.h>

#include "base/cleanup.h"

static const struct {
    const char *op;
    dnnl_alg_kind_t alg;
} eltwise[] = {
    {"Abs", dnnl_eltwise_abs},
    {"Clip", dnnl_eltwise_clip},
    {"Elu", dnnl_eltwise_elu},
    {"Exp", dnnl_eltwise_exp},
    {"HardSwish", dnnl_eltwise_hardswish},
    {"LeakyRelu", dnnl_eltwise_relu},
    {"Mish", dnnl_eltwise_mish},
    {"Relu", dnnl_eltwise_relu},
    {"Sigmoid", dnnl_eltwise_logistic},
    {"Softplus", dnnl_eltwise_soft_relu},
    {"Sqrt", dnnl_eltwise_sqrt},
    {"Swish", dnnl_eltwise_swish},
    {"Tanh", dnnl_eltwise_tanh},
};

dnnl_alg_kind_t eltwise_onednn(const char *op_type) {
    for (size_t i = 0; i < sizeof(eltwise) / sizeof(*eltwise); i++) {
        if (strcmp(eltwise[i].op, op_type) == 0)
            return eltwise[i].alg;
    }
    return dnnl_alg_kind_undef;
}

static bool is_hard_sigmoid(const struct post *p) {
    return strcmp(p->op->name, "HardSigmoid") == 0;
}

bool post_onednn_fits(const struct layer *l) {
    for (int i = 0; i < l->node->n_post; i++) {
        const struct post *p = &l->node->post[i];

        if (p->other >= 0) {
            if (strcmp(p->op->name, "Add") != 0 || l->post_in[i].dtype != DT_F32 ||
                !shape_equal(&l->post_in[i].shape, &l->out[0].shape))
                return false;
        } else if (!is_hard_sigmoid(p) && eltwise_onednn(p->op->name) == dnnl_alg_kind_undef) {
            return false;
        }
    }
    return true;
}

static dnnl_status_t append_eltwise(dnnl_post_ops_t ops, const struct post *p) {
    dnnl_status_t st;

    if (!is_hard_sigmoid(p))
        return dnnl_post_ops_append_eltwise(ops, 1, eltwise_onednn(p->op->name), p->alpha, p->beta);
    /* clip(alpha x + beta, 0, 1): 2.6 has no kind of its own for it */
    st = dnnl_post_ops_append_eltwise(ops, 1, dnnl_eltwise_linear, p->alpha, p->beta);
    return st == dnnl_success ? dnnl_post_ops_append_eltwise(ops, 1, dnnl_eltwise_clip, 0, 1) : st;
}

static dnnl_status_t append_residual(
    const struct layer *l, const struct shape *out, int i, dnnl_post_ops_t ops, struct post_onednn *ret) {
    dnnl_memory_desc_t *desc = &ret->desc[ret->n_binary];

    if (l->in_place_post == i)
        return dnnl_post_ops_append_sum(ops, 1);
    if (!onednn_desc(out, DT_F32, l->post_in[i].layout, desc))
        return dnnl_invalid_arguments;
    ret->arg[ret->n_binary] = DNNL_ARG_ATTR_MULTIPLE_POST_OP(dnnl_post_ops_len(ops)) | DNNL_ARG_SRC_1;
    ret->post[ret->n_binary++] = i;
    return dnnl_post_ops_append_binary(ops, dnnl_binary_add, desc);
}

int post_onednn_init(
    const struct layer *l, const struct shape *out, struct post_onednn *ret, struct error *err) {
    dnnl_post_ops_t ops = NULL;
    dnnl_status_t st;

    *ret = (struct post_onednn){0};
    st = dnnl_primitive_attr_create(&ret->attr);
    if (st == dnnl_success)
        st = dnnl_post_ops_create(&ops);
    for (int i = 0; st == dnnl_success && i < l->node->n_post; i++) {
        const struct post *p = &l->node->post[i];

        st = p->other >= 0 ? append_residual(l, out, i, ops, ret) : append_eltwise(ops, p);
    }
    if (st == dnnl_success)
        st = dnnl_primitive_attr_set_post_ops(ret->attr, ops);
    if (ops)
        dnnl_post_ops_destroy(ops);
    if (st == dnnl_success)
        return 0;
    post_onednn_done(ret);
    return onednn_error(err, st, "post-operations");
}

void post_onednn_done(struct post_onednn *p) {
    if (p->attr)
        dnnl_primitive_attr_destroy(p->attr);
    p->attr = NULL;
}
