/* Gradients of the normalisations by the input's own mean and variance. With xh = (x - mean) inv over N
 * elements that share them, and g = dy scale (Ba 2016, Ulyanov 2016, Wu and He 2018):
 *
 *   dx = inv (g - mean of g - xh mean of g xh)   dscale = sum of dy xh   dbias = sum of dy
 */
#include "engine/ops/layer_norm.h"

#include "engine/ops/common.h"
#include "engine/ops/grad.h"
#include "engine/ops/rows.h"

static double value(const struct tensor *t, int64_t i) {
    return (double)((const float *)t->data)[i];
}

static void add(struct tensor *t, int64_t i, double v) {
    if (t)
        ((float *)t->data)[i] += (float)v;
}

struct moments {
    double mean, inv;
};

static struct moments moments_of(const struct tensor *x, int64_t first, int64_t n, double epsilon) {
    double sum = 0, square = 0;

    for (int64_t i = first; i < first + n; i++)
        sum += value(x, i);
    for (int64_t i = first; i < first + n; i++)
        square += (value(x, i) - sum / (double)n) * (value(x, i) - sum / (double)n);
    return (struct moments){sum / (double)n, 1 / sqrt(square / (double)n + epsilon)};
}

/* One row of LayerNormalization; mean and inv may be outputs too, with gradients of their own:
 * dinv / dx = -inv³ (x - mean) / N. */
static void layer_row(const struct tensor *const *in, const struct tensor *d_out, int n_out,
    struct tensor *const *d_in, int n_in, int64_t row, int64_t size, double epsilon) {
    struct moments m = moments_of(in[0], row * size, size, epsilon);
    double mean = 0, product = 0, d_mean = n_out > 1 && d_out[1].data ? value(&d_out[1], row) : 0,
           d_inv = n_out > 2 && d_out[2].data ? value(&d_out[2], row) : 0;

    for (int64_t k = 0; k < size; k++) {
        double dy = d_out[0].data ? value(&d_out[0], row * size + k) : 0;
        double xh = (value(in[0], row * size + k) - m.mean) * m.inv, g = dy * value(in[1], k);

        mean += g / (double)size;
        product += g * xh / (double)size;
        add(d_in[1], k, dy * xh);
        if (n_in > 2)
            add(d_in[2], k, dy);
    }
    for (int64_t k = 0; d_in[0] && k < size; k++) {
        double dy = d_out[0].data ? value(&d_out[0], row * size + k) : 0;
        double xh = (value(in[0], row * size + k) - m.mean) * m.inv;

        add(d_in[0], row * size + k,
            m.inv * (dy * value(in[1], k) - mean - xh * product) +
                (d_mean - d_inv * m.inv * m.inv * xh) / (double)size);
    }
}

void layer_norm_backward(const struct node *n, const struct tensor *const *in, const struct tensor *out,
    const struct tensor *d_out, struct tensor *const *d_in, void *scratch) {
    double epsilon = (double)node_attr_float(n, "epsilon", 1e-5f);
    int64_t rows = 1, size = 1;
    int axis = 0;

    (void)out;
    (void)scratch;
    (void)op_axis(node_attr_int(n, "axis", -1), in[0]->shape.rank, false, &axis, NULL);
    for (int i = 0; i < in[0]->shape.rank; i++)
        *(i < axis ? &rows : &size) *= in[0]->shape.dim[i];
    for (int64_t row = 0; size && row < rows; row++)
        layer_row(in, d_out, n->n_out, d_in, n->n_in, row, size, epsilon);
}

/* Instances are groups of one channel. */
void group_norm_backward(const struct node *n, const struct tensor *const *in, const struct tensor *out,
    const struct tensor *d_out, struct tensor *const *d_in, void *scratch) {
    const struct group_param *p = n->param;
    int64_t batch, channels, plane, each;

    (void)out;
    (void)scratch;
    op_split_shape(&in[0]->shape, 1, &batch, &channels, &plane);
    each = p->groups ? channels / p->groups : 1;
    for (int64_t k = 0; plane && k < batch * channels; k += each) {
        struct moments m = moments_of(in[0], k * plane, each * plane, (double)p->epsilon);
        double mean = 0, product = 0, count = (double)(each * plane);

        for (int pass = 0; pass < 2; pass++)
            for (int64_t i = k * plane; i < (k + each) * plane; i++) {
                int64_t channel = i / plane % channels, s = p->scales_are_groups ? channel / each : channel;
                double dy = value(&d_out[0], i), xh = (value(in[0], i) - m.mean) * m.inv;
                double g = dy * value(in[1], s);

                if (pass == 1) {
                    add(d_in[0], i, m.inv * (g - mean - xh * product));
                    continue;
                }
                mean += g / count;
                product += g * xh / count;
                add(d_in[1], s, dy * xh);
                add(d_in[2], s, dy);
            }
    }
}

