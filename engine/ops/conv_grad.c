/* Gradients of Conv and ConvTranspose. With the large side of a window (Conv's input, ConvTranspose's output)
 * and the small side, both are the same sums over the taps:
 *
 *   Conv             y small: dx[large] += w dy[small]      dw += x[large] dy[small]
 *   ConvTranspose    y large: dx[small] += w dy[large]      dw += x[small] dy[large]  */
#include "engine/ops/common.h"
#include "engine/ops/conv.h"
#include "engine/ops/grad.h"

/* Elements of one row of the small side that one tap joins with the large side. */
struct tap_row {
    int64_t small, large, n, step; /* first elements, how many, distance on the large side */
};

/* p: `in` is the large side, `out` the small one. False: the tap sees only padding from this row. */
static bool tap_row(const struct window_at *p, const int64_t k[3], int64_t row, struct tap_row *ret) {
    int64_t d = row / p->out[1], h = row % p->out[1], first = 0, last = p->out[2];
    int64_t sd = d * p->stride[0] + k[0] * p->dilation[0] - p->begin[0];
    int64_t sh = h * p->stride[1] + k[1] * p->dilation[1] - p->begin[1];
    int64_t shift = k[2] * p->dilation[2] - p->begin[2];

    if (sd < 0 || sd >= p->in[0] || sh < 0 || sh >= p->in[1])
        return false;
    while (first < last && first * p->stride[2] + shift < 0)
        first++;
    while (last > first && (last - 1) * p->stride[2] + shift >= p->in[2])
        last--;
    ret->small = row * p->out[2] + first;
    ret->large = (sd * p->in[1] + sh) * p->in[2] + first * p->stride[2] + shift;
    ret->n = last - first;
    ret->step = p->stride[2];
    return ret->n > 0;
}

/* One filter between one plane of each side. `to` NULL: not wanted; it lies on the large side, or the small
 * one. */
struct planes {
    const float *small, *large; /* x and dy, whichever lies where */
    float *to_small, *to_large; /* dx */
    const float *w;
    float *dw;
};

static void add_tap(const struct window_at *p, const struct planes *s, int64_t t) {
    int64_t k[3] = {t / (p->kernel[1] * p->kernel[2]), t / p->kernel[2] % p->kernel[1], t % p->kernel[2]};
    double sum = 0;

    for (int64_t row = 0; row < p->out[0] * p->out[1]; row++) {
        struct tap_row r;

        if (!tap_row(p, k, row, &r))
            continue;
        for (int64_t i = 0; i < r.n; i++) {
            int64_t small = r.small + i, large = r.large + i * r.step;

            if (s->to_large)
                s->to_large[large] += s->w[t] * s->small[small];
            if (s->to_small)
                s->to_small[small] += s->w[t] * s->large[large];
            sum += (double)s->small[small] * (double)s->large[large];
        }
    }
    if (s->dw)
        s->dw[t] += (float)sum;
}

static void add_bias(const struct tensor *dy, int64_t plane, struct tensor *db) {
    int64_t channels = dy->shape.dim[1];

    for (int64_t k = 0; k < dy->shape.dim[0] * channels; k++) {
        const float *row = (const float *)dy->data + k * plane;
        double sum = 0;

        for (int64_t i = 0; i < plane; i++)
            sum += (double)row[i];
        ((float *)db->data)[k % channels] += (float)sum;
    }
}

static float *at(const struct tensor *t, int64_t offset) {
    return t ? (float *)t->data + offset : NULL;
}

void conv_backward(const struct node *n, const struct tensor *const *in, const struct tensor *out,
    const struct tensor *d_out, struct tensor *const *d_in, void *scratch) {
    const struct conv_param *param = n->param;
    int64_t channels = in[0]->shape.dim[1], per_filter = in[1]->shape.dim[1], outputs = in[1]->shape.dim[0];
    struct window_at placed, p;
    int64_t large, small, taps;

    (void)out;
    (void)scratch;
    if (conv_place(n, &in[0]->shape, &in[1]->shape, &placed, NULL) < 0)
        return; /* shape() placed it before */
    p = window_to_3d(&placed);
    large = p.in[0] * p.in[1] * p.in[2];
    small = p.out[0] * p.out[1] * p.out[2];
    taps = p.kernel[0] * p.kernel[1] * p.kernel[2];
    if (n->n_in > 2 && d_in[2])
        add_bias(d_out, small, d_in[2]);
    for (int64_t i = 0; i < in[0]->shape.dim[0] * outputs * per_filter; i++) {
        int64_t c = i % per_filter, o = i / per_filter % outputs, b = i / per_filter / outputs;
        int64_t x_at = (b * channels + o / (outputs / param->group) * per_filter + c) * large;
        int64_t w_at = (o * per_filter + c) * taps;
        struct planes s = {
            .small = at(d_out, (b * outputs + o) * small),
            .large = at(in[0], x_at),
            .to_large = at(d_in[0], x_at),
            .w = at(in[1], w_at),
            .dw = at(d_in[1], w_at),
        };

        for (int64_t t = 0; t < taps; t++)
            add_tap(&p, &s, t);
    }
}

void conv_transpose_backward(const struct node *n, const struct tensor *const *in, const struct tensor *out,
    const struct tensor *d_out, struct tensor *const *d_in, void *scratch) {
    const struct conv_param *param = n->param;
    int64_t channels = in[0]->shape.dim[1], per_group = in[1]->shape.dim[1];
    int64_t outputs = per_group * param->group, inputs = channels / param->group;
    struct window_at placed, p;
    int64_t large, small, taps;

    (void)out;
    (void)scratch;
    if (conv_transpose_place(n, &in[0]->shape, &in[1]->shape, &placed, NULL) < 0)
        return; /* shape() placed it before */
    p = window_to_3d(&placed);
    for (int d = 0; d < 3; d++) {
        int64_t in_d = p.in[d];

        p.in[d] = p.out[d];
        p.out[d] = in_d;
    }
    large = p.in[0] * p.in[1] * p.in[2];
    small = p.out[0] * p.out[1] * p.out[2];
    taps = p.kernel[0] * p.kernel[1] * p.kernel[2];
    if (n->n_in > 2 && d_in[2])
        add_bias(d_out, large, d_in[2]);
    for (int64_t i = 0; i < in[0]->shape.dim[0] * channels * per_group; i++) {
        int64_t o = i % per_group, c = i / per_group % channels, b = i / per_group / channels;
        int64_t x_at = (b * channels + c) * small, w_at = (c * per_group + o) * taps;
        struct planes s = {
            .small = at(in[0], x_at),
            .large = at(d_out, (b * outputs + c / inputs * per_group + o) * large),
            .to_small = at(d_in[0], x_at),
            .w = at(in[1], w_at),
            .dw = at(d_in[1], w_at),
        };

        for (int64_t t = 0; t < taps; t++)
            add_tap(&p, &s, t);
    }
}
