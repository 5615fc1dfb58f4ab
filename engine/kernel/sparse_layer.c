#include "engine/kernel/sparse_layer.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "engine/kernel/sparse_post.h"
#include "engine/kernel/weights.h"
#include "engine/pool.h"

#define CHUNK_DWORDS (SPARSE_SLICE * SPARSE_CHUNK)
#define PANEL_PIXELS 64                  /* wider ones save little and leave the first-level cache */
#define PANEL_BYTES  (384 << 10)         /* of a panel, in the second */
#define PART_VALUES  ((int64_t)64 << 10) /* nonzeros times vectors; less is not worth another thread */

struct kernel_state {
    struct sparse_spec spec;
    struct sparse_post post[NODE_MAX_POSTS];
    int n_posts;
    size_t in_size, out_size; /* bytes of an element */
    int64_t n_pixels, n_panels, n_vecs;
    int max_vecs;        /* of a panel */
    int64_t part_chunks; /* gathered at a time */
    size_t panel_size, scratch_size;
    unsigned n_parts;
    bool by_blocks;   /* parts share out blocks of outputs, not panels */
    uint8_t *outside; /* a pixel outside the picture */
};

/* ---- shapes ---- */

bool sparse_conv_shape(
    const struct layer *l, int per_dword, struct conv_geometry *g, struct sparse_shape *sh) {
    int64_t groups = node_attr_int(l->node, "group", 1);
    const struct shape *w = kernel_weight_shape(l);

    if (w->rank != l->in[0]->shape.rank || !conv_geometry_init(l, w, g) || groups < 1 || g->c % groups ||
        g->oc % groups || g->c / groups % per_dword)
        return false;
    *sh = (struct sparse_shape){.groups = groups,
        .oc = g->oc / groups,
        .ic = g->c / groups,
        .taps = g->kh * g->kw,
        .per_dword = per_dword};
    return true;
}

bool sparse_gemm_shape(
    const struct layer *l, int per_dword, struct conv_geometry *g, struct sparse_shape *sh) {
    const struct shape *w = kernel_weight_shape(l), *x = &l->in[0]->shape;
    bool is_kn = !node_attr_int(l->node, "transB", 0);
    int64_t m = 1;

    if (w->rank != 2 || x->rank < 2 || node_attr_int(l->node, "transA", 0))
        return false;
    for (int i = 0; i + 1 < x->rank; i++)
        m *= x->dim[i];
    *sh = (struct sparse_shape){.groups = 1,
        .oc = w->dim[is_kn],
        .ic = w->dim[!is_kn],
        .taps = 1,
        .is_kn = is_kn,
        .per_dword = per_dword};
    if (x->dim[x->rank - 1] != sh->ic || m < 1 || sh->ic < 1 || sh->oc < 1 || sh->ic % per_dword)
        return false;
    *g = (struct conv_geometry){.n = 1, .c = sh->ic, .h = 1, .w = m, .oc = sh->oc, .oh = 1, .ow = m};
    g->kh = g->kw = g->sh = g->sw = g->dh = g->dw = 1;
    return true;
}

/* ---- running ---- */

struct call {
    const struct kernel_state *s;
    const struct run_io *io;
};

/* Vectors of pixels of one panel, and where its pixels' windows begin. */
struct panel {
    int64_t first;
    int n_vecs, n_pixels;          /* n_pixels: that exist; the others repeat the last one */
    int64_t at[SPARSE_MAX_PIXELS]; /* bytes from the input's first, perhaps outside */
    int32_t y[SPARSE_MAX_PIXELS], x[SPARSE_MAX_PIXELS];
    uint32_t *data, *sums;
};

