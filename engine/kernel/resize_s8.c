/* Nearest-neighbour Resize on codes, channels last: copies pixels. Which pixel goes where is asked of the
 * operator itself: its forward on a picture whose pixels are their own numbers. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "engine/kernel/rows.h"
#include "engine/kernel/s8.h"
#include "engine/ops/resize.h"

#define MAX_PIXELS ((int64_t)1 << 24) /* numbers a float holds exactly */

struct kernel_state {
    int64_t n, c, pixels_in, pixels_out;
    int32_t *from; /* [pixels_out] */
};

static int64_t n_pixels(const struct shape *s) {
    int64_t n = 1;

    for (int i = 2; i < s->rank; i++)
        n *= s->dim[i];
    return n;
}

static bool resize_fits(const struct cpu *cpu, const struct layer *l) {
    const struct quant *x = &l->in_type[0].quant, *y = &l->out_type[0].quant;
    const struct shape *in = &l->in[0]->shape, *out = &l->out[0].shape;

    (void)cpu;
    if (in->rank < 3 || strcmp(node_attr_string(l->node, "mode", "nearest"), "nearest") != 0 ||
        !resize_is_plain(l->node->param) || !s8_is_codes(&l->in_type[0]) || !s8_is_codes(&l->out_type[0]) ||
        l->in[0]->data || l->node->n_post || x->scale < y->scale || x->scale > y->scale ||
        x->zero != y->zero || in->dim[0] != out->dim[0] || in->dim[1] != out->dim[1] ||
        n_pixels(in) > MAX_PIXELS)
        return false;
    for (int i = 1; i < l->n_in; i++)
        if (l->in[i] && !l->in[i]->data && l->in[i]->shape.dim[0] != 0)
            return false;
    return true;
}

/* Constant inputs, aligned; free with free(). */
static void *align_inputs(const struct layer *l, struct tensor *view, const struct tensor **in) {
    char *all = aligned_alloc(64, 64 * LAYER_MAX_IO);

    for (int i = 1; all && i < l->n_in; i++) {
        size_t size = 0;

        in[i] = l->in[i] ? &view[i] : NULL;
        if (!l->in[i])
            continue;
        view[i] = *l->in[i];
        view[i].layout = LAYOUT_PLAIN;
        if (!shape_bytes(&view[i].shape, view[i].dtype, &size) || size > 64) {
            free(all);
            return NULL;
        }
        view[i].data = all + 64 * i;
        if (size)
            memcpy(view[i].data, l->in[i]->data, size);
    }
    return all;
}

static int read_map(const struct layer *l, struct kernel_state *s, struct error *err) {
    struct tensor view[LAYER_MAX_IO], x, y = {.dtype = DT_F32, .shape = l->out[0].shape};
    const struct tensor *in[LAYER_MAX_IO];
    _cleanup_(freep) void *constants = align_inputs(l, view, in);
    _cleanup_(freep) float *picture = NULL, *map = NULL;
    _cleanup_(freep) void *scratch = NULL;
    size_t size_in, size_out, size;

    x = (struct tensor){.dtype = DT_F32, .shape = l->in[0]->shape};
    if (!constants || !shape_bytes(&x.shape, DT_F32, &size_in) || !shape_bytes(&y.shape, DT_F32, &size_out))
        return error_set(err, -EOPNOTSUPP, "its sizes are not those of a picture");
    picture = aligned_alloc(64, (size_in + 64) / 64 * 64);
    map = aligned_alloc(64, (size_out + 64) / 64 * 64);
    x.data = picture;
    y.data = map;
    in[0] = &x;
    size = l->node->op->scratch ? l->node->op->scratch(l->node, in, &y) : 0;
    scratch = aligned_alloc(64, (size + 64) / 64 * 64);
    if (!picture || !map || !scratch)
        return error_oom(err);
    for (int64_t i = 0; i < s->n * s->c * s->pixels_in; i++)
        picture[i] = (float)(i % s->pixels_in);
    l->node->op->forward(l->node, in, &y, scratch);
    for (int64_t i = 0; i < s->pixels_out; i++)
        s->from[i] = (int32_t)map[i];
    return 0;
}

static struct kernel_state *resize_done(struct kernel_state *s) {
    if (s)
        free(s->from);
    free(s);
    return NULL;
}
DEFINE_CLEANUP(struct kernel_state *, resize_done)

static int resize_prepare(const struct layer *l, struct pack_cache *packs, struct kernel_state **ret,
    size_t *ret_scratch, struct error *err) {
    _cleanup_(resize_donep) struct kernel_state *s = calloc(1, sizeof(*s));
    int r;

    (void)packs;
    (void)ret_scratch;
    if (!s)
        return error_oom(err);
    s->n = l->in[0]->shape.dim[0];
    s->c = l->in[0]->shape.dim[1];
    s->pixels_in = n_pixels(&l->in[0]->shape);
    s->pixels_out = n_pixels(&l->out[0].shape);
    s->from = calloc((size_t)s->pixels_out + 1, sizeof(*s->from));
    if (!s->from)
        return error_oom(err);
    r = read_map(l, s, err);
    if (r < 0)
        return r;
    *ret = TAKE(s);
    return 0;
}

static void resize_run(const struct kernel_state *s, const struct run_io *io) {
    const uint8_t *x = io->in[0];
    uint8_t *y = io->out[0];

    for (int64_t n = 0; n < s->n; n++, x += s->pixels_in * s->c)
        for (int64_t p = 0; p < s->pixels_out; p++, y += s->c)
            memcpy(y, x + s->from[p] * s->c, (size_t)s->c);
}

static const char *const resize_ops[] = {"Resize", "Upsample", NULL};

const struct kernel kernel_resize_s8 = {
    .name = "resize_s8",
    .op_types = resize_ops,
    .fits = resize_fits,
    .layouts = {.in = 1u << LAYOUT_NHWC, .out = 1u << LAYOUT_NHWC},
    .prepare = resize_prepare,
    .run = resize_run,
    .done = resize_done,
};
