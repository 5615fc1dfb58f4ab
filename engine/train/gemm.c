/* Gemm and MatMul with a matrix of parameters on the right: y = alpha x W + beta b. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "engine/ops/gemm.h"
#include "engine/train/rows.h"

struct train_state {
    int64_t m, k, n;
    int64_t bias_cols; /* 1 or n; 0: none */
    bool trans_b;
    float alpha, beta;
};

static const struct gemm_param plain_product = {.alpha = 1, .beta = 1};

static const struct gemm_param *param_of(const struct train_layer *l) {
    return strcmp(l->node->op_type, "Gemm") == 0 ? l->node->param : &plain_product;
}

static bool gemm_fits(const struct train_layer *l) {
    const struct shape *x = &l->in[0]->shape, *w = l->in[1] ? &l->in[1]->shape : NULL;
    const struct shape *c = l->n_in > 2 && l->in[2] ? &l->in[2]->shape : NULL;
    int64_t y = train_count(&l->out[0].shape);

    if (!w || w->rank != 2 || x->rank != 2 || !l->in[1]->data || l->in[0]->data || y == 0)
        return false;
    if (l->in[0]->dtype != DT_F32 || l->in[1]->dtype != DT_F32 || param_of(l)->trans_a)
        return false;
    return !c || (c->rank <= 2 && (c->rank < 2 || c->dim[0] == 1)); /* a row, or one number */
}

static int gemm_prepare(
    const struct train_layer *l, struct train_state **ret, struct train_needs *needs, struct error *err) {
    const struct gemm_param *p = param_of(l);
    struct train_state *s = calloc(1, sizeof(*s));

    (void)needs;
    if (!s)
        return error_oom(err);
    s->m = l->in[0]->shape.dim[0];
    s->k = l->in[0]->shape.dim[1];
    s->n = l->out[0].shape.dim[1];
    s->bias_cols = l->n_in > 2 && l->in[2] ? train_count(&l->in[2]->shape) : 0;
    s->trans_b = p->trans_b;
    s->alpha = p->alpha;
    s->beta = p->beta;
    *ret = s;
    return 0;
}

static struct train_state *gemm_done(struct train_state *s) {
    free(s);
    return NULL;
}

static void gemm_forward(const struct train_state *s, const struct train_io *io, int phase) {
    struct onednn_matrix x = {io->in[0], s->k, false};
    struct onednn_matrix w = {io->in[1], s->trans_b ? s->k : s->n, s->trans_b};
    const float *bias = s->bias_cols ? io->in[2] : NULL;
    float *y = io->out[0];

    (void)phase;
    for (int64_t i = 0; bias && i < s->m * s->n; i++)
        y[i] = s->beta * bias[s->bias_cols == 1 ? 0 : i % s->n];
    onednn_enter();
    onednn_product(&x, &w, s->alpha, bias ? 1 : 0, s->m, s->k, s->n, y);
}

static void add_bias(const struct train_state *s, const float *dy, float *db, bool adds) {
    for (int64_t j = 0; !adds && j < s->bias_cols; j++)
        db[j] = 0;
    for (int64_t i = 0; i < s->m * s->n; i++)
        db[s->bias_cols == 1 ? 0 : i % s->n] += s->beta * dy[i];
}

static void gemm_backward(const struct train_state *s, const struct train_io *io, int phase) {
    struct onednn_matrix dy = {io->d_out[0], s->n, false}, dy_t = {io->d_out[0], s->n, true};
    struct onednn_matrix x = {io->in[0], s->k, false}, x_t = {io->in[0], s->k, true};
    struct onednn_matrix w = {io->in[1], s->trans_b ? s->k : s->n, !s->trans_b};

    (void)phase;
    onednn_enter();
    if (io->d_in[0])
        onednn_product(&dy, &w, s->alpha, io->adds[0] ? 1 : 0, s->m, s->n, s->k, io->d_in[0]);
    if (io->d_in[1] && s->trans_b)
        onednn_product(&dy_t, &x, s->alpha, io->adds[1] ? 1 : 0, s->n, s->m, s->k, io->d_in[1]);
    else if (io->d_in[1])
        onednn_product(&x_t, &dy, s->alpha, io->adds[1] ? 1 : 0, s->k, s->m, s->n, io->d_in[1]);
    if (s->bias_cols && io->d_in[2])
        add_bias(s, io->d_out[0], io->d_in[2], io->adds[2]);
}

const struct train_kernel train_gemm = {
    .name = "gemm_onednn",
    .op_types = (const char *const[]){"Gemm", "MatMul", NULL},
    .fits = gemm_fits,
    .prepare = gemm_prepare,
    .n_forward = 1,
    .n_backward = 1,
    .forward = gemm_forward,
    .backward = gemm_backward,
    .done = gemm_done,
    .saves_in = true,
};
