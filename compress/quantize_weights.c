/* Rounds a layer's weights to signed integers with symmetric scales (Krishnamoorthi 2018, "Quantizing deep
 * convolutional networks", section 3.1.1: per output channel; below 8 bits the scale of the least squared
 * error, Choukroun et al. 2019, "Low-bit quantization of neural networks for efficient inference"), and
 * measures the shift of each output's mean that the rounding causes (Nagel et al. 2019, "Data-free
 * quantization", equation 17: E[y~] - E[y] = error * E[x]). */
#include "compress/quantize.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"

#define GRID          64
#define GRID_SMALLEST 0.3f

int quantized_least(int bits) {
    return bits == 8 ? -127 : -(1 << (bits - 1));
}

int quantized_most(int bits) {
    return (1 << (bits - 1)) - 1;
}

int weight_rows_of(const struct graph *g, const struct node *n, struct weight_rows *ret, struct error *err) {
    const struct shape *s = &g->values[n->in[1]].init->shape;
    int axis = s->rank > 2 || node_attr_int(n, "transB", 0) ? 0 : s->rank - 1;
    struct weight_rows w = {.shape = *s, .axis = axis, .outer = 1, .inner = 1};

    if (s->rank < 2)
        return error_set(err, -EBADMSG, "node '%s': weights of rank %d cannot be quantised", n->id, s->rank);
    for (int i = 0; i < s->rank; i++) {
        if (i < axis)
            w.outer *= s->dim[i];
        if (i > axis)
            w.inner *= s->dim[i];
    }
    w.rows = s->dim[axis];
    *ret = w;
    return 0;
}

static float weight_at(const void *w, int64_t i) {
    float v;

    /* initialisers in a mapped file are not aligned */
    memcpy(&v, (const char *)w + (size_t)i * sizeof(v), sizeof(v));
    return v;
}

/* A scale of zeros has no reciprocal: rows of zeros get 1. */
static float usable_scale(float s) {
    return s < 1e-30f ? 1 : s;
}

static int64_t row_of(const struct weight_rows *k, int64_t at) {
    return at / k->inner % k->rows;
}

int64_t quantized_scale_of(const struct quantized_weights *q, const struct weight_rows *k, int64_t at) {
    int64_t row = row_of(k, at), cols = k->outer * k->inner,
            n = q->block ? (cols + q->block - 1) / q->block : 1;

    if (q->n_scale == 1)
        return 0;
    if (!q->block)
        return row;
    return k->axis == 0 ? row * n + at % k->inner / q->block : at / k->rows / q->block * k->rows + row;
}

static float code_of(float quotient, int bits) {
    return fminf(fmaxf(nearbyintf(quotient), (float)quantized_least(bits)), (float)quantized_most(bits));
}

/* Of each scale the share of it that gives the least squared error: few levels are better spent inside. */
static int search_scales(
    const void *w, const struct weight_rows *k, struct quantized_weights *q, struct error *err) {
    size_t n = (size_t)q->n_scale;
    int64_t count = k->outer * k->rows * k->inner;
    _cleanup_(freep) double *sum = calloc(n, sizeof(*sum)), *best = calloc(n, sizeof(*best));
    _cleanup_(freep) float *largest = malloc(n * sizeof(*largest));

    if (!sum || !best || !largest)
        return error_oom(err);
    memcpy(largest, q->scale, n * sizeof(*largest));
    for (int step = 0; step <= GRID; step++) {
        float share = 1 - (1 - GRID_SMALLEST) * (float)step / GRID;

        memset(sum, 0, n * sizeof(*sum));
        for (int64_t at = 0; at < count; at++) {
            int64_t i = quantized_scale_of(q, k, at);
            float v = weight_at(w, at), s = largest[i] * share, e = v - s * code_of(v / s, q->bits);

            sum[i] += (double)e * (double)e;
        }
        for (size_t i = 0; i < n; i++)
            if (step == 0 || sum[i] < best[i]) {
                best[i] = sum[i];
                q->scale[i] = largest[i] * share;
            }
    }
    return 0;
}

static int choose_scales(const void *w, const struct weight_rows *k, const struct weight_rounding *o,
    struct quantized_weights *q, struct error *err) {
    int64_t count = k->outer * k->rows * k->inner;
    int r = 0;

    for (int64_t at = 0; at < count; at++) {
        float v = weight_at(w, at), *s = &q->scale[quantized_scale_of(q, k, at)];

        if (!isfinite(v))
            return error_set(err, -EBADMSG, "a weight is not a finite number");
        *s = fmaxf(*s, fabsf(v) / (float)quantized_most(q->bits));
    }
    for (int64_t i = 0; i < q->n_scale; i++)
        q->scale[i] = usable_scale(q->scale[i]);
    if (q->bits < 8)
        r = search_scales(w, k, q, err);
    for (int64_t row = 0; o->min_scale && !q->block && row < k->rows; row++) {
        float *s = &q->scale[q->n_scale > 1 ? row : 0];

        *s = usable_scale(fmaxf(*s, o->min_scale[row]));
    }
    return r;
}

/* Input channel that weight element (outer o, inner i) of a row multiplies. Convolution: inner = channel of
 * the group x taps; Gemm and MatMul with outputs last: outer = channel; with transB: inner = channel. */
static int64_t input_channel(const struct weight_rows *k, int64_t row, int64_t o, int64_t i, int64_t group) {
    if (k->shape.rank > 2) {
        int64_t per_group = k->shape.dim[1], taps = k->inner / per_group;

        return row / (k->rows / group) * per_group + i / taps;
    }
    return k->axis == 0 ? i : o;
}

int quantize_weights(const void *w, const struct weight_rows *k, const struct weight_rounding *o,
    struct quantized_weights *ret, struct error *err) {
    int64_t cols = k->outer * k->inner, count = cols * k->rows;
    _cleanup_(quantized_weights_done) struct quantized_weights q = {
        .n_scale = o->block         ? (cols + o->block - 1) / o->block * k->rows
                   : o->per_channel ? k->rows
                                    : 1,
        .bits = o->bits,
        .block = o->block,
    };
    int r;

    q.q = malloc((size_t)count + 1);
    q.scale = calloc((size_t)q.n_scale + 1, sizeof(*q.scale));
    q.error = calloc((size_t)k->rows + 1, sizeof(*q.error));
    if (!q.q || !q.scale || !q.error)
        return error_oom(err);
    r = choose_scales(w, k, o, &q, err);
    if (r < 0)
        return r;
    for (int64_t row = 0; row < k->rows; row++) {
        double shift = 0;

        for (int64_t outer = 0; outer < k->outer; outer++)
            for (int64_t i = 0; i < k->inner; i++) {
                int64_t at = (outer * k->rows + row) * k->inner + i;
                int64_t channel = input_channel(k, row, outer, i, o->group);
                float v = weight_at(w, at), scale = q.scale[quantized_scale_of(&q, k, at)];
                float code = code_of(v / scale, q.bits);

                q.q[at] = (int8_t)code;
                if (o->mean && channel < o->n_mean)
                    shift += (double)(v - scale * code) * (double)o->mean[channel];
            }
        q.error[row] = (float)shift;
    }
    *ret = q;
    q = (struct quantized_weights){0};
    return 0;
}

void quantized_weights_done(struct quantized_weights *w) {
    free(w->q);
    free(w->scale);
    free(w->error);
    *w = (struct quantized_weights){0};
}
