/* Gradients of Gemm and MatMul: Y = alpha A' B' + beta C gives dA' = alpha dY B'^T, dB' = alpha A'^T dY. */
#include "engine/ops/common.h"
#include "engine/ops/gemm.h"
#include "engine/ops/grad.h"

/* A matrix with any distance between rows and columns: a transpose swaps them. */
struct matrix {
    float *data;
    int64_t row, col;
};

static struct matrix transposed(struct matrix a) {
    return (struct matrix){a.data, a.col, a.row};
}

/* y[m][n] += alpha a[m][k] b[k][n] */
static void add_product(
    struct matrix a, struct matrix b, double alpha, int64_t m, int64_t k, int64_t n, struct matrix y) {
    for (int64_t i = 0; i < m; i++)
        for (int64_t j = 0; j < n; j++) {
            double sum = 0;

            for (int64_t c = 0; c < k; c++)
                sum += (double)a.data[i * a.row + c * a.col] * (double)b.data[c * b.row + j * b.col];
            y.data[i * y.row + j * y.col] += (float)(alpha * sum);
        }
}

void gemm_backward(const struct node *n, const struct tensor *const *in, const struct tensor *out,
    const struct tensor *d_out, struct tensor *const *d_in, void *scratch) {
    const struct gemm_param *p = n->param;
    int64_t m = out[0].shape.dim[0], cols = out[0].shape.dim[1], k = in[0]->shape.dim[!p->trans_a];
    struct matrix a = {in[0]->data, p->trans_a ? 1 : k, p->trans_a ? m : 1};
    struct matrix b = {in[1]->data, p->trans_b ? 1 : cols, p->trans_b ? k : 1};
    struct matrix dy = {d_out[0].data, cols, 1};

    (void)scratch;
    if (d_in[0])
        add_product(
            dy, transposed(b), (double)p->alpha, m, cols, k, (struct matrix){d_in[0]->data, a.row, a.col});
    if (d_in[1])
        add_product(
            transposed(a), dy, (double)p->alpha, k, m, cols, (struct matrix){d_in[1]->data, b.row, b.col});
    for (int64_t i = 0; n->n_in > 2 && d_in[2] && i < m * cols; i++)
        ((float *)d_in[2]->data)[op_broadcast_index(&in[2]->shape, &out[0].shape, i)] += p->beta * dy.data[i];
}

void matmul_backward(const struct node *n, const struct tensor *const *in, const struct tensor *out,
    const struct tensor *d_out, struct tensor *const *d_in, void *scratch) {
    struct matmul s;
    int64_t batches = 1;

    (void)n;
    (void)out;
    (void)scratch;
    if (matmul_sizes(&in[0]->shape, &in[1]->shape, &s, NULL) < 0)
        return; /* shape() checked it */
    (void)shape_count(&s.batch, &batches);
    for (int64_t i = 0; i < batches; i++) {
        int64_t a_at = matmul_offset(&in[0]->shape, &s.batch, i, s.m * s.k);
        int64_t b_at = matmul_offset(&in[1]->shape, &s.batch, i, s.k * s.n);
        struct matrix a = {(float *)in[0]->data + a_at, s.k, 1}, b = {(float *)in[1]->data + b_at, s.n, 1};
        struct matrix dy = {(float *)d_out[0].data + i * s.m * s.n, s.n, 1};

        if (d_in[0])
            add_product(
                dy, transposed(b), 1, s.m, s.n, s.k, (struct matrix){(float *)d_in[0]->data + a_at, s.k, 1});
        if (d_in[1])
            add_product(
                transposed(a), dy, 1, s.k, s.m, s.n, (struct matrix){(float *)d_in[1]->data + b_at, s.n, 1});
    }
}
