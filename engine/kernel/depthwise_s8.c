/* Depthwise convolution on codes (one filter a channel), channels last. The plain way, on any processor: for
 * each output pixel, 64 channels of int32 sums at a time over the taps that lie in the picture. */
#include "engine/kernel/s8_vector.h"

#include <stdlib.h>
#include <string.h>

#include "engine/kernel/depthwise_s8.h"
#include "engine/kernel/rows.h"
#include "engine/pool.h"

#define RUN       64
#define PART_MACS ((int64_t)1 << 20)

struct kernel_state {
    struct depthwise d;
    unsigned n_parts;
    void (*run)(const struct depthwise *d, const uint8_t *x, int64_t oy, uint8_t *y, void *scratch);
};

bool depthwise_shape(const struct layer *l, struct conv_geometry *g, struct s8_shape *sh) {
    const struct weight *w = l->node->weight;
    struct s8_output out;

    if (l->n_in < 2 || !l->in[0] || l->in[0]->data || !w || !s8_is_codes(&l->in_type[0]) ||
        !s8_output_init(l, &out) || out.is_float || w->shape.rank != l->in[0]->shape.rank ||
        w->shape.rank < 3 || w->shape.dim[1] != 1 || !conv_geometry_init(l, &w->shape, g) || g->oc != g->c ||
        node_attr_int(l->node, "group", 1) != g->c)
        return false;
    *sh = (struct s8_shape){.groups = g->c, .oc = 1, .ic = 1, .taps = g->kh * g->kw};
    sh->n_seg = (int)g->kh;
    sh->seg_taps = (int)g->kw;
    sh->seg_len = (int)((g->kw + 3) / 4 * 4);
    return true;
}

S8_LOOP depthwise_rows(const struct depthwise *d, const uint8_t *x, int64_t oy, uint8_t *y, void *scratch) {
    const struct conv_geometry *g = &d->g;
    const int16_t *w = d->w;

    (void)scratch;
    for (int64_t ox = 0; ox < g->ow; ox++)
        for (int64_t c0 = 0; c0 < g->c; c0 += RUN) {
            int64_t n = g->c - c0 < RUN ? g->c - c0 : RUN;
            int32_t sum[RUN];

            memcpy(sum, d->bias + c0, (size_t)n * sizeof(*sum));
            for (int64_t ky = 0; ky < g->kh; ky++)
                for (int64_t kx = 0; kx < g->kw; kx++) {
                    int64_t iy = oy * g->sh - g->pt + ky * g->dh, ix = ox * g->sw - g->pl + kx * g->dw;
                    const int16_t *wt = w + (ky * g->kw + kx) * g->c + c0;
                    const uint8_t *p = x + (iy * g->w + ix) * g->c + c0;

                    if (iy < 0 || iy >= g->h || ix < 0 || ix >= g->w)
                        continue;
                    for (int64_t c = 0; c < n; c++)
                        sum[c] += (p[c] - d->zero_in) * wt[c];
                }
            for (int64_t c = 0; c < n; c++)
                y[(oy * g->ow + ox) * g->c + c0 + c] = s8_encode((float)sum[c] * d->scale[c0 + c], &d->out);
        }
}
S8_CLONES(depthwise_rows,
    (const struct depthwise *d, const uint8_t *x, int64_t oy, uint8_t *y, void *scratch),
    (d, x, oy, y, scratch))

static bool depthwise_fits(const struct cpu *cpu, const struct layer *l) {
    struct conv_geometry g;
    struct s8_shape sh;

    (void)cpu;
    return depthwise_shape(l, &g, &sh) && s8_weights_fit(l, &s8_isa_plain, &sh);
}

static bool vnni_fits(const struct cpu *cpu, const struct layer *l) {
    struct conv_geometry g;
    struct s8_shape sh;

    return cpu->avx512_vnni && depthwise_shape(l, &g, &sh) && s8_weights_fit(l, &s8_isa_avx512vnni, &sh) &&
           g.kh <= 4 * DEPTHWISE_MAX_GROUPS;
}

