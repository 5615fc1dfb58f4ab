/* Resize and Upsample of float images, channels last: nearest and (bi)linear in both spatial dimensions, as
 * the operator says where each output pixel reads. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "engine/kernel/isa.h"
#include "engine/kernel/rows.h"
#include "engine/ops/resize.h"

/* Where index i of the output reads: two neighbours and the weight of the second; nearest: low alone. */
struct tap {
    int64_t low, high;
    float weight;
};

typedef void blend_fn(
    const float *a, const float *b, const float *c, const float *d, const float *w, float *y, int64_t n);

struct kernel_state {
    int64_t n, c, h_in, w_in, h_out, w_out;
    bool is_nearest;
    struct tap *rows, *cols;
    blend_fn *blend;
};

KERNEL_INLINE void blend_body(
    const float *a, const float *b, const float *c, const float *d, const float *w, float *y, int64_t n) {
    const float wa = w[0], wb = w[1], wc = w[2], wd = w[3];

    for (int64_t i = 0; i < n; i++)
        y[i] = wa * a[i] + wb * b[i] + wc * c[i] + wd * d[i];
}

static void blend_c(
    const float *a, const float *b, const float *c, const float *d, const float *w, float *y, int64_t n) {
    blend_body(a, b, c, d, w, y, n);
}

KERNEL_AVX2 static void blend_avx2(
    const float *a, const float *b, const float *c, const float *d, const float *w, float *y, int64_t n) {
    blend_body(a, b, c, d, w, y, n);
}

KERNEL_AVX512 static void blend_avx512(
    const float *a, const float *b, const float *c, const float *d, const float *w, float *y, int64_t n) {
    blend_body(a, b, c, d, w, y, n);
}

static struct kernel_state *resize_done(struct kernel_state *s) {
    if (!s)
        return NULL;
    free(s->rows);
    free(s->cols);
    free(s);
    return NULL;
}
DEFINE_CLEANUP(struct kernel_state *, resize_done)

static bool resize_fits(const struct cpu *cpu, const struct layer *l) {
    const struct shape *x = &l->in[0]->shape, *y = &l->out[0].shape;

    (void)cpu;
    for (int i = 1; i < l->n_in; i++) {
        if (l->in[i] && !l->in[i]->data && l->in[i]->shape.dim[0] != 0)
            return false;
    }
    return resize_is_plain(l->node->param) && x->rank == 4 && l->in[0]->dtype == DT_F32 &&
           l->out[0].dtype == DT_F32 && !l->in[0]->data && x->dim[0] == y->dim[0] && x->dim[1] == y->dim[1];
}

static struct tap *make_taps(const struct resize_param *p, float scale, int64_t in, int64_t out) {
    struct tap *t = calloc((size_t)out + 1, sizeof(*t));

    for (int64_t i = 0; t && i < out; i++) {
        float at = (float)i;

        if (in == out) {
            t[i].low = t[i].high = i;
            continue;
        }
        if (p->mode == RESIZE_NEAREST) {
            t[i].low = t[i].high = resize_nearest(p, i, scale, in, out);
            continue;
        }
        at = resize_source(p, i, scale, in, out);
        at = at < 0 ? 0 : at > (float)(in - 1) ? (float)(in - 1) : at;
        t[i].low = (int64_t)at;
        t[i].high = t[i].low + 1 < in ? t[i].low + 1 : t[i].low;
        t[i].weight = at - (float)t[i].low;
    }
    return t;
}

static int resize_prepare(const struct layer *l, struct pack_cache *packs, struct kernel_state **ret,
    size_t *ret_scratch, struct error *err) {
    _cleanup_(resize_donep) struct kernel_state *s = calloc(1, sizeof(*s));
    const struct resize_param *p = l->node->param;
    const struct shape *x = &l->in[0]->shape;
    float scale[SHAPE_MAX_RANK];
    struct shape y;
    int r;

    (void)packs;
    (void)ret_scratch;
    if (!s)
        return error_oom(err);
    r = resize_place(l->node, l->in, &y, scale, err);
    if (r < 0)
        return r;
    s->n = x->dim[0];
    s->c = x->dim[1];
    s->h_in = x->dim[2];
    s->w_in = x->dim[3];
    s->h_out = y.dim[2];
    s->w_out = y.dim[3];
    s->is_nearest = p->mode == RESIZE_NEAREST;
    s->rows = make_taps(p, scale[2], s->h_in, s->h_out);
    s->cols = make_taps(p, scale[3], s->w_in, s->w_out);
    s->blend = l->cpu->avx512 ? blend_avx512 : l->cpu->avx2 ? blend_avx2 : blend_c;
    if (!s->rows || !s->cols)
        return error_oom(err);
    *ret = TAKE(s);
    return 0;
}

/* A row that reads the same input row as the one above is the same row. */
static void resize_nearest_image(const struct kernel_state *s, const float *x, float *y) {
    size_t pixel = (size_t)s->c * sizeof(float);

    for (int64_t i = 0; i < s->h_out; i++, y += s->w_out * s->c) {
        const float *row = x + s->rows[i].low * s->w_in * s->c;

        if (i > 0 && s->rows[i].low == s->rows[i - 1].low) {
            memcpy(y, y - s->w_out * s->c, (size_t)s->w_out * pixel);
            continue;
        }
        for (int64_t k = 0; k < s->w_out; k++)
            memcpy(y + k * s->c, row + s->cols[k].low * s->c, pixel);
    }
}

static void resize_linear_image(const struct kernel_state *s, const float *x, float *y) {
    for (int64_t i = 0; i < s->h_out; i++, y += s->w_out * s->c) {
        const struct tap *r = &s->rows[i];
        const float *top = x + r->low * s->w_in * s->c, *bottom = x + r->high * s->w_in * s->c;

        for (int64_t k = 0; k < s->w_out; k++) {
            const struct tap *t = &s->cols[k];
            const float w[4] = {(1 - r->weight) * (1 - t->weight), (1 - r->weight) * t->weight,
                r->weight * (1 - t->weight), r->weight * t->weight};

            s->blend(top + t->low * s->c, top + t->high * s->c, bottom + t->low * s->c,
                bottom + t->high * s->c, w, y + k * s->c, s->c);
        }
    }
}

static void resize_run(const struct kernel_state *s, const struct run_io *io) {
    for (int64_t n = 0; n < s->n; n++) {
        const float *x = (const float *)io->in[0] + n * s->h_in * s->w_in * s->c;
        float *y = (float *)io->out[0] + n * s->h_out * s->w_out * s->c;

        if (s->is_nearest)
            resize_nearest_image(s, x, y);
        else
            resize_linear_image(s, x, y);
    }
}

const struct kernel kernel_resize_f32 = {
    .name = "resize_f32",
    .op_types = (const char *const[]){"Resize", "Upsample", NULL},
    .fits = resize_fits,
    .layouts = {.in = 1u << LAYOUT_NHWC, .out = 1u << LAYOUT_NHWC},
    .prepare = resize_prepare,
    .run = resize_run,
    .done = resize_done,
};
