/* Views (Reshape, Flatten, …), Concat of channels and GlobalAveragePool, channels last. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "engine/train/bf16.h"
#include "engine/train/rows.h"

struct train_state {
    struct shape in, out;
    int n;                      /* Concat: inputs */
    bool is_bf16;               /* average: the input */
    int64_t rows, width;        /* Concat: pixels, channels of the output; average: of a picture */
    int64_t part[TRAIN_MAX_IO]; /* Concat: channels of the inputs */
};

static int state_new(const struct train_layer *l, struct train_state **ret, struct error *err) {
    struct train_state *s = calloc(1, sizeof(*s));

    if (!s)
        return error_oom(err);
    s->in = l->in[0]->shape;
    s->out = l->out[0].shape;
    *ret = s;
    return 0;
}

static struct train_state *done(struct train_state *s) {
    free(s);
    return NULL;
}

/* ---- views: the elements keep their plain order ---- */

static bool view_fits(const struct train_layer *l) {
    return l->node->op->is_view && l->in[0]->dtype == DT_F32 && l->node->op->backward;
}

static int view_prepare(
    const struct train_layer *l, struct train_state **ret, struct train_needs *needs, struct error *err) {
    int r = state_new(l, ret, err);

    needs->scratch = (size_t)train_count(&l->in[0]->shape) * sizeof(float);
    return r;
}

static void view_forward(const struct train_state *s, const struct train_io *io, int phase) {
    (void)phase;
    if (shape_equal(&s->in, &s->out)) {
        train_store(io->out[0], io->in[0], train_count(&s->in), false);
    } else if (s->out.rank < 3) {
        train_to_plain(&s->in, io->in[0], io->out[0], false);
    } else {
        train_to_plain(&s->in, io->in[0], io->scratch, false);
        train_from_plain(&s->out, io->scratch, io->out[0], false);
    }
}

static void view_backward(const struct train_state *s, const struct train_io *io, int phase) {
    (void)phase;
    if (shape_equal(&s->in, &s->out)) {
        train_store(io->d_in[0], io->d_out[0], train_count(&s->in), io->adds[0]);
    } else if (s->out.rank < 3) {
        train_from_plain(&s->in, io->d_out[0], io->d_in[0], io->adds[0]);
    } else {
        train_to_plain(&s->out, io->d_out[0], io->scratch, false);
        train_from_plain(&s->in, io->scratch, io->d_in[0], io->adds[0]);
    }
}

const struct train_kernel train_view = {
    .name = "view",
    .fits = view_fits,
    .prepare = view_prepare,
    .n_forward = 1,
    .n_backward = 1,
    .forward = view_forward,
    .backward = view_backward,
    .done = done,
};

/* ---- Concat ---- */

static bool concat_fits(const struct train_layer *l) {
    int64_t axis = node_attr_int(l->node, "axis", 1);

    if ((axis != 1 && axis + l->out[0].shape.rank != 1) || l->n_in > TRAIN_MAX_IO)
        return false;
    for (int i = 0; i < l->n_in; i++)
        if (!l->in[i] || l->in[i]->data || l->in[i]->dtype != DT_F32 || l->in[i]->shape.rank < 2)
            return false;
    return true;
}

static int concat_prepare(
    const struct train_layer *l, struct train_state **ret, struct train_needs *needs, struct error *err) {
    int r = state_new(l, ret, err);

    (void)needs;
    if (r < 0)
        return r;
    (*ret)->n = l->n_in;
    (*ret)->width = l->out[0].shape.dim[1];
    (*ret)->rows = (*ret)->width ? train_count(&l->out[0].shape) / (*ret)->width : 0;
    for (int i = 0; i < l->n_in; i++)
        (*ret)->part[i] = l->in[i]->shape.dim[1];
    return 0;
}