unsigned depthwise_parts(const struct layer *l, const struct conv_geometry *g) {
    int64_t n = g->n * g->oh * g->ow * g->c * g->kh * g->kw / PART_MACS + 1;

    n = n < l->n_threads ? n : l->n_threads;
    return (unsigned)(n < g->n * g->oh ? n : g->n * g->oh);
}

static struct kernel_state *new_state(const struct layer *l) {
    struct kernel_state *s = calloc(1, sizeof(*s));
    struct s8_shape sh;

    if (!s)
        return NULL;
    (void)depthwise_shape(l, &s->d.g, &sh); /* fits() said it can */
    (void)s8_output_init(l, &s->d.out);
    s->d.zero_in = l->in_type[0].quant.zero;
    s->d.rows = 1;
    s->n_parts = depthwise_parts(l, &s->d.g);
    return s;
}

static int depthwise_prepare(const struct layer *l, struct pack_cache *packs, struct kernel_state **ret,
    size_t *ret_scratch, struct error *err) {
    struct kernel_state *s = new_state(l);
    int r;

    (void)ret_scratch;
    if (!s)
        return error_oom(err);
    s->run = S8_PICK(depthwise_rows, l->cpu);
    r = depthwise_pack(l, packs, &s->d, err);
    if (r < 0) {
        free(s);
        return r;
    }
    *ret = s;
    return 0;
}

static int vnni_prepare(const struct layer *l, struct pack_cache *packs, struct kernel_state **ret,
    size_t *ret_scratch, struct error *err) {
    struct kernel_state *s = new_state(l);
    int r;

    if (!s)
        return error_oom(err);
    s->run = depthwise_rows_avx512vnni;
    r = depthwise_pack_avx512vnni(l, packs, &s->d, err);
    if (r < 0) {
        free(s);
        return r;
    }
    *ret_scratch = s->d.scratch * s->n_parts;
    *ret = s;
    return 0;
}

struct call {
    const struct kernel_state *s;
    const struct run_io *io;
};

static void run_part(void *ctx, unsigned part) {
    const struct call *c = ctx;
    const struct kernel_state *s = c->s;
    const struct conv_geometry *g = &s->d.g;
    const uint8_t *x = c->io->in[0];
    uint8_t *y = c->io->out[0], *scratch = c->io->scratch;
    int64_t calls = (g->oh + s->d.rows - 1) / s->d.rows, all = g->n * calls;

    for (int64_t i = all * part / s->n_parts; i < all * (part + 1) / s->n_parts; i++)
        s->run(&s->d, x + i / calls * g->h * g->w * g->c, i % calls * s->d.rows,
            y + i / calls * g->oh * g->ow * g->c, scratch + part * s->d.scratch);
}

static void depthwise_run(const struct kernel_state *s, const struct run_io *io) {
    struct call c = {s, io};

    if (s->n_parts > 1)
        pool_run(io->pool, s->n_parts, run_part, &c);
    else
        run_part(&c, 0);
}

static struct kernel_state *depthwise_done(struct kernel_state *s) {
    free(s);
    return NULL;
}

static const char *const depthwise_ops[] = {"Conv", NULL};

const struct kernel kernel_depthwise_s8_avx512vnni = {
    .name = "depthwise_s8_avx512vnni",
    .op_types = depthwise_ops,
    .fits = vnni_fits,
    .layouts = {.in = 1u << LAYOUT_NHWC, .out = 1u << LAYOUT_NHWC},
    .max_posts = NODE_MAX_POSTS,
    .prepare = vnni_prepare,
    .run = depthwise_run,
    .done = depthwise_done,
};

const struct kernel kernel_depthwise_s8 = {
    .name = "depthwise_s8",
    .op_types = depthwise_ops,
    .fits = depthwise_fits,
    .layouts = {.in = 1u << LAYOUT_NHWC, .out = 1u << LAYOUT_NHWC},
    .max_posts = NODE_MAX_POSTS,
    .prepare = depthwise_prepare,
    .run = depthwise_run,
    .done = depthwise_done,
};
