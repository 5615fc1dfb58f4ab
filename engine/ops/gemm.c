/* Gemm and MatMul. */
#include "engine/ops/gemm.h"

#include "engine/ops/common.h"
#include "engine/ops/grad.h"
#include "engine/ops/rows.h"

/* y[m][n] += alpha a[m][k] b[k][n], with strides of rows and columns for the transposed cases. */
static void multiply(const float *a, int64_t a_row, int64_t a_col, const float *b, int64_t b_row,
    int64_t b_col, float alpha, int64_t m, int64_t k, int64_t n, float *y) {
    for (int64_t i = 0; i < m; i++)
        for (int64_t j = 0; b_col != 1 && j < n; j++) { /* B by rows: dot products */
            float sum = 0;

            for (int64_t c = 0; c < k; c++)
                sum += a[i * a_row + c * a_col] * b[c * b_row + j * b_col];
            y[i * n + j] += alpha * sum;
        }
    for (int64_t i = 0; b_col == 1 && i < m; i++)
        for (int64_t c = 0; c < k; c++) {
            float v = alpha * a[i * a_row + c * a_col];
            const float *row = b + c * b_row;

            for (int64_t j = 0; j < n; j++)
                y[i * n + j] += v * row[j];
        }
}

static int gemm_parse(struct graph *g, struct node *n, struct error *err) {
    struct gemm_param *p = graph_alloc(g, sizeof(*p));

    if (!p)
        return error_oom(err);
    *p = (struct gemm_param){
        .alpha = node_attr_float(n, "alpha", 1),
        .beta = node_attr_float(n, "beta", 1),
        .trans_a = node_attr_int(n, "transA", 0) != 0,
        .trans_b = node_attr_int(n, "transB", 0) != 0,
    };
    n->param = p;
    return 0;
}

static int gemm_shape(
    const struct node *n, const struct tensor *const *in, struct tensor *out, struct error *err) {
    const struct gemm_param *p = n->param;
    const struct shape *a = &in[0]->shape, *b = &in[1]->shape;
    struct shape y = {.rank = 2}, all;
    char ta[SHAPE_TEXT_MAX], tb[SHAPE_TEXT_MAX];

    if (op_check_float(in[0], err) < 0 || op_check_float(in[1], err) < 0)
        return -EBADMSG;
    if (a->rank != 2 || b->rank != 2 || a->dim[!p->trans_a] != b->dim[p->trans_b])
        return error_code(err, -EBADMSG, "shape_mismatch", "A %s%s and B %s%s cannot be multiplied",
            shape_text(a, ta), p->trans_a ? " transposed" : "", shape_text(b, tb),
            p->trans_b ? " transposed" : "");
    y.dim[0] = a->dim[p->trans_a];
    y.dim[1] = b->dim[!p->trans_b];
    if (n->n_in > 2 && in[2]) {
        int r = op_broadcast(&y, &in[2]->shape, &all, err);

        if (r < 0)
            return r;
        if (!shape_equal(&all, &y) || in[2]->dtype != DT_F32)
            return error_code(err, -EBADMSG, "shape_mismatch", "C %s does not broadcast to %s",
                shape_text(&in[2]->shape, ta), shape_text(&y, tb));
    }
    out[0].dtype = DT_F32;
    out[0].shape = y;
    return 0;
}

static float bias_at(const struct tensor *c, int64_t i, int64_t j) {
    const struct shape *s = &c->shape;
    int64_t cols = s->rank > 0 ? s->dim[s->rank - 1] : 1, rows = s->rank > 1 ? s->dim[0] : 1;

    return ((const float *)c->data)[(rows == 1 ? 0 : i) * cols + (cols == 1 ? 0 : j)];
}

static void gemm_forward(
    const struct node *n, const struct tensor *const *in, struct tensor *out, void *scratch) {
    const struct gemm_param *p = n->param;
    const struct tensor *c = n->n_in > 2 ? in[2] : NULL;
    int64_t m = out[0].shape.dim[0], cols = out[0].shape.dim[1], k = in[0]->shape.dim[!p->trans_a];
    float *y = out[0].data;

    (void)scratch;
    for (int64_t i = 0; i < m; i++)
        for (int64_t j = 0; j < cols; j++)
            y[i * cols + j] = c ? p->beta * bias_at(c, i, j) : 0;
    multiply(in[0]->data, p->trans_a ? 1 : k, p->trans_a ? m : 1, in[1]->data, p->trans_b ? 1 : cols,
        p->trans_b ? k : 1, p->alpha, m, k, cols, y);
}

static void gemm_cost(
    const struct node *n, const struct tensor *const *in, const struct tensor *out, struct op_cost *ret) {
    const struct gemm_param *p = n->param;

    op_cost_move(n, in, out, ret);
    ret->macs = op_count(&out[0]) * in[0]->shape.dim[!p->trans_a];
}

