/* Binarize: floats to LAYOUT_BITS, where no layer before it could give bits itself. */
#include <math.h>
#include <stdlib.h>

#include "engine/binarize.h"
#include "engine/kernel/bits.h"
#include "engine/kernel/rows.h"
#include "engine/pool.h"

#define PART_PIXELS_FLOATS ((int64_t)32 << 10) /* less is not worth another thread */

struct kernel_state {
    bits_pack_fn *pack;
    enum layout layout;
    int64_t n, c, pixels;
    unsigned n_parts;
    uint32_t *flip;
    float limit[]; /* [(c + 15) / 16 * 16], then flip */
};

static bool binarize_fits(const struct cpu *cpu, const struct layer *l) {
    (void)cpu;
    return l->in[0]->dtype == DT_F32 && l->in[0]->shape.rank >= 3 && !l->in[0]->data;
}

static int binarize_prepare(const struct layer *l, struct pack_cache *packs, struct kernel_state **ret,
    size_t *ret_scratch, struct error *err) {
    const struct binarize_param *p = l->node->param;
    const struct shape *x = &l->in[0]->shape;
    int64_t padded = (x->dim[1] + 15) / 16 * 16, wanted;
    struct kernel_state *s = calloc(1, sizeof(*s) + (size_t)padded * (sizeof(float) + sizeof(uint32_t)));

    (void)packs;
    (void)ret_scratch;
    if (!s)
        return error_oom(err);
    s->flip = (uint32_t *)(void *)(s->limit + padded);
    s->pack = bits_pack_for(l->cpu);
    s->layout = l->in_type[0].layout;
    s->n = x->dim[0];
    s->c = x->dim[1];
    s->pixels = 1;
    for (int d = 2; d < x->rank; d++)
        s->pixels *= x->dim[d];
    for (int64_t i = 0; i < padded; i++) {
        s->limit[i] = i < s->c ? p->limit[p->n > 1 ? i : 0] : NAN;
        s->flip[i] = i < s->c ? p->flip[p->n > 1 ? i : 0] : 0;
    }
    wanted = s->n * s->c * s->pixels / PART_PIXELS_FLOATS + 1;
    s->n_parts = wanted < l->n_threads ? (unsigned)wanted : l->n_threads;
    *ret = s;
    return 0;
}

struct call {
    const struct kernel_state *s;
    const float *x;
    uint64_t *y;
};

static void run_part(void *ctx, unsigned part) {
    const struct call *c = ctx;
    const struct kernel_state *s = c->s;
    int64_t first = s->pixels * part / s->n_parts, end = s->pixels * (part + 1) / s->n_parts;

    for (int64_t n = 0; n < s->n; n++) {
        struct bits_source from = bits_source_of(c->x, s->layout, n, s->c, s->pixels);

        from.x += first * from.pixel;
        s->pack(
            &from, end - first, s->c, s->flip, s->limit, c->y + (n * s->pixels + first) * bits_words(s->c));
    }
}

static void binarize_run(const struct kernel_state *s, const struct run_io *io) {
    struct call c = {.s = s, .x = io->in[0], .y = io->out[0]};

    if (s->n_parts > 1)
        pool_run(io->pool, s->n_parts, run_part, &c);
    else
        run_part(&c, 0);
}

static struct kernel_state *binarize_done(struct kernel_state *s) {
    free(s);
    return NULL;
}

const struct kernel kernel_binarize_f32 = {
    .name = "binarize_f32",
    .op_types = (const char *const[]){"Binarize", NULL},
    .fits = binarize_fits,
    .layouts = {.in = 1u << LAYOUT_NHWC | 1u << LAYOUT_nChw16c, .out = 1u << LAYOUT_BITS, .free_out = true},
    .prepare = binarize_prepare,
    .run = binarize_run,
    .done = binarize_done,
};
