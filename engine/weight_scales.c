/* Scales of a layer (one), of its output channels (one a row), and of groups of neighbours along one
 * dimension (DequantizeLinear's block_size, opset 21). In a file:
 *
 *     integers ── DequantizeLinear(scale, zero point)   (opset 10 per tensor, 13 per axis: (x - zero) *
 * scale) floats ──── Mul(scale [1], or as many dimensions with all but one 1) */
#include <string.h>

#include "engine/weight_rows.h"

static float scale_number(const struct weight *w, int64_t i) {
    float v = 1;

    /* the mapped file is not aligned */
    if (w->scale)
        memcpy(&v, (const char *)w->scale->data + (size_t)i * sizeof(v), sizeof(v));
    return v;
}

static int32_t zero_number(const struct weight *w, int64_t i) {
    int64_t v = 0;

    if (w->zero)
        weight_read(w->zero, 0, i, 1, &v);
    return (int32_t)v;
}

float weight_scale_at(const struct weight *w, int64_t row) {
    return scale_number(w, w->scales == &weight_scales_layer ? 0 : row);
}

int32_t weight_zero_at(const struct weight *w, int64_t row) {
    return zero_number(w, w->scales == &weight_scales_layer ? 0 : row);
}

static int64_t count(const struct tensor *t) {
    int64_t n;

    return t && shape_count(&t->shape, &n) ? n : -1;
}

static int64_t layer_n(const struct weight *w) {
    (void)w;
    return 1;
}

static bool layer_fits(struct weight *w, int64_t axis, int64_t block) {
    (void)axis;
    if (block || weight_set_rows(w, 0) < 0)
        return false;
    if (!w->scale)
        return true;
    if (w->zero && count(w->zero) != 1)
        return false;
    return count(w->scale) == 1 && (w->scale->shape.rank == 0 || !w->zero || w->zero->shape.rank == 0);
}

static void layer_apply(const struct weight *w, float *dense) {
    float scale = scale_number(w, 0), zero = (float)zero_number(w, 0);

    for (int64_t i = 0; w->scale && i < w->rows * w->cols; i++)
        dense[i] = (dense[i] - zero) * scale;
}

const struct weight_scales weight_scales_layer = {
    .name = "layer",
    .fits = layer_fits,
    .n = layer_n,
    .apply = layer_apply,
};

static int64_t channel_n(const struct weight *w) {
    return w->rows;
}

/* One dimension of scales, at `axis` of the weights. */
static bool channel_fits(struct weight *w, int64_t axis, int64_t block) {
    axis = axis < 0 ? axis + w->shape.rank : axis;
    if (block || !w->scale || axis < 0 || axis >= w->shape.rank || weight_set_rows(w, (int)axis) < 0)
        return false;
    return count(w->scale) == w->rows && (!w->zero || count(w->zero) == w->rows);
}

static void channel_apply(const struct weight *w, float *dense) {
    int64_t outer, inner;

    weight_strides(w, &outer, &inner);
    for (int64_t o = 0; o < outer; o++)
        for (int64_t row = 0; row < w->rows; row++) {
            float scale = scale_number(w, row), zero = (float)zero_number(w, row);

            for (int64_t i = 0; i < inner; i++, dense++)
                *dense = (*dense - zero) * scale;
        }
}

const struct weight_scales weight_scales_channel = {
    .name = "channel",
    .fits = channel_fits,
    .n = channel_n,
    .apply = channel_apply,
};

/* A block may be as large as an attribute can say. */
static int64_t n_groups(const struct weight *w) {
    return (w->shape.dim[w->group_axis] - 1) / w->group + 1;
}

static int64_t group_n(const struct weight *w) {
    return w->rows * w->cols / w->shape.dim[w->group_axis] * n_groups(w);
}

static bool group_fits(struct weight *w, int64_t axis, int64_t block) {
    const struct shape *s = w->scale ? &w->scale->shape : NULL;

    axis = axis < 0 ? axis + w->shape.rank : axis;
    if (!s || block < 1 || axis < 0 || axis >= w->shape.rank || s->rank != w->shape.rank ||
        weight_set_rows(w, 0) < 0)
        return false;
    w->group = block;
    w->group_axis = (int)axis;
    for (int i = 0; i < s->rank; i++)
        if (s->dim[i] != (i == axis ? n_groups(w) : w->shape.dim[i]))
            return false;
    return !w->zero || shape_equal(&w->zero->shape, s);
}

static void group_apply(const struct weight *w, float *dense) {
    struct weight along = *w;
    int64_t outer, inner;

    along.axis = w->group_axis;
    weight_strides(&along, &outer, &inner);
    for (int64_t o = 0; o < outer; o++)
        for (int64_t k = 0; k < w->shape.dim[w->group_axis]; k++)
            for (int64_t i = 0; i < inner; i++, dense++) {
                int64_t at = (o * n_groups(w) + k / w->group) * inner + i;

                *dense = (*dense - (float)zero_number(w, at)) * scale_number(w, at);
            }
}

const struct weight_scales weight_scales_group = {
    .name = "group",
    .fits = group_fits,
    .n = group_n,
    .apply = group_apply,
};