const struct op op_gemm = {
    .name = "Gemm",
    .domain = "",
    .since = 1,
    .until = OPSET_LAST,
    .min_in = 2,
    .max_in = 3,
    .min_out = 1,
    .max_out = 1,
    .parse = gemm_parse,
    .shape = gemm_shape,
    .forward = gemm_forward,
    .backward = gemm_backward,
    .params = 1u << 1 | 1u << 2,
    .cost = gemm_cost,
    .saves = OP_SAVES_IN,
    .couple = OP_COUPLE_FREE,
    .quant = OP_QUANT_OWN,
};

int matmul_sizes(const struct shape *a, const struct shape *b, struct matmul *ret, struct error *err) {
    struct shape ba = {.rank = a->rank > 2 ? a->rank - 2 : 0}, bb = {.rank = b->rank > 2 ? b->rank - 2 : 0};
    char ta[SHAPE_TEXT_MAX], tb[SHAPE_TEXT_MAX];

    if (a->rank < 1 || b->rank < 1 || a->dim[a->rank - 1] != b->dim[b->rank > 1 ? b->rank - 2 : 0])
        return error_code(err, -EBADMSG, "shape_mismatch", "%s and %s cannot be multiplied",
            shape_text(a, ta), shape_text(b, tb));
    memcpy(ba.dim, a->dim, (size_t)ba.rank * sizeof(*ba.dim));
    memcpy(bb.dim, b->dim, (size_t)bb.rank * sizeof(*bb.dim));
    ret->m = a->rank > 1 ? a->dim[a->rank - 2] : 1;
    ret->k = a->dim[a->rank - 1];
    ret->n = b->rank > 1 ? b->dim[b->rank - 1] : 1;
    return op_broadcast(&ba, &bb, &ret->batch, err);
}

static int matmul_shape(
    const struct node *n, const struct tensor *const *in, struct tensor *out, struct error *err) {
    struct matmul s;
    int r;

    (void)n;
    if (op_check_float(in[0], err) < 0 || op_check_float(in[1], err) < 0)
        return -EBADMSG;
    r = matmul_sizes(&in[0]->shape, &in[1]->shape, &s, err);
    if (r < 0)
        return r;
    out[0].dtype = DT_F32;
    out[0].shape = s.batch;
    if (in[0]->shape.rank > 1)
        out[0].shape.dim[out[0].shape.rank++] = s.m;
    if (in[1]->shape.rank > 1)
        out[0].shape.dim[out[0].shape.rank++] = s.n;
    return 0;
}

int64_t matmul_offset(const struct shape *t, const struct shape *batch, int64_t i, int64_t matrix) {
    int64_t offset = 0, step = matrix;

    for (int d = batch->rank - 1; d >= 0; d--) {
        int k = d - (batch->rank - (t->rank - 2));
        int64_t c = i % batch->dim[d];

        i /= batch->dim[d];
        if (k < 0)
            continue;
        offset += t->dim[k] == 1 ? 0 : c * step;
        step *= t->dim[k];
    }
    return offset;
}

static void matmul_forward(
    const struct node *n, const struct tensor *const *in, struct tensor *out, void *scratch) {
    struct matmul s;
    int64_t batches = 1;

    (void)n;
    (void)scratch;
    if (matmul_sizes(&in[0]->shape, &in[1]->shape, &s, NULL) < 0)
        return; /* shape() checked it */
    (void)shape_count(&s.batch, &batches);
    memset(out[0].data, 0, op_bytes(&out[0]));
    for (int64_t i = 0; i < batches; i++)
        multiply((const float *)in[0]->data + matmul_offset(&in[0]->shape, &s.batch, i, s.m * s.k), s.k, 1,
            (const float *)in[1]->data + matmul_offset(&in[1]->shape, &s.batch, i, s.k * s.n), s.n, 1, 1, s.m,
            s.k, s.n, (float *)out[0].data + i * s.m * s.n);
}

static void matmul_cost(
    const struct node *n, const struct tensor *const *in, const struct tensor *out, struct op_cost *ret) {
    op_cost_move(n, in, out, ret);
    ret->macs = op_count(&out[0]) * in[0]->shape.dim[in[0]->shape.rank - 1];
}

const struct op op_matmul = {
    .name = "MatMul",
    .domain = "",
    .since = 1,
    .until = OPSET_LAST,
    .min_in = 2,
    .max_in = 2,
    .min_out = 1,
    .max_out = 1,
    .shape = matmul_shape,
    .forward = matmul_forward,
    .backward = matmul_backward,
    .params = 1u << 1,
    .cost = matmul_cost,
    .saves = OP_SAVES_IN,
    .couple = OP_COUPLE_FREE,
    .quant = OP_QUANT_OWN,
};
