/* Scales of a layer (one) and of its output channels (one a row). */
#include <string.h>

#include "engine/weight_rows.h"

float weight_scale_at(const struct weight *w, int64_t row) {
    size_t at = w->scales == &weight_scales_layer ? 0 : (size_t)row;
    float v = 1;

    /* the mapped file is not aligned */
    if (w->scale)
        memcpy(&v, (const char *)w->scale->data + at * sizeof(v), sizeof(v));
    return v;
}

static int64_t layer_n(const struct weight *w) {
    (void)w;
    return 1;
}

static void layer_apply(const struct weight *w, float *dense) {
    float scale = weight_scale_at(w, 0);

    for (int64_t i = 0; w->scale && i < w->rows * w->cols; i++)
        dense[i] *= scale;
}

const struct weight_scales weight_scales_layer = {
    .name = "layer",
    .n = layer_n,
    .apply = layer_apply,
};

static int64_t channel_n(const struct weight *w) {
    return w->rows;
}

static void channel_apply(const struct weight *w, float *dense) {
    int64_t outer, inner;

    weight_strides(w, &outer, &inner);
    for (int64_t o = 0; o < outer; o++)
        for (int64_t row = 0; row < w->rows; row++) {
            float scale = weight_scale_at(w, row);

            for (int64_t i = 0; i < inner; i++)
                *dense++ *= scale;
        }
}

const struct weight_scales weight_scales_channel = {
    .name = "channel",
    .n = channel_n,
    .apply = channel_apply,
};
