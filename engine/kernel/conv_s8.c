/* Convolution and fully connected layers on codes: each image is cut into bands of output rows, a band's
 * input is copied into scratch with its borders (filled with the zero point) unless it can be read in place,
 * and s8_isa.run multiplies it by all blocks of weights.
 *
 *    scratch of a band, NHWC:   ┌ pl ┬──────── w ────────┬ pr ┐   K of a pixel = kh pieces of kw * C bytes,
 *                               │zero│ rows of the image │zero│   one below the other: no im2col
 *                               └────┴───────────────────┴────┘
 *
 * A dilated or grouped convolution has kh * kw pieces of C / groups. A pixel without spatial extent (1x1,
 * stride 1, fully connected) makes rows of any length. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "engine/kernel/conv_geometry.h"
#include "engine/kernel/rows.h"
#include "engine/kernel/s8_pack.h"
#include "engine/pool.h"

#define BAND_BYTES       (96 << 10)         /* a band's input stays in the second-level cache */
#define CODED_BAND_BYTES (256 << 10)        /* longer where each band has codes to expand */
#define FLAT_BYTES       (24 << 10)         /* a flat row's input in the first */
#define PART_MACS        ((int64_t)2 << 20) /* less work is not worth another thread */
#define SLACK            64                 /* pieces are read in groups of four */

struct kernel_state {
    const struct s8_isa *isa;
    struct conv_geometry g;
    struct s8_shape sh;
    struct s8_weights w;
    struct s8_output out;
    uint8_t zero_in;
    bool is_direct;
    bool is_flat; /* rows are runs of g.ow pixels, the last one of `flat_last` */
    int64_t flat_last;
    int64_t band_rows, n_bands, wide; /* wide: pixels of a padded row */
    size_t band_size;                 /* scratch of a part */
    unsigned n_parts;
    bool by_blocks; /* parts share out blocks of channels, not bands */
    int32_t seg[];
};

static int64_t div_up(int64_t a, int64_t b) {
    return (a + b - 1) / b;
}

static int64_t band_input_rows(const struct kernel_state *s, int64_t rows) {
    return (rows - 1) * s->g.sh + (s->g.kh - 1) * s->g.dh + 1;
}

/* ---- running ---- */

static void fill_zero(uint8_t *to, int64_t n, size_t element, uint8_t zero) {
    if (element == 1) {
        memset(to, zero, (size_t)n);
        return;
    }
    for (int64_t i = 0; i < n; i++)
        memcpy(to + 2 * i, &(uint16_t){zero}, 2);
}

static void copy_elements(uint8_t *to, const uint8_t *from, int64_t n, size_t element) {
    if (element == 1) {
        memcpy(to, from, (size_t)n);
        return;
    }
    for (int64_t i = 0; i < n; i++) {
        uint16_t v = from[i];

        memcpy(to + 2 * i, &v, 2);
    }
}

/* Input rows of output rows r0 to r0 + rows, borders included. */
static void copy_band(const struct kernel_state *s, const uint8_t *x, int64_t r0, int64_t rows, uint8_t *to) {
    const struct conv_geometry *g = &s->g;
    size_t element = s->isa->element;
    int64_t have = g->w < s->wide - g->pl ? g->w : s->wide - g->pl;

    for (int64_t i = 0, y = r0 * g->sh - g->pt; i < band_input_rows(s, rows); i++, y++) {
        uint8_t *row = to + (size_t)(i * s->wide * g->c) * element;

        if (y < 0 || y >= g->h || have <= 0) {
            fill_zero(row, s->wide * g->c, element, s->zero_in);
            continue;
        }
        if (s->is_flat && y == g->h - 1)
            have = s->flat_last;
        fill_zero(row, g->pl * g->c, element, s->zero_in);
        copy_elements(row + (size_t)(g->pl * g->c) * element, x + y * g->w * g->c, have * g->c, element);
        fill_zero(row + (size_t)((g->pl + have) * g->c) * element, (s->wide - g->pl - have) * g->c, element,
            s->zero_in);
    }
}