static void panel_init(const struct kernel_state *s, int64_t index, struct panel *p) {
    const struct conv_geometry *g = &s->spec.g;
    int lanes = s->spec.isa->lanes;
    int64_t first = s->n_vecs * index / s->n_panels, end = s->n_vecs * (index + 1) / s->n_panels;
    int64_t rest, oy, ox, image;

    p->first = first * lanes;
    p->n_vecs = (int)(end - first);
    rest = s->n_pixels - p->first;
    p->n_pixels = rest < p->n_vecs * lanes ? (int)rest : p->n_vecs * lanes;
    ox = p->first % g->ow;
    oy = p->first / g->ow % g->oh;
    image = p->first / g->ow / g->oh;
    for (int i = 0; i < p->n_vecs * lanes; i++) {
        int64_t y = oy * g->sh - g->pt, x = ox * g->sw - g->pl;

        p->y[i] = (int32_t)y;
        p->x[i] = (int32_t)x;
        p->at[i] = ((image * g->h + y) * g->w + x) * g->c * (int64_t)s->in_size;
        if (i + 1 >= p->n_pixels || ++ox < g->ow)
            continue;
        ox = 0;
        if (++oy < g->oh)
            continue;
        oy = 0;
        image++;
    }
}

/* Pixels of a tap, `offset` bytes into each. Padding and dilation are 31 bits, so that places modulo 2^32
 * tell inside from outside. */
static void tap_pixels(const struct kernel_state *s, const struct panel *p, const uint8_t *x, int64_t tap,
    int64_t offset, const uint8_t *ret[SPARSE_MAX_PIXELS]) {
    const struct conv_geometry *g = &s->spec.g;
    int64_t ky = tap / g->kw * g->dh, kx = tap % g->kw * g->dw;
    int64_t step = (ky * g->w + kx) * g->c * (int64_t)s->in_size + offset;
    int n = p->n_vecs * s->spec.isa->lanes;

    for (int i = 0; i < n; i++) {
        bool inside = (uint32_t)p->y[i] + (uint32_t)ky < (uint32_t)g->h &&
                      (uint32_t)p->x[i] + (uint32_t)kx < (uint32_t)g->w;

        ret[i] = inside ? x + p->at[i] + step : s->outside;
    }
}

/* Chunks c0 to c1 of a group's input. */
static void gather_part(const struct kernel_state *s, const struct panel *p, const uint8_t *x, int64_t group,
    int64_t c0, int64_t c1) {
    const struct sparse_shape *sh = &s->spec.sh;
    const uint8_t *pixel[SPARSE_MAX_PIXELS];
    int64_t per_tap = sparse_tap_slices(sh), n_slices = per_tap * sh->taps, n_dwords = sparse_dwords(sh);
    int64_t end = c1 * SPARSE_CHUNK < n_slices ? c1 * SPARSE_CHUNK : n_slices;
    size_t step = (size_t)(SPARSE_SLICE * p->n_vecs * s->spec.isa->lanes);
    struct sparse_gather g = {.pixel = pixel, .n_vecs = p->n_vecs, .panel = p->data};

    for (int64_t slice = c0 * SPARSE_CHUNK; slice < end;) {
        int64_t tap = slice / per_tap, in_tap = slice % per_tap, n = per_tap - in_tap;

        n = n < end - slice ? n : end - slice;
        tap_pixels(s, p, x, tap, group * sh->ic * (int64_t)s->in_size + in_tap * SPARSE_SLICE * 4, pixel);
        g.n_dwords =
            (n + in_tap) * SPARSE_SLICE < n_dwords ? n * SPARSE_SLICE : n_dwords - in_tap * SPARSE_SLICE;
        s->spec.isa->gather(&g);
        g.panel += (size_t)n * step;
        slice += n;
    }
}

static void multiply_part(const struct kernel_state *s, const struct panel *p, int64_t block, int64_t c0,
    int64_t c1, uint32_t *sums) {
    const struct sparse_weights *w = &s->spec.w;
    size_t step = (size_t)(CHUNK_DWORDS * p->n_vecs * s->spec.isa->lanes);
    struct sparse_multiply m = {.sums = sums, .n_vecs = p->n_vecs};

    for (int64_t c = c0; c < c1; c++) {
        const struct sparse_span *span = w->span + block * w->n_chunks + c;

        m.row = w->row + span[0].row;
        m.row_end = w->row + span[1].row;
        m.value = w->value + span[0].nonzero;
        m.at = w->at + span[0].nonzero;
        m.panel = p->data + (size_t)(c - c0) * step;
        m.bias = c ? NULL : w->bias + block * SPARSE_OUTPUTS;
        (s->spec.is_s8 ? s->spec.isa->multiply_s8 : s->spec.isa->multiply_f32)(&m);
    }
}