/* Of each group: mean, deviation, mean of dy, mean of dy (x - mean). */
size_t variance_backward_scratch(
    const struct node *n, const struct tensor *const *in, const struct tensor *out) {
    unsigned axes = 0;

    (void)out;
    (void)variance_axes(n, in[0]->shape.rank, &axes, NULL);
    return (size_t)variance_count_groups(&in[0]->shape, axes) * 4 * sizeof(double);
}

/* y = (x - mean) / (s + e): dx = (dy - mean of dy) / (s + e) - (x - mean) mean of dy (x - mean) / (s (s +
 * e)²)
 */
void variance_backward(const struct node *n, const struct tensor *const *in, const struct tensor *out,
    const struct tensor *d_out, struct tensor *const *d_in, void *scratch) {
    const struct shape *s = &in[0]->shape;
    int64_t count = op_count(in[0]), groups;
    double *mean = scratch, *deviation, *sum, *product, each;
    unsigned axes = 0;

    (void)out;
    (void)variance_axes(n, s->rank, &axes, NULL);
    groups = variance_count_groups(s, axes);
    deviation = mean + groups;
    sum = deviation + groups;
    product = sum + groups;
    each = groups ? (double)count / (double)groups : 1;
    memset(mean, 0, (size_t)groups * 4 * sizeof(*mean));
    for (int64_t i = 0; i < count; i++)
        mean[variance_group_of(s, axes, i)] += value(in[0], i) / each;
    for (int64_t i = 0; i < count; i++) {
        int64_t k = variance_group_of(s, axes, i);
        double x = value(in[0], i) - mean[k];

        deviation[k] += x * x / each;
        sum[k] += value(&d_out[0], i) / each;
        product[k] += value(&d_out[0], i) * x / each;
    }
    for (int64_t i = 0; i < count; i++) {
        int64_t k = variance_group_of(s, axes, i);
        double x = value(in[0], i) - mean[k], root = sqrt(deviation[k]), all = root + 1e-9;

        add(d_in[0], i,
            (value(&d_out[0], i) - sum[k]) / all - (root > 0 ? x * product[k] / (root * all * all) : 0));
    }
}

/* y = x / r: dx = dy / r - sum of dy x / r² dr/dx, dr/dx = x / r for a length of squares, sign x for one of
 * magnitudes. Zeros stay zeros. */
void length_backward(const struct node *n, const struct tensor *const *in, const struct tensor *out,
    const struct tensor *d_out, struct tensor *const *d_in, void *scratch) {
    bool is_absolute = node_attr_int(n, "p", 2) == 1;
    int64_t outer, mid, inner;
    int axis = 0;

    (void)out;
    (void)scratch;
    (void)op_axis(node_attr_int(n, "axis", -1), in[0]->shape.rank, false, &axis, NULL);
    op_split_shape(&in[0]->shape, axis, &outer, &mid, &inner);
    for (int64_t row = 0; d_in[0] && row < outer * inner; row++) {
        int64_t first = row / inner * mid * inner + row % inner;
        double r = 0, product = 0;

        for (int64_t i = first; i < first + mid * inner; i += inner) {
            r += is_absolute ? fabs(value(in[0], i)) : value(in[0], i) * value(in[0], i);
            product += value(in[0], i) * value(&d_out[0], i);
        }
        r = is_absolute ? r : sqrt(r);
        for (int64_t i = first; r > 0 && i < first + mid * inner; i += inner) {
            double x = value(in[0], i), slope = is_absolute ? (x > 0) - (x < 0) : x / r;

            add(d_in[0], i, value(&d_out[0], i) / r - product / (r * r) * slope);
        }
    }
}
