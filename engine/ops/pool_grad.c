/* Gradients of the pools: a maximum's goes to where it stood (the first of equal ones), an average's to all
 * elements under its window. */
#include "engine/ops/common.h"
#include "engine/ops/grad.h"
#include "engine/ops/pool.h"

/* The element of the input plane under tap t of output element `o`; -1: padding. `ret_is_padded` tells
 * whether the tap lies within the padded picture. */
static int64_t under(const struct window_at *p, int64_t o, int64_t t, bool *ret_is_padded) {
    int64_t index = 0, step = 1;
    bool is_inside = true;

    *ret_is_padded = true;
    for (int d = 2; d >= 0; d--) {
        int64_t at = o % p->out[d] * p->stride[d] + t % p->kernel[d] * p->dilation[d] - p->begin[d];

        o /= p->out[d];
        t /= p->kernel[d];
        is_inside &= at >= 0 && at < p->in[d];
        *ret_is_padded &= at < p->in[d] + p->end[d];
        index += at * step;
        step *= p->in[d];
    }
    return is_inside ? index : -1;
}

struct pools {
    struct window_at at;
    int64_t planes, in, out, taps;
};

static bool pools_start(const struct node *n, const struct tensor *x, struct pools *ret) {
    struct window_at placed;

    if (pool_place(n, &x->shape, &placed, NULL) < 0)
        return false; /* shape() placed it before */
    ret->at = window_to_3d(&placed);
    ret->planes = x->shape.dim[0] * x->shape.dim[1];
    ret->in = ret->out = ret->taps = 1;
    for (int d = 0; d < 3; d++) {
        ret->in *= ret->at.in[d];
        ret->out *= ret->at.out[d];
        ret->taps *= ret->at.kernel[d];
    }
    return true;
}

void max_pool_backward(const struct node *n, const struct tensor *const *in, const struct tensor *out,
    const struct tensor *d_out, struct tensor *const *d_in, void *scratch) {
    struct pools p;

    (void)out;
    (void)scratch;
    if (!d_in[0] || !pools_start(n, in[0], &p))
        return;
    for (int64_t i = 0; i < p.planes * p.out; i++) {
        const float *x = (const float *)in[0]->data + i / p.out * p.in;
        int64_t best = -1;
        bool is_padded;

        for (int64_t t = 0; t < p.taps; t++) {
            int64_t k = under(&p.at, i % p.out, t, &is_padded);

            if (k >= 0 && (best < 0 || x[k] > x[best]))
                best = k;
        }
        if (best >= 0)
            ((float *)d_in[0]->data)[i / p.out * p.in + best] += ((const float *)d_out[0].data)[i];
    }
}

void average_pool_backward(const struct node *n, const struct tensor *const *in, const struct tensor *out,
    const struct tensor *d_out, struct tensor *const *d_in, void *scratch) {
    const struct pool_param *param = n->param;
    struct pools p;

    (void)out;
    (void)scratch;
    if (!d_in[0] || !pools_start(n, in[0], &p))
        return;
    for (int64_t i = 0; i < p.planes * p.out; i++) {
        float *dx = (float *)d_in[0]->data + i / p.out * p.in, dy = ((const float *)d_out[0].data)[i];
        int64_t count = 0;
        bool is_padded;

        for (int64_t t = 0; t < p.taps; t++) {
            bool is_inside = under(&p.at, i % p.out, t, &is_padded) >= 0;

            count += param->count_include_pad ? is_padded : is_inside;
        }
        for (int64_t t = 0; t < p.taps; t++) {
            int64_t k = under(&p.at, i % p.out, t, &is_padded);

            if (k >= 0)
                dx[k] += dy / (float)count;
        }
    }
}

/* y = (sum of |x|^p)^(1/p): dx = dy sign(x) (|x| / y)^(p-1); where all are 0 there is none. */
static double norm_slope(double x, double y, int norm) {
    return y > 0 ? copysign(pow(fabs(x) / y, norm - 1), x) : 0;
}

void norm_pool_backward(const struct node *n, const struct tensor *const *in, const struct tensor *out,
    const struct tensor *d_out, struct tensor *const *d_in, void *scratch) {
    const struct pool_param *param = n->param;
    struct pools p;

    (void)scratch;
    if (!d_in[0] || !pools_start(n, in[0], &p))
        return;
    for (int64_t i = 0; i < p.planes * p.out; i++) {
        const float *x = (const float *)in[0]->data + i / p.out * p.in;
        float *dx = (float *)d_in[0]->data + i / p.out * p.in, dy = ((const float *)d_out[0].data)[i];
        double y = (double)((const float *)out[0].data)[i];

        for (int64_t t = 0; t < p.taps; t++) {
            bool is_padded;
            int64_t k = under(&p.at, i % p.out, t, &is_padded);

            if (k >= 0)
                dx[k] += (float)((double)dy * norm_slope((double)x[k], y, param->norm));
        }
    }
}

static int64_t plane_of(const struct shape *s) {
    int64_t n = 1;

    for (int i = 2; i < s->rank; i++)
        n *= s->dim[i];
    return n;
}

void global_average_backward(const struct node *n, const struct tensor *const *in, const struct tensor *out,
    const struct tensor *d_out, struct tensor *const *d_in, void *scratch) {
    int64_t plane = plane_of(&in[0]->shape), count = op_count(&out[0]);

    (void)n;
    (void)scratch;
    for (int64_t i = 0; d_in[0] && i < count * plane; i++)
        ((float *)d_in[0]->data)[i] += ((const float *)d_out[0].data)[i / plane] / (float)plane;
}

void global_max_backward(const struct node *n, const struct tensor *const *in, const struct tensor *out,
    const struct tensor *d_out, struct tensor *const *d_in, void *scratch) {
    int64_t plane = plane_of(&in[0]->shape), count = op_count(&out[0]);

    (void)n;
    (void)scratch;
    for (int64_t c = 0; d_in[0] && plane && c < count; c++) {
        const float *x = (const float *)in[0]->data + c * plane;
        int64_t best = 0;

        for (int64_t i = 1; i < plane; i++)
            best = x[i] > x[best] ? i : best;
        ((float *)d_in[0]->data)[c * plane + best] += ((const float *)d_out[0].data)[c];
    }
}

void global_norm_backward(const struct node *n, const struct tensor *const *in, const struct tensor *out,
    const struct tensor *d_out, struct tensor *const *d_in, void *scratch) {
    const struct pool_param *p = n->param;
    int64_t plane = plane_of(&in[0]->shape), count = op_count(&out[0]);

    (void)scratch;
    for (int64_t i = 0; d_in[0] && i < count * plane; i++) {
        double y = (double)((const float *)out[0].data)[i / plane];
        double slope = norm_slope((double)((const float *)in[0]->data)[i], y, p->norm);

        ((float *)d_in[0]->data)[i] += (float)((double)((const float *)d_out[0].data)[i / plane] * slope);
    }
}
