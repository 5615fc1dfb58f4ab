/* Rounds a layer's weights to signed 8-bit with symmetric scales (Krishnamoorthi 2018, "Quantizing deep
 * convolutional networks", section 3.1.1: per output channel), and measures the shift of each output's mean
 * that the rounding causes (Nagel et al. 2019, "Data-free quantization", equation 17: E[y~] - E[y] = error *
 * E[x]). */
#include "compress/quantize.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"

#define QMAX 127

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

static float row_maximum(const void *w, const struct weight_rows *k, int64_t row) {
    float max = 0;

    for (int64_t o = 0; o < k->outer; o++)
        for (int64_t i = 0; i < k->inner; i++)
            max = fmaxf(max, fabsf(weight_at(w, (o * k->rows + row) * k->inner + i)));
    return max;
}

/* A scale of zeros has no reciprocal: rows of zeros get 1. */
static float usable_scale(float s) {
    return s < 1e-30f ? 1 : s;
}

static void choose_scales(
    const void *w, const struct weight_rows *k, const float *min_scale, struct quantized_weights *q) {
    float all = 0;

    for (int64_t r = 0; r < k->rows; r++) {
        float s = row_maximum(w, k, r) / QMAX;

        if (min_scale)
            s = fmaxf(s, min_scale[r]);
        all = fmaxf(all, s);
        if (q->n_scale > 1)
            q->scale[r] = usable_scale(s);
    }
    if (q->n_scale == 1)
        q->scale[0] = usable_scale(all);
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

int quantize_weights(const void *w, const struct weight_rows *k, bool per_channel, const float *min_scale,
    const float *mean, int64_t n_mean, int64_t group, struct quantized_weights *ret, struct error *err) {
    int64_t count = k->outer * k->rows * k->inner;
    _cleanup_(quantized_weights_done) struct quantized_weights q = {.n_scale = per_channel ? k->rows : 1};

    q.q = malloc((size_t)count);
    q.scale = calloc((size_t)q.n_scale, sizeof(*q.scale));
    q.error = calloc((size_t)k->rows, sizeof(*q.error));
    if (!q.q || !q.scale || !q.error)
        return error_oom(err);
    choose_scales(w, k, min_scale, &q);
    for (int64_t r = 0; r < k->rows; r++) {
        float scale = q.scale[per_channel ? r : 0];
        double shift = 0;

        for (int64_t o = 0; o < k->outer; o++)
            for (int64_t i = 0; i < k->inner; i++) {
                int64_t at = (o * k->rows + r) * k->inner + i, channel = input_channel(k, r, o, i, group);
                float v = weight_at(w, at), rounded = fminf(fmaxf(nearbyintf(v / scale), -QMAX), QMAX);

                if (!isfinite(v))
                    return error_set(err, -EBADMSG, "a weight is not a finite number");
                q.q[at] = (int8_t)rounded;
                if (mean && channel < n_mean)
                    shift += (double)(v - scale * rounded) * (double)mean[channel];
            }
        q.error[r] = (float)shift;
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