static void run_groups(const struct kernel_state *s, struct s8_job *j, const uint8_t *a, uint8_t *y) {
    size_t out_size = s->out.is_float ? sizeof(float) : 1;

    for (int64_t i = 0; i < s->sh.groups; i++) {
        j->a = a + (size_t)(i * s->sh.ic) * s->isa->element;
        j->y = y + (size_t)(i * s->sh.oc) * out_size;
        j->w = s->w.w + (size_t)i * s->w.group;
        j->bias = s->w.bias + i * s->w.padded;
        j->scale = s->w.scale + i * s->w.padded;
        s->isa->run(j);
    }
}

struct call {
    const struct kernel_state *s;
    const uint8_t *x;
    uint8_t *y, *scratch;
};

static void run_band(const struct call *c, int64_t band, int64_t block0, int64_t block1, uint8_t *scratch) {
    const struct kernel_state *s = c->s;
    const struct conv_geometry *g = &s->g;
    size_t element = s->isa->element, out_size = s->out.is_float ? sizeof(float) : 1;
    int64_t per_image = div_up(g->oh, s->band_rows), image = band / per_image;
    int64_t r0 = band % per_image * s->band_rows;
    int64_t rows = g->oh - r0 < s->band_rows ? g->oh - r0 : s->band_rows;
    const uint8_t *x = c->x + image * g->h * g->w * g->c, *a = scratch;
    uint8_t *y = c->y + (size_t)((image * g->oh + r0) * g->ow * g->oc) * out_size;
    struct s8_job j = {
        .a_row = (ptrdiff_t)((size_t)(g->sh * s->wide * g->c) * element),
        .a_pixel = (ptrdiff_t)((size_t)(g->sw * g->c) * element),
        .seg = s->seg,
        .n_seg = s->sh.n_seg,
        .seg_len = s->sh.seg_len,
        .n_rows = rows,
        .n_pixels = g->ow,
        .y_row = (ptrdiff_t)((size_t)(g->ow * g->oc) * out_size),
        .y_pixel = (ptrdiff_t)((size_t)g->oc * out_size),
        .loader = s->w.loader,
        .table = s->w.table,
        .panel = scratch + s->band_size,
        .w_block = s->w.block,
        .block0 = block0,
        .block1 = block1,
        .n_channels = s->sh.oc,
        .out = s->out,
    };

    if (s->is_direct)
        a = x + r0 * g->sh * g->w * g->c;
    else
        copy_band(s, x, r0, rows, scratch);
    if (s->is_flat && r0 + rows == g->oh && s->flat_last != g->ow) {
        j.n_rows--;
        if (j.n_rows)
            run_groups(s, &j, a, y);
        a += j.n_rows * j.a_row;
        y += j.n_rows * j.y_row;
        j.n_rows = 1;
        j.n_pixels = s->flat_last;
    }
    run_groups(s, &j, a, y);
}

static void run_part(void *ctx, unsigned part) {
    const struct call *c = ctx;
    const struct kernel_state *s = c->s;
    int64_t n = s->by_blocks ? s->w.n_blocks : s->n_bands;
    int64_t first = n * part / s->n_parts, end = n * (part + 1) / s->n_parts;
    uint8_t *scratch = c->scratch + part * (s->band_size + s->w.panel);

    if (!s->by_blocks) {
        for (int64_t band = first; band < end; band++)
            run_band(c, band, 0, s->w.n_blocks, scratch);
        return;
    }
    for (int64_t band = 0; band < s->n_bands; band++)
        run_band(c, band, first, end, scratch);
}

static void conv_run(const struct kernel_state *s, const struct run_io *io) {
    struct call c = {.s = s, .x = io->in[0], .y = io->out[0], .scratch = io->scratch};

    if (s->n_parts > 1)
        pool_run(io->pool, s->n_parts, run_part, &c);
    else
        run_part(&c, 0);
}

