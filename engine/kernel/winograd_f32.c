#include "engine/kernel/winograd_f32.h"

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
    struct winograd w;
    void (*run)(const struct winograd *w, const struct winograd_job *j);
    int64_t n_tiles, n_blocks, n_slices; /* an item of work is a block of tiles times a slice of channels */
    size_t scratch;                      /* bytes of an item, V and M */
    unsigned n_parts;
};

static bool winograd_fits(const struct cpu *cpu, const struct layer *l) {
    struct conv_geometry g;
    struct post_f32 post;

    /* the packed filters take four times their size */
    if (!cpu->avx2 || l->is_compact || !conv_pack_f32_fits(l, &g) || node_attr_int(l->node, "group", 1) != 1)
        return false;
    return g.kh == 3 && g.kw == 3 && g.sh == 1 && g.sw == 1 && g.dh == 1 && g.dw == 1 && g.c % 16 == 0 &&
           g.oc % 16 == 0 && post_f32_init(l, &post);
}

static int64_t n_points(const struct winograd *w) {
    return (w->m + 2) * (w->m + 2);
}

static const double G2[6][3] = {{1, 0, 0}, {0.5, 0.5, 0.5}, {0.5, -0.5, 0.5}, {0, 0, 1}};
static const double G4[6][3] = {{1 / 4.0, 0, 0}, {-1 / 6.0, -1 / 6.0, -1 / 6.0},
    {-1 / 6.0, 1 / 6.0, -1 / 6.0}, {1 / 24.0, 1 / 12.0, 1 / 6.0}, {1 / 24.0, -1 / 12.0, 1 / 6.0}, {0, 0, 1}};

#define MAX_LANES 64

/* U = G g G^T of `width` filters: g[9][MAX_LANES], point p of filter o to ret[p * step + o]. */
static void transform_lanes(int m, const float (*g)[MAX_LANES], int64_t width, float *ret, int64_t step) {
    const double(*G)[3] = m == 4 ? G4 : G2;
    int n = m + 2;
    double t[3][MAX_LANES];

    for (int i = 0; i < n; i++) {
        for (int j = 0; j < 3; j++)
            for (int64_t o = 0; o < width; o++)
                t[j][o] =
                    G[i][0] * (double)g[j][o] + G[i][1] * (double)g[3 + j][o] + G[i][2] * (double)g[6 + j][o];
        for (int j = 0; j < n; j++, ret += step)
            for (int64_t o = 0; o < width; o++)
                ret[o] = (float)(t[0][o] * G[j][0] + t[1][o] * G[j][1] + t[2][o] * G[j][2]);
    }
}

/* Panels of the channels that are loaded together; the last may be narrower. */
static void transform_filters(const struct winograd *w, const float *filters, float *u) {
    int64_t ic = w->g.c, oc = w->g.oc;

    for (int64_t first = 0; first < oc; first += w->lanes_u) {
        int64_t width = oc - first < w->lanes_u ? oc - first : w->lanes_u;

        for (int64_t c = 0; c < ic; c++) {
            float g[9][MAX_LANES];

            for (int64_t o = 0; o < width; o++)
                for (int k = 0; k < 9; k++)
                    g[k][o] = filters[((first + o) * ic + c) * 9 + k];
            transform_lanes(w->m, g, width, u + first * ic + c * width, w->u_step);
        }
    }
}

/* A pack of its own for each width of panel: [point][panel][ic][columns]. */
static int pack_filters(const struct layer *l, struct pack_cache *packs, const struct winograd *w,
    const float **ret, struct error *err) {
    _cleanup_(freep) float *decoded = NULL;
    int64_t n = w->g.c * w->g.oc * 9;
    const struct pack *found;
    char key[PACK_KEY_MAX], name[32];
    struct pack *p;
    int r;

    snprintf(name, sizeof(name), "conv_f32_winograd%d/%d", w->m, (int)w->lanes_u);
    kernel_pack_key(key, name, l, "w");
    found = pack_find(packs, key);
    if (!found) {
        decoded = malloc((size_t)n * sizeof(float));
        if (!decoded)
            return error_oom(err);
        r = kernel_copy_weights(l, decoded, err);
        if (r == 0)
            r = pack_new(key, NULL, 0, (size_t)(w->u_step * n_points(w)) * sizeof(float), &p, err);
        if (r < 0)
            return r;
        transform_filters(w, decoded, p->data);
        found = pack_publish(packs, p);
    }
    *ret = found->data;
    return 0;
}

/* Tiles of a block (4x4 outputs, and 2x2): so many that a filter once fetched is used often, so few that V
 * and M stay near. */
#define BLOCK_TILES_4 56
#define BLOCK_TILES_2 112
/* Below this many multiplications (some 10 us) waking another thread costs more than it brings. */
#define MIN_MACS_A_PART (1 << 20)

/* Blocks of tiles for all threads; too few tiles: each thread has some of the channels, and transforms the
 * input anew. */