static void store_block(
    const struct call *c, const struct panel *p, int64_t group, int64_t block, uint32_t *sums) {
    const struct kernel_state *s = c->s;
    const struct sparse_spec *spec = &s->spec;
    int64_t left = spec->sh.oc - block * SPARSE_OUTPUTS;
    int64_t channel = group * spec->sh.oc + block * SPARSE_OUTPUTS;
    struct sparse_store job = {
        .sums = sums,
        .n_vecs = p->n_vecs,
        .n_pixels = p->n_pixels,
        .n_outputs = left < SPARSE_OUTPUTS ? (int)left : SPARSE_OUTPUTS,
        .y = c->io->out[0],
        .at = (size_t)(p->first * spec->g.oc + channel) * s->out_size,
        .y_pixel = (size_t)spec->g.oc * s->out_size,
        .residual = c->io->post_in,
        .n_posts = s->n_posts,
        .post = s->post,
        .scale = spec->w.scale + (group * spec->w.n_blocks + block) * SPARSE_OUTPUTS,
        .out = &spec->out,
    };

    (spec->is_s8 ? spec->isa->store_s8 : spec->isa->store_f32)(&job);
}

/* Blocks b0 to b1 of a group. What does not fit the panel at once is added up in parts: then the sums of all
 * blocks are kept, otherwise those of one. */
static void run_group(const struct call *c, const struct panel *p, int64_t group, int64_t b0, int64_t b1) {
    const struct kernel_state *s = c->s;
    int64_t n_chunks = s->spec.w.n_chunks;
    size_t block_size = (size_t)(SPARSE_OUTPUTS * p->n_vecs * s->spec.isa->lanes);

    for (int64_t c0 = 0; c0 < n_chunks; c0 += s->part_chunks) {
        int64_t c1 = c0 + s->part_chunks < n_chunks ? c0 + s->part_chunks : n_chunks;

        gather_part(s, p, c->io->in[0], group, c0, c1);
        for (int64_t b = b0; b < b1; b++) {
            uint32_t *sums = p->sums + (n_chunks > s->part_chunks ? (size_t)(b - b0) * block_size : 0);

            multiply_part(s, p, group * s->spec.w.n_blocks + b, c0, c1, sums);
            if (c1 == n_chunks)
                store_block(c, p, group, b, sums);
        }
    }
}

static void run_part(void *ctx, unsigned part) {
    const struct call *c = ctx;
    const struct kernel_state *s = c->s;
    int64_t n_blocks = s->spec.w.n_blocks, n = s->by_blocks ? n_blocks : s->n_panels;
    int64_t first = n * part / s->n_parts, end = n * (part + 1) / s->n_parts;
    char *scratch = (char *)c->io->scratch + part * s->scratch_size;
    struct panel p;

    p.data = (uint32_t *)(void *)scratch;
    p.sums = (uint32_t *)(void *)(scratch + s->panel_size);
    for (int64_t i = s->by_blocks ? 0 : first; i < (s->by_blocks ? s->n_panels : end); i++) {
        panel_init(s, i, &p);
        for (int64_t g = 0; g < s->spec.sh.groups; g++)
            run_group(c, &p, g, s->by_blocks ? first : 0, s->by_blocks ? end : n_blocks);
    }
}

void sparse_layer_run(const struct kernel_state *s, const struct run_io *io) {
    struct call c = {.s = s, .io = io};

    if (s->n_parts > 1)
        pool_run(io->pool, s->n_parts, run_part, &c);
    else
        run_part(&c, 0);
}

