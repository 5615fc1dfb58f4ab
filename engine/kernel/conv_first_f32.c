#include "engine/kernel/conv_first_f32.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "engine/kernel/conv_pack_f32.h"
#include "engine/kernel/ranges.h"
#include "engine/kernel/rows.h"
#include "engine/kernel/weights.h"
#include "engine/pack.h"

struct kernel_state {
    struct conv_first c;
    void (*rows)(const struct conv_first *c, const struct conv_first_job *j);
    size_t scratch; /* bytes of a part */
    unsigned n_parts;
};

#define MAX_CHANNELS 4
#define MIN_WIDTH    14 /* a tile's pixels */
#define MAX_KERNEL   64

/* A band holds what its windows read and little else, so that it is small and its size cannot overflow. */
static bool has_small_band(const struct conv_geometry *g) {
    return g->kh <= MAX_KERNEL && g->kw <= MAX_KERNEL && g->sh <= g->kh && g->sw <= g->kw && g->pl < g->kw;
}

/* With few products an output and more output than the cache holds, writing is all that counts, and the
 * library hides it better (VGG's first layer: 0.85x). */
#define MAX_UNSTRIDED ((int64_t)1 << 19)

static bool conv_first_fits(const struct cpu *cpu, const struct layer *l) {
    struct conv_geometry g;
    struct post_f32 post;

    if (!cpu->avx2 || !conv_pack_f32_fits(l, &g) || !post_f32_init(l, &post))
        return false;
    if (g.sw == 1 && g.oh * g.ow * g.oc > MAX_UNSTRIDED)
        return false;
    return g.c <= MAX_CHANNELS && has_small_band(&g) && g.oc % 16 == 0 && g.ow >= MIN_WIDTH && g.dh == 1 &&
           g.dw == 1 && node_attr_int(l->node, "group", 1) == 1 && l->in_type[0].layout == LAYOUT_PLAIN &&
           l->out_type[0].layout == LAYOUT_NHWC;
}

/* Panels of `lanes` channels, the last perhaps narrower. */
static void fill(const struct conv_first *c, int64_t lanes, const float *w, float *ret) {
    int64_t taps = c->g.c * c->g.kh * c->g.kw;

    for (int64_t oc = 0; oc < c->g.oc; oc += lanes) {
        int64_t width = c->g.oc - oc < lanes ? c->g.oc - oc : lanes;

        for (int64_t t = 0; t < taps; t++)
            for (int64_t o = 0; o < width; o++)
                *ret++ = w[(oc + o) * taps + t];
    }
}

static int pack(
    const struct layer *l, struct pack_cache *packs, int64_t lanes, struct conv_first *c, struct error *err) {
    _cleanup_(freep) float *plain = NULL;
    int64_t n = c->g.oc * c->g.c * c->g.kh * c->g.kw;
    char key[PACK_KEY_MAX], name[32];
    const struct pack *found;
    struct pack *p;
    int r;

    snprintf(name, sizeof(name), "conv_first_f32/%d", (int)lanes);
    found = pack_find(packs, kernel_pack_key(key, name, l, "w"));
    if (!found) {
        plain = malloc((size_t)n * sizeof(float));
        if (!plain)
            return error_oom(err);
        r = kernel_copy_weights(l, plain, err);
        if (r == 0)
            r = pack_new(key, NULL, 0, (size_t)n * sizeof(float), &p, err);
        if (r < 0)
            return r;
        fill(c, lanes, plain, p->data);
        found = pack_publish(packs, p);
    }
    c->w = found->data;
    return conv_pack_f32_bias(l, packs, c->g.oc, &c->bias, err);
}

/* Below this many multiplications (some 10 us) waking another thread costs more than it brings. */
#define MIN_MACS_A_PART (1 << 20)

static int conv_first_prepare(const struct layer *l, struct pack_cache *packs, struct kernel_state **ret,
    size_t *ret_scratch, struct error *err) {
    _cleanup_(freep) struct kernel_state *s = calloc(1, sizeof(*s));
    struct conv_geometry *g;
    int r;

    if (!s)
        return error_oom(err);
    g = &s->c.g;
    (void)conv_pack_f32_fits(l, g); /* fits() said it can */
    (void)post_f32_init(l, &s->c.post);
    s->rows = l->cpu->avx512 ? conv_first_f32_avx512 : conv_first_f32_avx2;
    s->c.band_h = (CONV_FIRST_BAND - 1) * g->sh + g->kh;
    s->c.band_w = (g->ow - 1) * g->sw + g->kw;
    s->n_parts = ranges_count(l, g->n * g->oh, conv_geometry_macs(g, g->c), MIN_MACS_A_PART);
    s->scratch = ((size_t)(g->c * s->c.band_h * s->c.band_w) * sizeof(float) + 63) / 64 * 64;
    r = pack(l, packs, l->cpu->avx512 ? 32 : 16, &s->c, err);
    if (r < 0)
        return r;
    *ret_scratch = s->scratch * s->n_parts;
    *ret = TAKE(s);
    return 0;
}

static void run_range(
    const struct kernel_state *s, const struct run_io *io, unsigned part, int64_t first, int64_t end) {
    struct conv_first_job j = {.x = io->in[0],
        .y = io->out[0],
        .band = (float *)(void *)((char *)io->scratch + part * s->scratch),
        .residual = io->post_in,
        .first = first,
        .last = end};

    s->rows(&s->c, &j);
}

static void conv_first_run(const struct kernel_state *s, const struct run_io *io) {
    ranges_run(s, io, run_range, s->c.g.n * s->c.g.oh, 1, s->n_parts);
}

static struct kernel_state *conv_first_done(struct kernel_state *s) {
    free(s);
    return NULL;
}

const struct kernel kernel_conv_first_f32 = {
    .name = "conv_first_f32",
    .op_types = (const char *const[]){"Conv", NULL},
    .fits = conv_first_fits,
    .layouts = {.in = 1u << LAYOUT_PLAIN, .out = 1u << LAYOUT_NHWC, .free_out = true},
    .max_posts = NODE_MAX_POSTS,
    .prepare = conv_first_prepare,
    .run = conv_first_run,
    .done = conv_first_done,
};