/* ---- preparing ---- */

static bool is_layer_on_codes(const struct layer *l) {
    struct s8_output out;

    return l->n_in >= 2 && l->in[0] && l->in[1] && s8_is_codes(&l->in_type[0]) && !l->in[0]->data &&
           s8_output_init(l, &out);
}

static bool conv_shape(const struct layer *l, struct conv_geometry *g, struct s8_shape *sh) {
    const struct shape *w = &l->node->weight->shape;
    int64_t groups = node_attr_int(l->node, "group", 1);

    if (w->rank != l->in[0]->shape.rank || !conv_geometry_init(l, w, g) || groups < 1 || g->c % groups ||
        g->oc % groups)
        return false;
    *sh =
        (struct s8_shape){.groups = groups, .oc = g->oc / groups, .ic = g->c / groups, .taps = g->kh * g->kw};
    sh->seg_taps = groups == 1 && g->dw == 1 ? (int)g->kw : 1;
    sh->n_seg = (int)(sh->taps / sh->seg_taps);
    sh->seg_len = (int)(div_up(sh->ic * sh->seg_taps, 4) * 4);
    return true;
}

static bool conv_fits(const struct layer *l, const struct s8_isa *isa) {
    struct conv_geometry g;
    struct s8_shape sh;

    return is_layer_on_codes(l) && l->node->weight && conv_shape(l, &g, &sh) && s8_weights_fit(l, isa, &sh);
}

static int64_t round_up(int64_t a, int64_t b) {
    return div_up(a, b) * b;
}

/* Rows of pixels of any length: cut so that a row's input stays near, the same number for every thread. */
static void flatten(struct kernel_state *s, unsigned n_threads) {
    struct conv_geometry *g = &s->g;
    int64_t pixels = g->n * g->h * g->w, len = FLAT_BYTES / (g->c + 1) / 14 * 14;

    len = len < 14 ? 14 : len;
    if (pixels > len)
        len = round_up(div_up(pixels, round_up(div_up(pixels, len), n_threads)), 14);
    len = len > pixels ? pixels : len;
    s->is_flat = true;
    g->n = 1;
    g->oh = g->h = div_up(pixels, len);
    g->ow = g->w = len;
    s->flat_last = pixels - (g->oh - 1) * len;
}

static void set_segments(struct kernel_state *s) {
    const struct conv_geometry *g = &s->g;
    int64_t per_row = g->kw / s->sh.seg_taps;

    for (int i = 0; i < s->sh.n_seg; i++) {
        int64_t ky = i / per_row, kx = i % per_row;

        s->seg[i] = (int32_t)((ky * g->dh * s->wide + kx * g->dw) * g->c * (int64_t)s->isa->element);
    }
}

/* Parts for threads. Blocks of channels where there are more channels than pixels, so that each thread reads
 * its own weights alone, or where there are too few rows; else bands of rows, the same number for each. */
static void share_out(struct kernel_state *s, unsigned n_threads, int64_t macs) {
    const struct conv_geometry *g = &s->g;
    int64_t wanted = macs / PART_MACS + 1, bands = div_up(g->oh, s->band_rows);
    bool can_by_blocks;

    wanted = wanted < n_threads ? wanted : n_threads;
    can_by_blocks = wanted > 1 && s->sh.groups == 1 && s->w.n_blocks >= wanted;
    s->by_blocks = can_by_blocks && (s->w.n_blocks % wanted == 0 || s->w.n_blocks >= 4 * wanted) &&
                   s->sh.oc > g->n * (s->is_flat ? (g->oh - 1) * g->ow + s->flat_last : g->oh * g->ow);
    if (wanted > 1 && !s->by_blocks && g->n % wanted && g->oh >= wanted)
        s->band_rows = div_up(g->oh, round_up(bands, wanted));
    s->n_bands = div_up(g->oh, s->band_rows) * g->n;
    s->by_blocks = s->by_blocks || (can_by_blocks && s->n_bands < wanted);
    if (!s->by_blocks)
        wanted = wanted < s->n_bands ? wanted : s->n_bands;
    s->n_parts = (unsigned)wanted;
}

