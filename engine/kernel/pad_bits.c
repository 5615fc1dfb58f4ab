/* Pad of a picture of signs by +1 or -1. */
#include <stdlib.h>
#include <string.h>

#include "engine/kernel/bits.h"
#include "engine/kernel/rows.h"
#include "engine/ops/pad.h"

struct kernel_state {
    int64_t n, words, h, w, oh, ow; /* one-dimensional: h is 1 */
    int64_t top, left;
    uint64_t fill[]; /* a pixel of padding */
};

static bool fill_value(const struct layer *l, float *ret) {
    int64_t n;

    *ret = node_attr_float(l->node, "value", 0);
    if (l->n_in < 3 || !l->in[2])
        return true;
    if (!l->in[2]->data || l->in[2]->dtype != DT_F32 || !shape_count(&l->in[2]->shape, &n) || n != 1)
        return false;
    memcpy(ret, l->in[2]->data, sizeof(*ret));
    return true;
}

static bool pad_fits(const struct cpu *cpu, const struct layer *l) {
    int rank = l->in[0]->shape.rank;
    struct pad_at at;
    float v;

    (void)cpu;
    if (l->in[0]->data || !l->graph->values[l->node->in[0]].is_sign || rank < 3 || rank > 4 ||
        !fill_value(l, &v) || (v < 1 && v > -1) || v > 1 || v < -1 ||
        pad_place(l->node, l->in, &at, NULL) < 0 || at.mode != PAD_CONSTANT)
        return false;
    for (int d = 0; d < rank; d++)
        if (at.begin[d] < 0 || at.end[d] < 0 || (d < 2 && (at.begin[d] || at.end[d])))
            return false;
    return true;
}

static int pad_prepare(const struct layer *l, struct pack_cache *packs, struct kernel_state **ret,
    size_t *ret_scratch, struct error *err) {
    const struct shape *x = &l->in[0]->shape, *y = &l->out[0].shape;
    int64_t c = x->dim[1], words = bits_words(c);
    struct kernel_state *s = calloc(1, sizeof(*s) + (size_t)words * sizeof(s->fill[0]));
    bool is_2d = x->rank == 4;
    struct pad_at at;
    float v = 0;

    (void)packs;
    (void)ret_scratch;
    if (!s)
        return error_oom(err);
    (void)pad_place(l->node, l->in, &at, NULL); /* fits() said it can */
    (void)fill_value(l, &v);
    s->n = x->dim[0];
    s->words = words;
    s->h = is_2d ? x->dim[2] : 1;
    s->w = x->dim[x->rank - 1];
    s->oh = is_2d ? y->dim[2] : 1;
    s->ow = y->dim[y->rank - 1];
    s->top = is_2d ? at.begin[2] : 0;
    s->left = at.begin[x->rank - 1];
    for (int64_t i = 0; i < c && v > 0; i++)
        s->fill[i / 64] |= (uint64_t)1 << i % 64;
    *ret = s;
    return 0;
}

static uint64_t *put_fill(const struct kernel_state *s, uint64_t *y, int64_t pixels) {
    for (int64_t p = 0; p < pixels; p++, y += s->words)
        memcpy(y, s->fill, (size_t)s->words * sizeof(*y));
    return y;
}

static void pad_run(const struct kernel_state *s, const struct run_io *io) {
    const uint64_t *x = io->in[0];
    uint64_t *y = io->out[0];
    int64_t row = s->w * s->words;

    for (int64_t n = 0; n < s->n; n++) {
        y = put_fill(s, y, s->top * s->ow);
        for (int64_t r = 0; r < s->h; r++, x += row) {
            y = put_fill(s, y, s->left);
            memcpy(y, x, (size_t)row * sizeof(*y));
            y = put_fill(s, y + row, s->ow - s->w - s->left);
        }
        y = put_fill(s, y, (s->oh - s->h - s->top) * s->ow);
    }
}

static struct kernel_state *pad_done(struct kernel_state *s) {
    free(s);
    return NULL;
}

const struct kernel kernel_pad_bits = {
    .name = "pad_bits",
    .op_types = (const char *const[]){"Pad", NULL},
    .fits = pad_fits,
    .layouts = {.in = 1u << LAYOUT_BITS, .out = 1u << LAYOUT_BITS},
    .prepare = pad_prepare,
    .run = pad_run,
    .done = pad_done,
};
