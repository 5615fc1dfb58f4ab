/* MaxPool of images, channels last. Where each maximum stood is kept as the tap's number, a byte. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "engine/kernel/window.h"
#include "engine/train/passes.h"
#include "engine/train/rows.h"

struct train_state {
    struct max_pool p;
    const struct train_passes *passes;
};

static bool read_window(const struct train_layer *l, struct kernel_window *w) {
    return kernel_window_read(l->node, &l->in[0]->shape, &l->out[0].shape, NULL, w);
}

/* Every window must have a tap in the picture. */
static bool has_empty_window(int64_t size, int64_t out, int64_t k, int64_t s, int64_t d, int64_t pad) {
    return pad > (k - 1) * d || (out - 1) * s - pad >= size || d > size;
}

static bool max_pool_fits(const struct train_layer *l) {
    const struct shape *x = &l->in[0]->shape, *y = &l->out[0].shape;
    struct kernel_window w;

    if (l->n_out != 1 || l->in[0]->dtype != DT_F32 || x->rank != 4 || !read_window(l, &w) ||
        w.kernel[0] * w.kernel[1] > 255)
        return false;
    for (int i = 0; i < 2; i++)
        if (has_empty_window(
                x->dim[2 + i], y->dim[2 + i], w.kernel[i], w.stride[i], w.dilation[i], w.begin[i]))
            return false;
    return true;
}

static int max_pool_prepare(
    const struct train_layer *l, struct train_state **ret, struct train_needs *needs, struct error *err) {
    struct train_state *s = calloc(1, sizeof(*s));
    const struct shape *x = &l->in[0]->shape, *y = &l->out[0].shape;
    struct kernel_window w;

    if (!s)
        return error_oom(err);
    (void)read_window(l, &w); /* fits() did */
    s->p = (struct max_pool){.n = x->dim[0],
        .c = x->dim[1],
        .ih = x->dim[2],
        .iw = x->dim[3],
        .oh = y->dim[2],
        .ow = y->dim[3],
        .kh = (int)w.kernel[0],
        .kw = (int)w.kernel[1],
        .sh = (int)w.stride[0],
        .sw = (int)w.stride[1],
        .dh = (int)w.dilation[0],
        .dw = (int)w.dilation[1],
        .top = (int)w.begin[0],
        .left = (int)w.begin[1],
        .c_tap = (x->dim[1] + 15) / 16 * 16};
    s->passes = train_passes_for(l->cpu);
    needs->saved = (size_t)(s->p.n * s->p.oh * s->p.ow * s->p.c_tap);
    *ret = s;
    return 0;
}

static struct train_state *max_pool_done(struct train_state *s) {
    free(s);
    return NULL;
}

static void max_pool_forward(const struct train_state *s, const struct train_io *io, int phase) {
    (void)phase;
    s->passes->max_pool(&s->p, io->in[0], io->out[0], io->saved);
}

static void max_pool_backward(const struct train_state *s, const struct train_io *io, int phase) {
    (void)phase;
    if (!io->adds[0])
        memset(io->d_in[0], 0, (size_t)(s->p.n * s->p.ih * s->p.iw * s->p.c) * sizeof(float));
    s->passes->max_pool_back(&s->p, io->saved, io->d_out[0], io->d_in[0]);
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
