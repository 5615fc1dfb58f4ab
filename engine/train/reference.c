/* Any operator through its reference `forward` and `backward`, in plain layouts: values that lie channels
 * last are turned on the way in and out. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "engine/train/rows.h"

struct train_state {
    const struct node *node;
    int n_in, n_out;
    struct tensor in[TRAIN_MAX_IO], out[TRAIN_MAX_IO]; /* plain; data: only of constants */
    bool is_given[TRAIN_MAX_IO], is_lane[TRAIN_MAX_IO];
    bool is_any_layout;
    /* in the lane's scratch: plain copies, then what forward and backward want for themselves */
    size_t at_in[TRAIN_MAX_IO], at_out[TRAIN_MAX_IO], at_d_in[TRAIN_MAX_IO], at_d_out[TRAIN_MAX_IO], at_own;
};

static size_t bytes_of(const struct tensor *t) {
    size_t n = 0;

    (void)shape_bytes(&t->shape, t->dtype, &n);
    return (n + 63) / 64 * 64;
}

static bool reference_fits(const struct train_layer *l) {
    bool wants = false;

    for (int i = 0; i < l->n_in && i < TRAIN_MAX_IO; i++)
        wants |= l->wants[i];
    return l->n_in <= TRAIN_MAX_IO && l->n_out <= TRAIN_MAX_IO && (l->node->op->backward || !wants);
}

/* Elementwise over memory when all tensors of the lane have one shape. */
static bool has_one_shape(const struct train_layer *l) {
    if (l->node->op->layouts != OP_LAYOUT_ANY)
        return false;
    for (int i = 0; i < l->n_in; i++)
        if (l->in[i] && !shape_equal(&l->in[i]->shape, &l->out[0].shape) &&
            train_count(&l->in[i]->shape) != 1)
            return false;
    for (int i = 0; i < l->n_in; i++)
        if (l->in[i] && l->in[i]->data && train_count(&l->in[i]->shape) != 1)
            return false;
    return true;
}

static void place(struct train_state *s, struct train_needs *needs) {
    size_t at = 0, forward, backward;
    const struct tensor *in[TRAIN_MAX_IO];

    for (int i = 0; i < s->n_in; i++) {
        in[i] = s->is_given[i] ? &s->in[i] : NULL;
        s->at_in[i] = at;
        at += s->is_lane[i] ? bytes_of(&s->in[i]) : 0;
        s->at_d_in[i] = at;
        at += s->is_given[i] ? bytes_of(&s->in[i]) : 0;
    }
    for (int o = 0; o < s->n_out; o++) {
        s->at_out[o] = at;
        at += bytes_of(&s->out[o]);
        s->at_d_out[o] = at;
        at += bytes_of(&s->out[o]);
    }
    s->at_own = at;
    forward = s->node->op->scratch ? s->node->op->scratch(s->node, in, s->out) : 0;
    backward = s->node->op->backward_scratch ? s->node->op->backward_scratch(s->node, in, s->out) : 0;
    needs->scratch = at + (forward > backward ? forward : backward);
}

static int reference_prepare(
    const struct train_layer *l, struct train_state **ret, struct train_needs *needs, struct error *err) {
    struct train_state *s = calloc(1, sizeof(*s));

    if (!s)
        return error_oom(err);
    s->node = l->node;
    s->n_in = l->n_in;
    s->n_out = l->n_out;
    s->is_any_layout = has_one_shape(l);
    for (int i = 0; i < l->n_in; i++) {
        s->is_given[i] = l->in[i] != NULL;
        if (!l->in[i])
            continue;
        s->in[i] = *l->in[i];
        s->in[i].layout = LAYOUT_PLAIN;
        s->is_lane[i] = !l->in[i]->data;
    }
    for (int o = 0; o < l->n_out; o++) {
        s->out[o] = l->out[o];
        s->out[o].layout = LAYOUT_PLAIN;
        s->out[o].data = NULL;
    }
    place(s, needs);
    *ret = s;
    return 0;
}

