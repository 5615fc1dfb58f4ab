/* Relu, Clip and the addition of equal shapes: one pass over memory, in any layout. */
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "engine/pass.h"
#include "engine/train/passes.h"
#include "engine/train/rows.h"

struct train_state {
    int64_t n;
    float low, high;
    const struct train_passes *passes;
};

static int prepare(
    const struct train_layer *l, struct train_state **ret, struct train_needs *needs, struct error *err) {
    struct train_state *s = calloc(1, sizeof(*s));

    (void)needs;
    if (!s)
        return error_oom(err);
    s->n = train_count(&l->out[0].shape);
    s->passes = train_passes_for(l->cpu);
    *ret = s;
    return 0;
}

static struct train_state *done(struct train_state *s) {
    free(s);
    return NULL;
}

static bool read_clamp(const struct train_layer *l, float *low, float *high) {
    struct post p;

    if (strcmp(l->node->op_type, "Relu") == 0) {
        *low = 0;
        *high = HUGE_VALF;
        return true;
    }
    if (!fuse_read_numbers(l->graph, l->node, &p))
        return false;
    *low = p.alpha;
    *high = p.beta;
    return true;
}

static bool clamp_fits(const struct train_layer *l) {
    float low, high;

    return l->in[0]->dtype == DT_F32 && read_clamp(l, &low, &high);
}

static int clamp_prepare(
    const struct train_layer *l, struct train_state **ret, struct train_needs *needs, struct error *err) {
    int r = prepare(l, ret, needs, err);

    if (r == 0)
        (void)read_clamp(l, &(*ret)->low, &(*ret)->high);
    return r;
}

static void clamp_forward(const struct train_state *s, const struct train_io *io, int phase) {
    (void)phase;
    s->passes->clamp(s->n, io->in[0], s->low, s->high, io->out[0]);
}

static void clamp_backward(const struct train_state *s, const struct train_io *io, int phase) {
    (void)phase;
    s->passes->clamp_back(s->n, io->out[0], io->d_out[0], s->low, s->high, io->d_in[0], io->adds[0]);
}

const struct train_kernel train_clamp = {
    .name = "clamp",
    .op_types = (const char *const[]){"Clip", "Relu", NULL},
    .fits = clamp_fits,
    .prepare = clamp_prepare,
    .n_forward = 1,
    .n_backward = 1,
    .forward = clamp_forward,
    .backward = clamp_backward,
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
    (void)phase;
    s->passes->add(s->n, io->in[0], io->in[1], io->out[0]);
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
