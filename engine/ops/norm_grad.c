/* Gradients of BatchNormalization (inference formula), LRN, Softmax, LogSoftmax. */
#include "engine/ops/common.h"
#include "engine/ops/grad.h"
#include "engine/ops/norm.h"
#include "engine/ops/rows.h"

static double value(const struct tensor *t, int64_t i) {
    return (double)((const float *)t->data)[i];
}

static void add(struct tensor *t, int64_t i, double v) {
    if (t)
        ((float *)t->data)[i] += (float)v;
}

/* y = gamma (x - m) / s + beta, s = sqrt(v + epsilon): dm = -dy gamma / s, dv = -dy gamma (x - m) / (2 s^3)
 */
void batch_norm_backward(const struct node *n, const struct tensor *const *in, const struct tensor *out,
    const struct tensor *d_out, struct tensor *const *d_in, void *scratch) {
    const struct batch_norm_param *p = n->param;
    int64_t outer, channels, plane;

    (void)out;
    (void)scratch;
    op_split_shape(&in[0]->shape, 1, &outer, &channels, &plane);
    for (int64_t k = 0; k < outer * channels; k++) {
        int64_t c = k % channels;
        double s = sqrt(value(in[4], c) + (double)p->epsilon), m = value(in[3], c), sum = 0, product = 0;

        for (int64_t i = k * plane; i < (k + 1) * plane; i++) {
            double dy = value(&d_out[0], i);

            sum += dy;
            product += dy * (value(in[0], i) - m);
            add(d_in[0], i, dy * value(in[1], c) / s);
        }
        add(d_in[1], c, product / s);
        add(d_in[2], c, sum);
        add(d_in[3], c, -sum * value(in[1], c) / s);
        add(d_in[4], c, -product * value(in[1], c) / (2 * s * s * s));
    }
}

/* bias + alpha / size * the sum of squares of the neighbours of channel c */
static double lrn_base(
    const struct lrn_param *p, const float *x, int64_t c, int64_t channels, int64_t plane) {
    int64_t before = (p->size - 1) / 2, after = p->size - 1 - before;
    double sum = 0;

    for (int64_t k = c > before ? c - before : 0; k <= c + after && k < channels; k++)
        sum += (double)x[k * plane] * (double)x[k * plane];
    return (double)p->bias + (double)p->alpha / (double)p->size * sum;
}

/* dx_j = dy_j b_j^-beta - 2 alpha beta / size x_j sum over the c that j is a neighbour of: dy_c x_c
 * b_c^(-beta-1)
 */
void lrn_backward(const struct node *n, const struct tensor *const *in, const struct tensor *out,
    const struct tensor *d_out, struct tensor *const *d_in, void *scratch) {
    const struct lrn_param *p = n->param;
    int64_t outer, channels, plane, before = (p->size - 1) / 2, after = p->size - 1 - before;
    double beta = (double)p->beta, factor = 2 * (double)p->alpha * beta / (double)p->size;

    (void)out;
    (void)scratch;
    op_split_shape(&in[0]->shape, 1, &outer, &channels, &plane);
    for (int64_t k = 0; d_in[0] && k < outer * channels * plane; k++) {
        int64_t i = k % plane, j = k / plane % channels, at = k / plane / channels * channels * plane + i;
        const float *x = (const float *)in[0]->data + at, *dy = (const float *)d_out[0].data + at;
        double sum = 0;

        for (int64_t c = j > after ? j - after : 0; c <= j + before && c < channels; c++)
            sum += (double)dy[c * plane] * (double)x[c * plane] *
                   pow(lrn_base(p, x, c, channels, plane), -beta - 1);
        add(d_in[0], at + j * plane,
            (double)dy[j * plane] * pow(lrn_base(p, x, j, channels, plane), -beta) -
                factor * (double)x[j * plane] * sum);
    }
}

/* Softmax: dx = y (dy - sum of y dy); its logarithm: dx = dy - exp(y) sum of dy. */
static void softmax_row(const float *y, const float *dy, float *dx, int64_t n, int64_t step, bool is_log) {
    double sum = 0;

    for (int64_t i = 0; i < n; i++)
        sum += is_log ? (double)dy[i * step] : (double)y[i * step] * (double)dy[i * step];
    for (int64_t i = 0; i < n; i++)
        dx[i * step] += (float)(is_log ? (double)dy[i * step] - exp((double)y[i * step]) * sum
                                       : (double)y[i * step] * ((double)dy[i * step] - sum));
}

void softmax_backward(const struct node *n, const struct tensor *const *in, const struct tensor *out,
    const struct tensor *d_out, struct tensor *const *d_in, void *scratch) {
    const struct softmax_param *p = n->param;
    int64_t outer, mid, inner;
    int axis = 0;

    (void)scratch;
    (void)op_axis(p->axis, in[0]->shape.rank, p->is_flat, &axis, NULL);
    op_split_shape(&in[0]->shape, axis, &outer, &mid, &inner);
    if (p->is_flat) {
        mid *= inner;
        inner = 1;
    }
    for (int64_t k = 0; d_in[0] && k < outer * inner; k++) {
        int64_t at = k / inner * mid * inner + k % inner;

        softmax_row((const float *)out[0].data + at, (const float *)d_out[0].data + at,
            (float *)d_in[0]->data + at, mid, inner, n->op == &op_log_softmax);
    }
}