/* ---- preparing ---- */

/* Panels are equal but for one vector. */
static void cut_panels(struct kernel_state *s, unsigned n_threads) {
    const struct sparse_spec *spec = &s->spec;
    int lanes = spec->isa->lanes;
    int64_t most = PANEL_PIXELS / lanes < SPARSE_MAX_VECS ? PANEL_PIXELS / lanes : SPARSE_MAX_VECS;
    int64_t wanted;

    s->n_pixels = spec->g.n * spec->g.oh * spec->g.ow;
    s->n_vecs = (s->n_pixels + lanes - 1) / lanes;
    s->n_panels = (s->n_vecs + most - 1) / most;

    wanted = spec->w.span[spec->sh.groups * spec->w.n_blocks * spec->w.n_chunks].nonzero * s->n_vecs /
                 PART_VALUES +
             1;
    wanted = wanted < n_threads ? wanted : n_threads;
    s->by_blocks = wanted > 1 && s->n_panels < wanted && spec->w.n_blocks >= wanted;
    if (!s->by_blocks) {
        wanted = wanted < s->n_vecs ? wanted : s->n_vecs;
        s->n_panels = (s->n_panels + wanted - 1) / wanted * wanted;
        s->n_panels = s->n_panels < s->n_vecs ? s->n_panels : s->n_vecs;
    }
    s->n_parts = (unsigned)wanted;
    s->max_vecs = (int)((s->n_vecs + s->n_panels - 1) / s->n_panels);
}

static int size_scratch(struct kernel_state *s, size_t *ret, struct error *err) {
    const struct sparse_spec *spec = &s->spec;
    int64_t pixel = (int64_t)s->max_vecs * spec->isa->lanes * 4, chunk = CHUNK_DWORDS * pixel;
    int64_t blocks = 1;

    s->part_chunks = PANEL_BYTES / chunk < spec->w.n_chunks ? PANEL_BYTES / chunk : spec->w.n_chunks;
    s->part_chunks = s->part_chunks < 1 ? 1 : s->part_chunks;
    if (s->part_chunks < spec->w.n_chunks)
        blocks = s->by_blocks ? (spec->w.n_blocks + s->n_parts - 1) / s->n_parts : spec->w.n_blocks;
    s->panel_size = (size_t)(s->part_chunks * chunk);
    s->scratch_size = s->panel_size;
    if (__builtin_add_overflow(
            s->scratch_size, (size_t)(blocks * SPARSE_OUTPUTS * pixel), &s->scratch_size) ||
        __builtin_mul_overflow(s->scratch_size, (size_t)s->n_parts, ret))
        return error_set(err, -EFBIG, "its output is too large");
    return 0;
}

int sparse_layer_prepare(const struct layer *l, const struct sparse_spec *spec, struct kernel_state **ret,
    size_t *ret_scratch, struct error *err) {
    struct kernel_state *s = calloc(1, sizeof(*s));
    size_t pixel = (size_t)sparse_tap_slices(&spec->sh) * SPARSE_SLICE * sizeof(uint32_t);
    int r;

    if (!s)
        return error_oom(err);
    s->spec = *spec;
    s->in_size = spec->is_s8 ? 1 : sizeof(float);
    s->out_size = spec->is_s8 && !spec->out.is_float ? 1 : sizeof(float);
    s->outside = malloc(pixel);
    r = s->outside ? 0 : error_oom(err);
    if (r == 0) {
        memset(s->outside, spec->is_s8 ? l->in_type[0].quant.zero : 0, pixel);
        if (!spec->is_s8)
            s->n_posts = sparse_posts_init(l, s->post);
        cut_panels(s, l->n_threads);
        r = size_scratch(s, ret_scratch, err);
    }
    if (r < 0) {
        sparse_layer_done(s);
        return r;
    }
    *ret = s;
    return 0;
}

struct kernel_state *sparse_layer_done(struct kernel_state *s) {
    if (s)
        free(s->outside);
    free(s);
    return NULL;
}