static void concat_forward(const struct train_state *s, const struct train_io *io, int phase) {
    float *to = io->out[0];

    (void)phase;
    for (int i = 0; i < s->n; to += s->part[i], i++)
        for (int64_t r = 0; r < s->rows; r++)
            memcpy(to + r * s->width, (const float *)io->in[i] + r * s->part[i],
                (size_t)s->part[i] * sizeof(float));
}

static void concat_backward(const struct train_state *s, const struct train_io *io, int phase) {
    const float *from = io->d_out[0];

    (void)phase;
    for (int i = 0; i < s->n; from += s->part[i], i++)
        for (int64_t r = 0; io->d_in[i] && r < s->rows; r++)
            train_store((float *)io->d_in[i] + r * s->part[i], from + r * s->width, s->part[i], io->adds[i]);
}

const struct train_kernel train_concat = {
    .name = "concat",
    .op_types = (const char *const[]){"Concat", NULL},
    .fits = concat_fits,
    .prepare = concat_prepare,
    .n_forward = 1,
    .n_backward = 1,
    .forward = concat_forward,
    .backward = concat_backward,
    .done = done,
};

/* ---- GlobalAveragePool ---- */

static bool average_fits(const struct train_layer *l) {
    enum dtype t = l->in[0]->dtype;

    return (t == DT_F32 || t == DT_BF16) && l->out[0].dtype == DT_F32 && l->in[0]->shape.rank >= 3 &&
           train_count(&l->in[0]->shape) > 0;
}

static int average_prepare(
    const struct train_layer *l, struct train_state **ret, struct train_needs *needs, struct error *err) {
    int r = state_new(l, ret, err);

    if (r < 0)
        return r;
    (*ret)->is_bf16 = l->in[0]->dtype == DT_BF16;
    (*ret)->width = l->in[0]->shape.dim[1];
    (*ret)->rows = train_count(&l->in[0]->shape) / ((*ret)->width * l->in[0]->shape.dim[0]);
    needs->scratch = (size_t)(*ret)->width * sizeof(float);
    return 0;
}

static void average_forward(const struct train_state *s, const struct train_io *io, int phase) {
    int64_t c = s->width;
    const uint16_t *h = io->in[0];
    const float *x = io->in[0];
    float *y = io->out[0], factor = 1 / (float)s->rows;

    (void)phase;
    memset(y, 0, (size_t)(s->in.dim[0] * c) * sizeof(*y));
    for (int64_t b = 0; b < s->in.dim[0]; b++, y += c) {
        for (int64_t p = 0; s->is_bf16 && p < s->rows; p++, h += c)
            for (int64_t k = 0; k < c; k++)
                y[k] += bf16_read(h[k]);
        for (int64_t p = 0; !s->is_bf16 && p < s->rows; p++, x += c)
            train_store(y, x, c, true);
        for (int64_t k = 0; k < c; k++)
            y[k] *= factor;
    }
}

static void average_backward(const struct train_state *s, const struct train_io *io, int phase) {
    int64_t c = s->width;
    const float *dy = io->d_out[0];
    uint16_t *h = io->d_in[0];
    float *dx = io->d_in[0], *share = io->scratch, factor = 1 / (float)s->rows;

    (void)phase;
    for (int64_t b = 0; b < s->in.dim[0]; b++, dy += c) {
        for (int64_t k = 0; k < c; k++)
            share[k] = dy[k] * factor;
        for (int64_t p = 0; s->is_bf16 && p < s->rows; p++, h += c)
            for (int64_t k = 0; k < c; k++)
                h[k] = bf16_round((io->adds[0] ? bf16_read(h[k]) : 0) + share[k]);
        for (int64_t p = 0; !s->is_bf16 && p < s->rows; p++, dx += c)
            train_store(dx, share, c, io->adds[0]);
    }
}

const struct train_kernel train_global_average = {
    .name = "global_average",
    .op_types = (const char *const[]){"GlobalAveragePool", NULL},
    .fits = average_fits,
    .prepare = average_prepare,
    .n_forward = 1,
    .n_backward = 1,
    .forward = average_forward,
    .backward = average_backward,
    .done = done,
};
