/* MaxPool of images, channels last. Where each maximum stood is kept as the tap's number, a byte. */
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "engine/kernel/window.h"
#include "engine/train/rows.h"

struct train_state {
    struct kernel_window w;
    int64_t n, c, ih, iw, oh, ow;
};

static bool max_pool_fits(const struct train_layer *l) {
    struct kernel_window w;

    return l->n_out == 1 && l->in[0]->dtype == DT_F32 && l->in[0]->shape.rank == 4 &&
           kernel_window_read(l->node, &l->in[0]->shape, &l->out[0].shape, NULL, &w) &&
           w.kernel[0] * w.kernel[1] <= 255;
}

static int max_pool_prepare(
    const struct train_layer *l, struct train_state **ret, struct train_needs *needs, struct error *err) {
    struct train_state *s = calloc(1, sizeof(*s));

    if (!s)
        return error_oom(err);
    (void)kernel_window_read(l->node, &l->in[0]->shape, &l->out[0].shape, NULL, &s->w); /* fits() did */
    s->n = l->in[0]->shape.dim[0];
    s->c = l->in[0]->shape.dim[1];
    s->ih = l->in[0]->shape.dim[2];
    s->iw = l->in[0]->shape.dim[3];
    s->oh = l->out[0].shape.dim[2];
    s->ow = l->out[0].shape.dim[3];
    needs->saved = (size_t)train_count(&l->out[0].shape);
    *ret = s;
    return 0;
}

static struct train_state *max_pool_done(struct train_state *s) {
    free(s);
    return NULL;
}

/* Pixel of the input under tap t of output (y, x); -1: padding. */
static int64_t under(const struct train_state *s, int64_t y, int64_t x, int64_t t) {
    int64_t h = y * s->w.stride[0] + t / s->w.kernel[1] * s->w.dilation[0] - s->w.begin[0];
    int64_t w = x * s->w.stride[1] + t % s->w.kernel[1] * s->w.dilation[1] - s->w.begin[1];

    return h < 0 || h >= s->ih || w < 0 || w >= s->iw ? -1 : h * s->iw + w;
}

static void max_pool_forward(const struct train_state *s, const struct train_io *io, int phase) {
    int64_t taps = s->w.kernel[0] * s->w.kernel[1];
    uint8_t *tap = io->saved;
    float *y = io->out[0];

    (void)phase;
    for (int64_t i = 0; i < s->n * s->oh * s->ow; i++, y += s->c, tap += s->c) {
        int64_t o = i % (s->oh * s->ow);
        const float *image = (const float *)io->in[0] + i / (s->oh * s->ow) * s->ih * s->iw * s->c;

        for (int64_t c = 0; c < s->c; c++)
            y[c] = -HUGE_VALF;
        memset(tap, 0, (size_t)s->c);
        for (int64_t t = 0; t < taps; t++) {
            int64_t pixel = under(s, o / s->ow, o % s->ow, t);
            const float *x = image + pixel * s->c;

            for (int64_t c = 0; pixel >= 0 && c < s->c; c++) {
                bool wins = x[c] > y[c];

                y[c] = wins ? x[c] : y[c];
                tap[c] = wins ? (uint8_t)t : tap[c];
            }
        }
    }
}

static void max_pool_backward(const struct train_state *s, const struct train_io *io, int phase) {
    const uint8_t *tap = io->saved;
    const float *dy = io->d_out[0];

    (void)phase;
    if (!io->adds[0])
        memset(io->d_in[0], 0, (size_t)(s->n * s->ih * s->iw * s->c) * sizeof(float));
    for (int64_t i = 0; i < s->n * s->oh * s->ow; i++, dy += s->c, tap += s->c) {
        int64_t o = i % (s->oh * s->ow);
        float *image = (float *)io->d_in[0] + i / (s->oh * s->ow) * s->ih * s->iw * s->c;

        for (int64_t c = 0; c < s->c; c++) {
            int64_t pixel = under(s, o / s->ow, o % s->ow, tap[c]);

            if (pixel >= 0)
                image[pixel * s->c + c] += dy[c];
        }
    }
}

const struct train_kernel train_max_pool = {
    .name = "max_pool",
    .op_types = (const char *const[]){"MaxPool", NULL},
    .fits = max_pool_fits,
    .prepare = max_pool_prepare,
    .n_forward = 1,
    .n_backward = 1,
    .forward = max_pool_forward,
    .backward = max_pool_backward,
    .done = max_pool_done,
};
