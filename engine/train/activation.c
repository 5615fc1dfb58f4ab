/* Transforms of activations (transform.h), in whatever layout the value lies. */
#include <errno.h>
#include <stdlib.h>

#include "engine/train/rows.h"
#include "engine/train/session.h"

struct train_state {
    struct session_activation what;
    bool has_own; /* a learned number, in[1] */
    int64_t n, features;
};

static bool activation_fits(const struct train_layer *l) {
    return l->node->op == &session_activation_op;
}

static int activation_prepare(
    const struct train_layer *l, struct train_state **ret, struct train_needs *needs, struct error *err) {
    struct train_state *s = calloc(1, sizeof(*s));

    (void)needs;
    if (!s)
        return error_oom(err);
    s->what = *(const struct session_activation *)l->node->param;
    s->has_own = l->n_in > 1;
    s->n = train_count(&l->out[0].shape);
    s->features = l->out[0].shape.rank > 0 ? s->n / l->out[0].shape.dim[0] : s->n;
    *ret = s;
    return 0;
}

static struct train_state *activation_done(struct train_state *s) {
    free(s);
    return NULL;
}

static float learned(const struct train_state *s, const struct train_io *io) {
    return s->has_own ? *(const float *)io->in[1] : 0;
}

static void activation_forward(const struct train_state *s, const struct train_io *io, int phase) {
    (void)phase;
    s->what.row->forward(s->what.param, learned(s, io), io->in[0], s->n, io->out[0]);
}

static void activation_backward(const struct train_state *s, const struct train_io *io, int phase) {
    float *own = s->has_own ? io->d_in[1] : NULL;
    double d;

    (void)phase;
    d = s->what.row->backward(
        s->what.param, learned(s, io), io->in[0], io->d_out[0], s->n, s->features, io->d_in[0], io->adds[0]);
    if (own)
        *own = (io->adds[1] ? *own : 0) + (float)d;
}

const struct train_kernel train_activation = {
    .name = "activation",
    .op_types = (const char *const[]){"ActivationTransform", NULL},
    .fits = activation_fits,
    .prepare = activation_prepare,
    .n_forward = 1,
    .n_backward = 1,
    .forward = activation_forward,
    .backward = activation_backward,
    .done = activation_done,
    .saves_in = true,
};