static void split(struct kernel_state *s, const struct layer *l) {
    const struct conv_geometry *g = &s->w.g;
    int64_t at_most = s->w.m == 4 ? BLOCK_TILES_4 : BLOCK_TILES_2;
    int64_t threads = l->n_threads, macs = s->n_tiles * n_points(&s->w) * g->c * g->oc;
    int64_t n_panels = (g->oc + s->w.lanes_u - 1) / s->w.lanes_u;

    threads = macs / MIN_MACS_A_PART < threads ? macs / MIN_MACS_A_PART : threads;
    threads = threads < 1 ? 1 : threads;
    s->n_blocks = (s->n_tiles + at_most - 1) / at_most;
    s->n_slices = 1;
    if (s->n_tiles >= at_most / 2 * threads)
        s->n_blocks = (s->n_blocks + threads - 1) / threads * threads;
    else
        s->n_slices = n_panels < threads ? n_panels : threads;
    s->n_parts = (unsigned)(s->n_blocks * s->n_slices < threads ? s->n_blocks * s->n_slices : threads);
    s->w.block = (s->n_tiles + s->n_blocks - 1) / s->n_blocks;
}

static int prepare(int m, const struct layer *l, struct pack_cache *packs, struct kernel_state **ret,
    size_t *ret_scratch, struct error *err) {
    _cleanup_(freep) struct kernel_state *s = calloc(1, sizeof(*s));
    struct winograd *w;
    int r;

    if (!s)
        return error_oom(err);
    w = &s->w;
    w->m = m;
    (void)conv_pack_f32_fits(l, &w->g); /* fits() said it can */
    (void)post_f32_init(l, &w->post);
    s->run = l->cpu->avx512 ? winograd_f32_avx512 : winograd_f32_avx2;
    w->lanes_u = l->cpu->avx512 ? 32 : 16;
    w->tiles_y = (w->g.oh + m - 1) / m;
    w->tiles_x = (w->g.ow + m - 1) / m;
    w->u_step = w->g.c * w->g.oc;
    s->n_tiles = w->g.n * w->tiles_y * w->tiles_x;
    split(s, l);
    /* a line more a row and matrix: rows and matrices a power of two apart would share a few lines of the
     * cache */
    w->v_step = w->block * (w->g.c + 16) + 16;
    w->m_step = w->block * (w->g.oc + 16) + 16;
    s->scratch = (size_t)((w->v_step + w->m_step) * n_points(w)) * sizeof(float);
    r = pack_filters(l, packs, w, &w->u, err);
    if (r == 0)
        r = conv_pack_f32_bias(l, packs, w->g.oc, &w->bias, err);
    if (r < 0)
        return r;
    *ret_scratch = s->scratch * s->n_parts;
    *ret = TAKE(s);
    return 0;
}

static int winograd4_prepare(const struct layer *l, struct pack_cache *packs, struct kernel_state **ret,
    size_t *ret_scratch, struct error *err) {
    return prepare(4, l, packs, ret, ret_scratch, err);
}

static int winograd2_prepare(const struct layer *l, struct pack_cache *packs, struct kernel_state **ret,
    size_t *ret_scratch, struct error *err) {
    return prepare(2, l, packs, ret, ret_scratch, err);
}

static void run_range(
    const struct kernel_state *s, const struct run_io *io, unsigned part, int64_t first, int64_t end) {
    int64_t lanes = s->w.lanes_u, n_panels = (s->w.g.oc + lanes - 1) / lanes;
    float *v = (float *)(void *)((char *)io->scratch + part * s->scratch);

    for (int64_t i = first; i < end; i++) {
        int64_t block = i / s->n_slices, slice = i % s->n_slices;
        struct winograd_job j = {
            .x = io->in[0],
            .y = io->out[0],
            .residual = io->post_in,
            .v = v,
            .m = v + s->w.v_step * n_points(&s->w),
            .first = s->n_tiles * block / s->n_blocks,
            .last = s->n_tiles * (block + 1) / s->n_blocks,
            .oc = n_panels * slice / s->n_slices * lanes,
            .oc_end = n_panels * (slice + 1) / s->n_slices * lanes,
        };

        if (j.oc_end > s->w.g.oc)
            j.oc_end = s->w.g.oc;
        s->run(&s->w, &j);
    }
}

static void winograd_run(const struct kernel_state *s, const struct run_io *io) {
    ranges_run(s, io, run_range, s->n_blocks * s->n_slices, 1, s->n_parts);
}

static struct kernel_state *winograd_done(struct kernel_state *s) {
    free(s);
    return NULL;
}

const struct kernel kernel_conv_f32_winograd4 = {
    .name = "conv_f32_winograd4",
    .op_types = (const char *const[]){"Conv", NULL},
    .fits = winograd_fits,
    .layouts = {.in = 1u << LAYOUT_NHWC, .out = 1u << LAYOUT_NHWC},
    .max_posts = NODE_MAX_POSTS,
    .can_sum_in_place = true,
    .prepare = winograd4_prepare,
    .run = winograd_run,
    .done = winograd_done,
};

const struct kernel kernel_conv_f32_winograd2 = {
    .name = "conv_f32_winograd2",
    .op_types = (const char *const[]){"Conv", NULL},
    .fits = winograd_fits,
    .layouts = {.in = 1u << LAYOUT_NHWC, .out = 1u << LAYOUT_NHWC},
    .max_posts = NODE_MAX_POSTS,
    .can_sum_in_place = true,
    .prepare = winograd2_prepare,
    .run = winograd_run,
    .done = winograd_done,
};