static struct train_state *reference_done(struct train_state *s) {
    free(s);
    return NULL;
}

struct bound {
    struct tensor in[TRAIN_MAX_IO], out[TRAIN_MAX_IO];
    const struct tensor *in_ptr[TRAIN_MAX_IO];
};

static bool is_turned(const struct train_state *s, const struct tensor *t) {
    return !s->is_any_layout && t->shape.rank >= 3 && t->dtype == DT_F32;
}

/* Pointers of a call: the lane's memory itself where that is plain, else the copy. */
static void bind(const struct train_state *s, const struct train_io *io, bool copies_out, struct bound *b) {
    char *scratch = io->scratch;

    for (int i = 0; i < s->n_in; i++) {
        b->in_ptr[i] = NULL;
        if (!s->is_given[i])
            continue;
        b->in[i] = s->in[i];
        b->in[i].data = (void *)(uintptr_t)io->in[i];
        b->in_ptr[i] = &b->in[i];
        if (!s->is_lane[i] || !is_turned(s, &s->in[i]))
            continue;
        b->in[i].data = scratch + s->at_in[i];
        train_to_plain(&s->in[i].shape, io->in[i], b->in[i].data, false);
    }
    for (int o = 0; o < s->n_out; o++) {
        b->out[o] = s->out[o];
        b->out[o].data = io->out[o];
        if (!is_turned(s, &s->out[o]))
            continue;
        b->out[o].data = scratch + s->at_out[o];
        if (copies_out)
            train_to_plain(&s->out[o].shape, io->out[o], b->out[o].data, false);
    }
}

static void reference_forward(const struct train_state *s, const struct train_io *io, int phase) {
    struct bound b;

    (void)phase;
    bind(s, io, false, &b);
    s->node->op->forward(s->node, b.in_ptr, b.out, (char *)io->scratch + s->at_own);
    for (int o = 0; o < s->n_out; o++)
        if (b.out[o].data != io->out[o])
            train_from_plain(&s->out[o].shape, b.out[o].data, io->out[o], false);
}

static void reference_backward(const struct train_state *s, const struct train_io *io, int phase) {
    struct tensor d_in[TRAIN_MAX_IO], d_out[TRAIN_MAX_IO], *d_in_ptr[TRAIN_MAX_IO];
    char *scratch = io->scratch;
    struct bound b;

    (void)phase;
    bind(s, io, true, &b);
    for (int o = 0; o < s->n_out; o++) {
        d_out[o] = s->out[o];
        d_out[o].data = (void *)(uintptr_t)io->d_out[o];
        if (io->d_out[o] && is_turned(s, &s->out[o])) {
            d_out[o].data = scratch + s->at_d_out[o];
            train_to_plain(&s->out[o].shape, io->d_out[o], d_out[o].data, false);
        }
    }
    for (int i = 0; i < s->n_in; i++) {
        d_in_ptr[i] = NULL;
        if (!io->d_in[i])
            continue;
        d_in[i] = s->in[i];
        d_in[i].data = scratch + s->at_d_in[i];
        d_in_ptr[i] = &d_in[i];
        memset(d_in[i].data, 0, bytes_of(&s->in[i]));
    }
    s->node->op->backward(s->node, b.in_ptr, b.out, d_out, d_in_ptr, scratch + s->at_own);
    for (int i = 0; i < s->n_in; i++) {
        if (!d_in_ptr[i])
            continue;
        if (s->is_lane[i] && is_turned(s, &s->in[i]))
            train_from_plain(&s->in[i].shape, d_in[i].data, io->d_in[i], io->adds[i]);
        else
            train_store(io->d_in[i], d_in[i].data, train_count(&s->in[i].shape), io->adds[i]);
    }
}

const struct train_kernel train_reference = {
    .name = "reference",
    .fits = reference_fits,
    .prepare = reference_prepare,
    .n_forward = 1,
    .n_backward = 1,
    .forward = reference_forward,
    .backward = reference_backward,
    .done = reference_done,
    .saves_in = true,
    .saves_out = true,
};