static int plan_bands(struct kernel_state *s, unsigned n_threads, int64_t macs, struct error *err) {
    const struct conv_geometry *g = &s->g;
    int64_t row, rows, bytes = s->w.loader ? CODED_BAND_BYTES : BAND_BYTES;

    s->wide = (g->ow - 1) * g->sw + (g->kw - 1) * g->dw + 1;
    s->is_direct = s->isa->element == 1 && g->pt == 0 && g->pl == 0 && s->wide <= g->w &&
                   band_input_rows(s, g->oh) <= g->h && s->sh.ic % 4 == 0;
    if (s->is_direct)
        s->wide = g->w;
    row = s->wide * g->c * (int64_t)s->isa->element;
    rows = (bytes / (row + 1) - (g->kh - 1) * g->dh - 1) / g->sh + 1;
    rows = rows < 1 ? 1 : rows;
    s->band_rows = rows < g->oh ? rows : g->oh;
    share_out(s, n_threads, macs);
    if (__builtin_mul_overflow((size_t)row, (size_t)band_input_rows(s, s->band_rows), &s->band_size) ||
        s->band_size > INT32_MAX - SLACK)
        return error_set(err, -EFBIG, "its input is too large");
    s->band_size = s->is_direct ? 0 : (s->band_size + SLACK + 63) / 64 * 64;
    set_segments(s);
    return 0;
}

static bool scales_are_tame(const struct kernel_state *s) {
    for (int64_t i = 0; i < s->sh.groups * s->w.padded; i++)
        if (!(s->w.scale[i] <= 1))
            return false;
    return true;
}

static int layer_prepare(const struct layer *l, const struct s8_isa *isa, const struct conv_geometry *g,
    const struct s8_shape *sh, struct pack_cache *packs, struct kernel_state **ret, size_t *ret_scratch,
    struct error *err) {
    _cleanup_(freep) struct kernel_state *s = calloc(1, sizeof(*s) + (size_t)sh->n_seg * sizeof(s->seg[0]));
    int64_t macs = g->n * g->oh * g->ow * g->oc * sh->ic * sh->taps;
    int r;

    if (!s)
        return error_oom(err);
    s->isa = isa;
    s->g = *g;
    s->sh = *sh;
    s->zero_in = (uint8_t)l->in_type[0].quant.zero;
    (void)s8_output_init(l, &s->out); /* fits() said it can */
    r = s8_pack(l, packs, isa, sh, &s->w, err);
    if (r < 0)
        return r;
    s->out.is_tame = scales_are_tame(s);
    if (g->kh * g->kw == 1 && g->sh == 1 && g->sw == 1 && g->pt == 0 && g->pl == 0 && g->oh == g->h &&
        g->ow == g->w)
        flatten(s, l->n_threads);
    r = plan_bands(s, l->n_threads, macs, err);
    if (r < 0)
        return r;
    *ret_scratch = (s->band_size + s->w.panel) * s->n_parts;
    *ret = TAKE(s);
    return 0;
}

static int conv_prepare(const struct layer *l, const struct s8_isa *isa, struct pack_cache *packs,
    struct kernel_state **ret, size_t *ret_scratch, struct error *err) {
    struct conv_geometry g;
    struct s8_shape sh;

    if (!conv_shape(l, &g, &sh))
        return error_set(err, -EINVAL, "not a convolution this kernel takes");
    return layer_prepare(l, isa, &g, &sh, packs, ret, ret_scratch, err);
}

