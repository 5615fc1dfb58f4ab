#include "engine/kernel/depthwise_f32.h"

#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "engine/kernel/conv_pack_f32.h"
#include "engine/kernel/ranges.h"
#include "engine/kernel/rows.h"
#include "engine/kernel/weights.h"
#include "engine/pack.h"

struct kernel_state {
    struct depthwise_f32 d;
    void (*rows)(const struct depthwise_f32 *d, const struct depthwise_f32_job *j);
    int64_t n_pairs;
    unsigned n_parts;
};

/* Wider pictures stream through the cache and only memory counts; there the library is ahead (0.8x). */
#define MAX_WIDTH 64

static bool depthwise_f32_fits(const struct cpu *cpu, const struct layer *l) {
    struct conv_geometry g;
    struct post_f32 post;

    if (!cpu->avx2 || !conv_pack_f32_fits(l, &g) || !post_f32_init(l, &post))
        return false;
    return node_attr_int(l->node, "group", 1) == g.c && g.oc == g.c && g.c > 1 && g.w <= MAX_WIDTH &&
           g.kh == g.kw && (g.kh == 3 || g.kh == 5) && g.sh == g.sw && g.sh <= 2 && g.dh == 1 && g.dw == 1;
}

static int pack(const struct layer *l, struct pack_cache *packs, struct depthwise_f32 *d, struct error *err) {
    int64_t taps = d->g.kh * d->g.kw;
    _cleanup_(freep) float *plain = NULL;
    const struct pack *found;
    char key[PACK_KEY_MAX];
    struct pack *p;
    int r;

    found = pack_find(packs, kernel_pack_key(key, "depthwise_f32", l, "w"));
    if (!found) {
        plain = malloc((size_t)(taps * d->g.c) * sizeof(float));
        if (!plain)
            return error_oom(err);
        r = kernel_copy_weights(l, plain, err);
        if (r == 0)
            r = pack_new(key, NULL, 0, (size_t)(taps * d->c_pack) * sizeof(float), &p, err);
        if (r < 0)
            return r;
        for (int64_t c = 0; c < d->g.c; c++)
            for (int64_t t = 0; t < taps; t++)
                ((float *)p->data)[t * d->c_pack + c] = plain[c * taps + t];
        found = pack_publish(packs, p);
    }
    d->w = found->data;
    return conv_pack_f32_bias(l, packs, d->g.c, &d->bias, err);
}

/* Columns whose taps all lie in the picture. */
static void find_inside(struct depthwise_f32 *d) {
    const struct conv_geometry *g = &d->g;

    d->left = (g->pl + g->sw - 1) / g->sw;
    d->left = d->left < g->ow ? d->left : g->ow;
    d->right = g->w + g->pl < g->kw ? 0 : (g->w + g->pl - g->kw) / g->sw + 1;
    d->right = d->right < g->ow ? d->right : g->ow;
    d->right = d->right > d->left ? d->right : d->left;
}

/* Below this many multiplications (some 10 us) waking another thread costs more than it brings. */
#define MIN_MACS_A_PART (1 << 18)

static int depthwise_f32_prepare(const struct layer *l, struct pack_cache *packs, struct kernel_state **ret,
    size_t *ret_scratch, struct error *err) {
    _cleanup_(freep) struct kernel_state *s = calloc(1, sizeof(*s));
    struct conv_geometry *g;
    int r;

    if (!s)
        return error_oom(err);
    g = &s->d.g;
    (void)conv_pack_f32_fits(l, g); /* fits() said it can */
    (void)post_f32_init(l, &s->d.post);
    find_inside(&s->d);
    s->d.c_pack = (g->c + 15) / 16 * 16;
    s->rows = l->cpu->avx512 ? depthwise_f32_avx512 : depthwise_f32_avx2;
    s->n_pairs = g->n * ((g->oh + 1) / 2);
    s->n_parts = ranges_count(l, s->n_pairs, conv_geometry_macs(g, 1), MIN_MACS_A_PART);
    r = pack(l, packs, &s->d, err);
    if (r < 0)
        return r;
    *ret_scratch = (size_t)(g->w * g->c) * sizeof(float);
    *ret = TAKE(s);
    return 0;
}

static void run_range(
    const struct kernel_state *s, const struct run_io *io, unsigned part, int64_t first, int64_t end) {
    struct depthwise_f32_job j = {.x = io->in[0],
        .y = io->out[0],
        .zeros = io->scratch,
        .residual = io->post_in,
        .first = first,
        .last = end};

    (void)part;

    s->rows(&s->d, &j);
}

static void depthwise_f32_run(const struct kernel_state *s, const struct run_io *io) {
    memset(io->scratch, 0, (size_t)(s->d.g.w * s->d.g.c) * sizeof(float));
    ranges_run(s, io, run_range, s->n_pairs, 1, s->n_parts);
}

static struct kernel_state *depthwise_f32_done(struct kernel_state *s) {
    free(s);
    return NULL;
}

const struct kernel kernel_depthwise_f32 = {
    .name = "depthwise_f32",
    .op_types = (const char *const[]){"Conv", NULL},
    .fits = depthwise_f32_fits,
    .layouts = {.in = 1u << LAYOUT_NHWC, .out = 1u << LAYOUT_NHWC},
    .max_posts = NODE_MAX_POSTS,
    .can_sum_in_place = true,
    .prepare = depthwise_f32_prepare,
    .run = depthwise_f32_run,
    .done = depthwise_f32_done,
};
