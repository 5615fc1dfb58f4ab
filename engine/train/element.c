/* Relu and the addition of equal shapes: one pass over memory, in any layout. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "engine/train/rows.h"

struct train_state {
    int64_t n;
};

static int prepare(
    const struct train_layer *l, struct train_state **ret, struct train_needs *needs, struct error *err) {
    struct train_state *s = malloc(sizeof(*s));

    (void)needs;
    if (!s)
        return error_oom(err);
    s->n = train_count(&l->out[0].shape);
    *ret = s;
    return 0;
}

static struct train_state *done(struct train_state *s) {
    free(s);
    return NULL;
}

static bool relu_fits(const struct train_layer *l) {
    return l->in[0]->dtype == DT_F32;
}

static void relu_forward(const struct train_state *s, const struct train_io *io, int phase) {
    const float *x = io->in[0];
    float *y = io->out[0];

    (void)phase;
    for (int64_t i = 0; i < s->n; i++)
        y[i] = x[i] <= 0 ? 0 : x[i]; /* what is no number stays none, so that the loss tells */
}

static void relu_backward(const struct train_state *s, const struct train_io *io, int phase) {
    const float *y = io->out[0], *dy = io->d_out[0];
    float *dx = io->d_in[0];

    (void)phase;
    if (!io->adds[0])
        for (int64_t i = 0; i < s->n; i++)
            dx[i] = y[i] > 0 ? dy[i] : 0;
    else
        for (int64_t i = 0; i < s->n; i++)
            dx[i] += y[i] > 0 ? dy[i] : 0;
}

const struct train_kernel train_relu = {
    .name = "relu",
    .op_types = (const char *const[]){"Relu", NULL},
    .fits = relu_fits,
    .prepare = prepare,
    .n_forward = 1,
    .n_backward = 1,
    .forward = relu_forward,
    .backward = relu_backward,
    .done = done,
    .saves_out = true,
    .is_in_place = true,
};

static bool add_fits(const struct train_layer *l) {
    for (int i = 0; i < 2; i++)
        if (!l->in[i] || l->in[i]->data || l->in[i]->dtype != DT_F32 ||
            !shape_equal(&l->in[i]->shape, &l->out[0].shape))
            return false;
    return l->n_in == 2;
}

static void add_forward(const struct train_state *s, const struct train_io *io, int phase) {
    const float *a = io->in[0], *b = io->in[1];
    float *y = io->out[0];

    (void)phase;
    for (int64_t i = 0; i < s->n; i++)
        y[i] = a[i] + b[i];
}

/* The second first: the gradient of the first may lie in d_out's memory. */
static void add_backward(const struct train_state *s, const struct train_io *io, int phase) {
    (void)phase;
    for (int i = 1; i >= 0; i--)
        if (io->d_in[i] && (io->d_in[i] != io->d_out[0] || io->adds[i]))
            train_store(io->d_in[i], io->d_out[0], s->n, io->adds[i]);
}

const struct train_kernel train_add = {
    .name = "add",
    .op_types = (const char *const[]){"Add", NULL},
    .fits = add_fits,
    .prepare = prepare,
    .n_forward = 1,
    .n_backward = 1,
    .forward = add_forward,
    .backward = add_backward,
    .done = done,
    .is_in_place = true,
};