/* y[m][oc] = x[m][ic] W, W [ic][oc], or [oc][ic] with transB: a picture of m pixels. */
static bool gemm_shape(const struct layer *l, struct conv_geometry *g, struct s8_shape *sh) {
    const struct shape *w = &l->node->weight->shape, *x = &l->in[0]->shape;
    bool is_kn = !node_attr_int(l->node, "transB", 0);
    int64_t m = 1;

    if (w->rank != 2 || x->rank < 2 || node_attr_int(l->node, "transA", 0) ||
        node_attr_float(l->node, "alpha", 1) != 1.0f || node_attr_float(l->node, "beta", 1) != 1.0f)
        return false;
    for (int i = 0; i + 1 < x->rank; i++)
        m *= x->dim[i];
    *sh = (struct s8_shape){
        .groups = 1, .oc = w->dim[is_kn], .ic = w->dim[!is_kn], .taps = 1, .is_kn = is_kn, .is_matrix = true};
    if (x->dim[x->rank - 1] != sh->ic || m < 1)
        return false;
    sh->n_seg = sh->seg_taps = 1;
    sh->seg_len = (int)(div_up(sh->ic, 4) * 4);
    *g = (struct conv_geometry){.n = 1, .c = sh->ic, .h = 1, .w = m, .oc = sh->oc, .oh = 1, .ow = m};
    g->kh = g->kw = g->sh = g->sw = g->dh = g->dw = 1;
    return true;
}

static bool gemm_fits(const struct layer *l, const struct s8_isa *isa) {
    struct conv_geometry g;
    struct s8_shape sh;

    return is_layer_on_codes(l) && l->node->weight && gemm_shape(l, &g, &sh) && s8_weights_fit(l, isa, &sh);
}

static int gemm_prepare(const struct layer *l, const struct s8_isa *isa, struct pack_cache *packs,
    struct kernel_state **ret, size_t *ret_scratch, struct error *err) {
    struct conv_geometry g;
    struct s8_shape sh;

    if (!gemm_shape(l, &g, &sh))
        return error_set(err, -EINVAL, "not a matrix product this kernel takes");
    return layer_prepare(l, isa, &g, &sh, packs, ret, ret_scratch, err);
}

static struct kernel_state *conv_done(struct kernel_state *s) {
    free(s);
    return NULL;
}

static const char *const conv_ops[] = {"Conv", NULL};
static const char *const gemm_ops[] = {"Gemm", "MatMul", NULL};

#define IMAGES                                                                                               \
    { .in = 1u << LAYOUT_NHWC, .out = 1u << LAYOUT_NHWC }
#define MATRICES                                                                                             \
    { .in = 1u << LAYOUT_PLAIN, .out = 1u << LAYOUT_PLAIN }

#define ROW(kind, isa_name, ops, layout)                                                                     \
    static bool kind##_##isa_name##_fits(const struct cpu *cpu, const struct layer *l) {                     \
        return s8_isa_##isa_name.has(cpu) && kind##_fits(l, &s8_isa_##isa_name);                             \
    }                                                                                                        \
    static int kind##_##isa_name##_prepare(const struct layer *l, struct pack_cache *packs,                  \
        struct kernel_state **ret, size_t *ret_scratch, struct error *err) {                                 \
        return kind##_prepare(l, &s8_isa_##isa_name, packs, ret, ret_scratch, err);                          \
    }                                                                                                        \
    const struct kernel kernel_##kind##_s8_##isa_name = {                                                    \
        .name = #kind "_s8_" #isa_name,                                                                      \
        .op_types = ops,                                                                                     \
        .fits = kind##_##isa_name##_fits,                                                                    \
        .layouts = layout,                                                                                   \
        .max_posts = NODE_MAX_POSTS,                                                                         \
        .prepare = kind##_##isa_name##_prepare,                                                              \
        .run = conv_run,                                                                                     \
        .done = conv_done,                                                                                   \
    }

ROW(conv, avx512vnni, conv_ops, IMAGES);
ROW(conv, avx2, conv_ops, IMAGES);
ROW(conv, plain, conv_ops, IMAGES);
ROW(gemm, avx512vnni, gemm_ops, MATRICES);
ROW(gemm, avx2, gemm_ops, MATRICES);
ROW(gemm, plain, gemm_ops, MATRICES);
