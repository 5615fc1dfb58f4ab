#include "compress/layer_rows.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "compress/patches.h"
#include "compress/probe.h"

struct reader {
    const struct node *node;
    const struct shape *weight;
    struct layer_rows rows;
    int64_t per_sample, at;
    const struct tensor *input; /* of the batch */
    bool is_odd;
};

void layer_rows_done(struct layer_rows *r) {
    free(r->x);
    free(r->y);
    free(r->now);
    *r = (struct layer_rows){0};
}

static bool is_conv(const struct reader *r) {
    return r->weight->rank > 2;
}

/* A network may fold pixels into the batch: then its rows are not the samples that room was made for. */
static bool is_odd(struct reader *r, const struct tensor *y) {
    int rank = is_conv(r) ? r->weight->rank : 2;

    r->is_odd |= y->dtype != DT_F32 || y->shape.rank != rank || y->shape.dim[1] != r->rows.channels ||
                 y->shape.dim[0] * r->per_sample > r->rows.n - r->at;
    return r->is_odd;
}

static int64_t pixels_of(const struct tensor *y) {
    int64_t n = 1;

    for (int i = 2; i < y->shape.rank; i++)
        n *= y->shape.dim[i];
    return n;
}

/* All channels at the pixel of row `row`, of sample `sample` of the batch. */
static void take_outputs(
    const struct reader *r, const struct tensor *y, int64_t sample, int64_t row, int64_t pixels, float *to) {
    const float *data = (const float *)y->data + sample * r->rows.channels * pixels;

    for (int64_t c = 0; c < r->rows.channels; c++)
        to[row * r->rows.channels + c] = data[c * pixels + patch_pixel(row, pixels)];
}

static void on_parent(void *ctx, size_t k, const struct tensor *y) {
    struct reader *r = ctx;
    int64_t pixels = pixels_of(y);

    (void)k;
    if (is_odd(r, y) || pixels < 1)
        return;
    for (int64_t i = 0; i < y->shape.dim[0] * r->per_sample; i++, r->at++)
        take_outputs(r, y, i / r->per_sample, r->at, pixels, r->rows.y);
}

/* Value 0 is the layer's input, 1 its output. */
static void on_layer(void *ctx, size_t k, const struct tensor *t) {
    struct reader *r = ctx;
    struct kernel_window w = {0};
    int64_t pixels, item = 0;

    if (k == 0) {
        r->input = t;
        return;
    }
    pixels = pixels_of(t);
    if (is_odd(r, t) || pixels < 1 || r->input->dtype != DT_F32 || r->input->shape.rank != t->shape.rank ||
        !shape_count(&r->input->shape, &item) ||
        (is_conv(r) && !kernel_window_read(r->node, &r->input->shape, &t->shape, r->weight, &w))) {
        r->is_odd = true;
        return;
    }
    item /= t->shape.dim[0];
    for (int64_t i = 0; i < t->shape.dim[0] * r->per_sample; i++, r->at++) {
        const float *from = (const float *)r->input->data + i / r->per_sample * item;
        float *to = r->rows.x + r->at * r->rows.k;

        take_outputs(r, t, i / r->per_sample, r->at, pixels, r->rows.now);
        if (is_conv(r))
            patch_take(&w, &r->input->shape, &t->shape, from, patch_pixel(r->at, pixels), to);
        else
            memcpy(to, from, (size_t)r->rows.k * sizeof(*to));
    }
}

int layer_rows_read(const struct graph *g, int node, const struct shape *weight, const struct graph *parent,
    int parent_value, const struct samples *samples, int64_t rows, struct layer_rows *ret,
    struct error *err) {
    const struct node *n = &g->nodes[node];
    struct reader r = {.node = n, .weight = weight};
    int values[2] = {n->in[0], n->out[0]}, e;
    int64_t count = 0, group = node_attr_int(n, "group", 1);
    bool last = weight->rank == 2 && !node_attr_int(n, "transB", 0);

    shape_count(weight, &count);
    r.rows.channels = weight->dim[last ? 1 : 0];
    r.rows.k = r.rows.channels > 0 ? count / r.rows.channels * group : 0;
    r.per_sample = is_conv(&r) ? (rows + samples->n - 1) / samples->n : 1;
    r.rows.n = r.per_sample * samples->n;
    r.rows.x = malloc((size_t)(r.rows.n * r.rows.k) * sizeof(float) + 1);
    r.rows.y = malloc((size_t)(r.rows.n * r.rows.channels) * sizeof(float) + 1);
    r.rows.now = malloc((size_t)(r.rows.n * r.rows.channels) * sizeof(float) + 1);
    if (!r.rows.x || !r.rows.y || !r.rows.now)
        e = error_oom(err);
    else
        e = probe_run(parent, &parent_value, 1, samples, NULL, on_parent, &r, err);
    r.is_odd |= e == 0 && r.at != r.rows.n;
    r.at = 0;
    if (e == 0 && !r.is_odd)
        e = probe_run(g, values, 2, samples, NULL, on_layer, &r, err);
    if (e < 0) {
        layer_rows_done(&r.rows);
        return e;
    }
    if (r.is_odd || r.at != r.rows.n)
        r.rows.n = 0;
    *ret = r.rows;
    return 0;
}
