#include "engine/train/kernel.h"

#include <errno.h>
#include <math.h>
#include <string.h>

#include "engine/train/bf16.h"
#include "engine/train/rows.h"

const struct train_kernel *const train_kernel_table[] = {
    &train_activation,
    &train_add,
    &train_batch_norm,
    &train_clamp,
    &train_concat,
    &train_conv_widened,
    &train_conv,
    &train_gemm,
    &train_global_average,
    &train_max_pool,
    &train_view,
    &train_reference,
};
const size_t train_kernel_table_size = sizeof(train_kernel_table) / sizeof(*train_kernel_table);

static bool has_tail(const struct train_layer *l) {
    return l->tail.residual >= 0 || isfinite(l->tail.low) || isfinite(l->tail.high);
}

static bool runs_op(const struct train_kernel *k, const char *op_type) {
    if (!k->op_types)
        return true;
    for (const char *const *op = k->op_types; *op; op++)
        if (strcmp(*op, op_type) == 0)
            return true;
    return false;
}

int train_kernel_pick(const struct train_layer *l, const struct train_kernel **ret_kernel,
    struct train_state **ret, struct train_needs *needs, struct error *err) {
    for (size_t i = 0; i < train_kernel_table_size; i++) {
        const struct train_kernel *k = train_kernel_table[i];
        struct error e = {0};
        int r;

        if ((l->reference && k != &train_reference && k != &train_activation) ||
            !runs_op(k, l->node->op_type) || (has_tail(l) && !k->takes_tail) || !k->fits(l))
            continue;
        *needs = (struct train_needs){0};
        r = k->prepare(l, ret, needs, &e);
        if (r == -EOPNOTSUPP) /* the library has no fast code for the shape */
            continue;
        if (r < 0)
            return error_copy(err, &e);
        *ret_kernel = k;
        return 0;
    }
    return error_code(
        err, -EOPNOTSUPP, "unsupported_operator", "operator %s has no gradient", l->node->op_type);
}

void train_store(float *y, const float *x, int64_t n, bool adds) {
    if (!adds) {
        memcpy(y, x, (size_t)n * sizeof(*y));
        return;
    }
    for (int64_t i = 0; i < n; i++)
        y[i] += x[i];
}

/* y[i][j] = x[j][i] for each of `outer` matrices, in blocks that stay in the first-level cache. */
static void transpose(int64_t outer, int64_t rows, int64_t cols, const float *x, float *y, bool adds) {
    const int64_t block = 32;

    for (int64_t o = 0; o < outer; o++, x += rows * cols, y += rows * cols)
        for (int64_t i0 = 0; i0 < rows; i0 += block)
            for (int64_t j0 = 0; j0 < cols; j0 += block)
                for (int64_t i = i0; i < rows && i < i0 + block; i++)
                    for (int64_t j = j0; j < cols && j < j0 + block; j++) {
                        float v = x[i * cols + j];

                        y[j * rows + i] = adds ? y[j * rows + i] + v : v;
                    }
}

static int64_t plane_of(const struct shape *s) {
    int64_t n = 1;

    for (int i = 2; i < s->rank; i++)
        n *= s->dim[i];
    return n;
}

void train_to_plain(const struct shape *s, const float *x, float *y, bool adds) {
    if (s->rank < 3)
        train_store(y, x, train_count(s), adds);
    else
        transpose(s->dim[0], plane_of(s), s->dim[1], x, y, adds);
}

void train_from_plain(const struct shape *s, const float *x, float *y, bool adds) {
    if (s->rank < 3)
        train_store(y, x, train_count(s), adds);
    else
        transpose(s->dim[0], s->dim[1], plane_of(s), x, y, adds);
}

void train_from_plain_bf16(const struct shape *s, const float *x, uint16_t *y) {
    int64_t plane = plane_of(s), c = s->dim[1];

    for (int64_t n = 0; n < s->dim[0]; n++, x += plane * c, y += plane * c)
        for (int64_t p = 0; p < plane; p++)
            for (int64_t k = 0; k < c; k++)
                y[p * c + k] = bf16_round(x[k * plane + p]);
}
