/* Convolution and fully connected layers whose inputs and weights are signs. The picture of bits is copied
 * into scratch with its border, the plane of triple sums (xnor.h) beside it, and xnor_isa.run counts each
 * block of channels over the whole picture: a picture of bits is small. Threads share out the blocks.
 *
 *     scratch of a part: [bits of the picture with border][its triple sums]
 *
 * A fully connected layer is a row of pixels without neighbours; its inputs come as floats (+1 or -1). */
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "engine/kernel/bits.h"
#include "engine/kernel/rows.h"
#include "engine/kernel/xnor_pack.h"
#include "engine/pack.h"
#include "engine/pool.h"

#define PART_PRODUCTS ((int64_t)16 << 20) /* less work is not worth another thread */
#define SLACK         64                  /* words read behind a plane */
#define MAX_TABLE     ((int64_t)1 << 22)  /* entries of the border's tables */

struct kernel_state {
    const struct xnor_isa *isa;
    struct conv_geometry g;
    struct xnor_shape sh;
    struct xnor_weights w;
    struct xnor_output out;
    int residual; /* post, -1 */
    bool is_residual_in_place;
    int64_t wide, high; /* pixels of the picture with its border */
    int64_t plane;      /* words */
    unsigned n_parts;
    struct xnor_border border;
    void *tables;       /* the border's */
    bits_pack_fn *pack; /* of fully connected layers */
    uint32_t *flip;     /* zeros */
    int32_t seg[];
};

/* ---- running ---- */

static void copy_picture(const struct kernel_state *s, const uint64_t *x, uint64_t *to) {
    const struct conv_geometry *g = &s->g;
    int64_t words = s->sh.words, room = s->wide - g->pl, have = g->w < room ? g->w : room;

    have = have < 0 ? 0 : have;
    for (int64_t i = 0, y = -g->pt; i < s->high; i++, y++, to += s->wide * words) {
        if (y < 0 || y >= g->h) {
            memset(to, 0, (size_t)(s->wide * words) * sizeof(*to));
            continue;
        }
        memset(to, 0, (size_t)(g->pl * words) * sizeof(*to));
        memcpy(to + g->pl * words, x + y * g->w * words, (size_t)(have * words) * sizeof(*to));
        memset(to + (g->pl + have) * words, 0, (size_t)((room - have) * words) * sizeof(*to));
    }
}

struct call {
    const struct kernel_state *s;
    const void *x;
    const float *residual;
    char *y;
    uint64_t *scratch;
};

/* Bits of channels beyond the last block are zeros too. */
static void clear_tail(const struct kernel_state *s, char *y, int64_t y_pixel) {
    int64_t used = s->w.n_blocks;

    for (int64_t p = 0; used < y_pixel && p < s->g.oh * s->g.ow; p++)
        memset(y + p * y_pixel + used, 0, (size_t)(y_pixel - used));
}

static void run_image(const struct call *c, int64_t n, uint64_t *picture, int64_t block0, int64_t block1) {
    const struct kernel_state *s = c->s;
    const struct conv_geometry *g = &s->g;
    int64_t y_pixel =
        s->out.is_bits ? bits_words(g->oc) * (int64_t)sizeof(uint64_t) : g->oc * (int64_t)sizeof(float);
    int64_t y_image = g->oh * g->ow * y_pixel;
    struct xnor_job j = {
        .x = picture,
        .sums = s->plane,
        .row = g->sh * s->wide * s->sh.words,
        .pixel = g->sw * s->sh.words,
        .seg = s->seg,
        .n_seg = s->sh.n_seg,
        .seg_len = s->sh.seg_len,
        .n_rows = g->oh,
        .n_pixels = g->ow,
        .w = s->w.w,
        .block0 = block0,
        .block1 = block1,
        .n_channels = g->oc,
        .padded = s->w.padded,
        .border = s->border,
        .residual = c->residual ? c->residual + n * g->oh * g->ow * g->oc : NULL,
        .y = c->y + n * y_image,
        .y_pixel = y_pixel,
        .out = s->out,
    };

    s->isa->run(&j);
    if (s->out.is_bits && block1 == s->w.n_blocks)
        clear_tail(s, j.y, y_pixel);
}

static void run_part(void *ctx, unsigned part) {
    const struct call *c = ctx;
    const struct kernel_state *s = c->s;
    const struct conv_geometry *g = &s->g;
    int64_t block0 = s->w.n_blocks * part / s->n_parts, block1 = s->w.n_blocks * (part + 1) / s->n_parts;
    uint64_t *picture = c->scratch + part * 2 * s->plane;

    for (int64_t n = 0; n < g->n; n++) {
        if (s->pack) {
            struct bits_source from = {c->x, g->c, 16};

            s->pack(&from, g->w, g->c, s->flip, (const float *)s->flip, picture);
        } else {
            copy_picture(s, (const uint64_t *)c->x + n * g->h * g->w * s->sh.words, picture);
        }
        if (s->sh.seg_len >= 3)
            s->isa->add_triples(picture, picture + s->plane, s->high * s->wide * s->sh.words);
        run_image(c, n, picture, block0, block1);
    }
}

static void xnor_run(const struct kernel_state *s, const struct run_io *io) {
    struct call c = {.s = s, .x = io->in[0], .y = io->out[0], .scratch = io->scratch};

    if (s->residual >= 0)
        c.residual = s->is_residual_in_place ? io->out[0] : io->post_in[s->residual];
    if (s->n_parts > 1)
        pool_run(io->pool, s->n_parts, run_part, &c);
    else
        run_part(&c, 0);
}

/* ---- preparing ---- */

static bool has_layer(const struct layer *l) {
    return l->node->sign_scale && l->in[0] && !l->in[0]->data && l->in[0]->dtype == DT_F32 &&
           l->in_type[0].quant.scale <= 0 && l->out[0].dtype == DT_F32 && l->out_type[0].quant.scale <= 0 &&
           (l->n_in < 3 || !l->in[2] || l->in[2]->data);
}

static bool conv_shape(const struct layer *l, struct conv_geometry *g, struct xnor_shape *sh) {
    const struct shape *w = &l->node->weight->shape;
    int64_t k;

    if (w->rank != l->in[0]->shape.rank || !conv_geometry_init(l, w, g) || w->dim[1] != g->c)
        return false;
    *sh = (struct xnor_shape){.oc = g->oc, .ic = g->c, .taps = g->kh * g->kw, .words = bits_words(g->c)};
    k = sh->ic * sh->taps;
    sh->seg_taps = g->dw == 1 ? (int)g->kw : 1;
    sh->n_seg = (int)(sh->taps / sh->seg_taps);
    sh->seg_len = (int)(sh->seg_taps * sh->words);
    return k <= INT16_MAX; /* counts of the border are 16 bits */
}

/* y[m][oc] = x[m][ic] W: a picture of m pixels. */
static bool gemm_shape(const struct layer *l, struct conv_geometry *g, struct xnor_shape *sh) {
    const struct shape *w = &l->node->weight->shape, *x = &l->in[0]->shape;
    bool is_kn = !node_attr_int(l->node, "transB", 0);

    if (w->rank != 2 || x->rank != 2 || node_attr_int(l->node, "transA", 0) ||
        node_attr_float(l->node, "alpha", 1) != 1.0f || node_attr_float(l->node, "beta", 1) != 1.0f)
        return false;
    *sh = (struct xnor_shape){.oc = w->dim[is_kn], .ic = w->dim[!is_kn], .taps = 1, .is_kn = is_kn};
    if (x->dim[1] != sh->ic || x->dim[0] < 1 || sh->ic > INT32_MAX / 4)
        return false;
    sh->words = bits_words(sh->ic);
    sh->n_seg = sh->seg_taps = 1;
    sh->seg_len = (int)sh->words;
    *g = (struct conv_geometry){
        .n = 1, .c = sh->ic, .h = 1, .w = x->dim[0], .oc = sh->oc, .oh = 1, .ow = x->dim[0]};
    g->kh = g->kw = g->sh = g->sw = g->dh = g->dw = 1;
    return true;
}

/* A number for each channel, or one for all. */
static bool bias_fits(const struct layer *l, int64_t oc) {
    int64_t n;

    if (l->n_in < 3 || !l->in[2])
        return true;
    return l->in[2]->dtype == DT_F32 && shape_count(&l->in[2]->shape, &n) && (n == 1 || n == oc) &&
           (l->in[2]->shape.rank < 1 || l->in[2]->shape.dim[l->in[2]->shape.rank - 1] == n);
}

static bool conv_fits(const struct layer *l, bool wants_bits) {
    struct xnor_output out;
    struct conv_geometry g;
    struct xnor_shape sh;
    int residual;

    return has_layer(l) && l->node->weight && conv_shape(l, &g, &sh) && bias_fits(l, sh.oc) &&
           xnor_output_read(l, &out, &residual) && out.is_bits == wants_bits;
}

static bool gemm_fits(const struct layer *l) {
    struct xnor_output out;
    struct conv_geometry g;
    struct xnor_shape sh;
    int residual;

    return has_layer(l) && l->node->weight && gemm_shape(l, &g, &sh) && bias_fits(l, sh.oc) &&
           xnor_output_read(l, &out, &residual) && !out.is_bits;
}

/* Taps of a window at `at` that lie in 0 to size: first <= tap < end. */
static void clip_taps(
    int64_t at, int64_t taps, int64_t dilation, int64_t size, int64_t *first, int64_t *end) {
    int64_t f = at < 0 ? (-at + dilation - 1) / dilation : 0, e = (size - at + dilation - 1) / dilation;

    *first = f < taps ? f : taps;
    *end = e < *first ? *first : e < taps ? e : taps;
}

struct axis {
    int64_t n, size, stride, dilation, taps, before; /* outputs, inputs, window */
    uint16_t *class;
    int n_class;
    int64_t *first, *end; /* taps within the picture, of each class */
};

/* Positions with the same taps in the picture are a class. */
static bool find_classes(struct axis *a) {
    for (int64_t i = 0; i < a->n; i++) {
        int64_t first, end;
        int c = 0;

        clip_taps(i * a->stride - a->before, a->taps, a->dilation, a->size, &first, &end);
        while (c < a->n_class && (a->first[c] != first || a->end[c] != end))
            c++;
        if (c == UINT16_MAX)
            return false;
        a->first[c] = first;
        a->end[c] = end;
        a->n_class = c == a->n_class ? c + 1 : a->n_class;
        a->class[i] = (uint16_t)c;
    }
    return true;
}

static int axis_init(
    struct axis *a, int64_t n, int64_t size, int64_t stride, int64_t dilation, int64_t taps, int64_t before) {
    *a = (struct axis){
        .n = n, .size = size, .stride = stride, .dilation = dilation, .taps = taps, .before = before};
    a->class = calloc((size_t)n, sizeof(*a->class));
    a->first = calloc((size_t)n, sizeof(*a->first));
    a->end = calloc((size_t)n, sizeof(*a->end));
    return a->class && a->first && a->end ? 0 : -ENOMEM;
}

static void axis_done(struct axis *a) {
    free(a->class);
    free(a->first);
    free(a->end);
}

/* What the padding counts in class (r, c). */
static void fill_class(const struct kernel_state *s, const struct axis *rows, const struct axis *cols, int r,
    int c, int16_t *fix) {
    for (int64_t tap = 0; tap < s->sh.taps; tap++) {
        int64_t ky = tap / s->g.kw, kx = tap % s->g.kw;

        if (ky >= rows->first[r] && ky < rows->end[r] && kx >= cols->first[c] && kx < cols->end[c])
            continue;
        for (int64_t oc = 0; oc < s->sh.oc; oc++)
            fix[oc] = (int16_t)(fix[oc] + xnor_count_tap(&s->w, &s->sh, tap, oc));
    }
}

static int make_border(struct kernel_state *s, struct error *err) {
    const struct conv_geometry *g = &s->g;
    _cleanup_(axis_done) struct axis rows = {0};
    _cleanup_(axis_done) struct axis cols = {0};
    int64_t n, entries;
    int32_t *taken;
    uint16_t *class;
    int16_t *fix;

    if (axis_init(&rows, g->oh, g->h, g->sh, g->dh, g->kh, g->pt) < 0 ||
        axis_init(&cols, g->ow, g->w, g->sw, g->dw, g->kw, g->pl) < 0)
        return error_oom(err);
    if (!find_classes(&rows) || !find_classes(&cols))
        return error_set(err, -EOPNOTSUPP, "its border has too many kinds of pixels");
    n = (int64_t)rows.n_class * cols.n_class;
    if (__builtin_mul_overflow(n, s->w.padded, &entries) || entries > MAX_TABLE)
        return error_set(err, -EOPNOTSUPP, "its border has too many kinds of pixels");
    s->tables = calloc(1, (size_t)n * sizeof(*taken) + (size_t)entries * sizeof(*fix) +
                              (size_t)(g->oh + g->ow) * sizeof(*class));
    if (!s->tables)
        return error_oom(err);
    taken = s->tables;
    fix = (int16_t *)(void *)(taken + n);
    class = (uint16_t *)(void *)(fix + entries);
    memcpy(class, rows.class, (size_t)g->oh * sizeof(*class));
    memcpy(class + g->oh, cols.class, (size_t)g->ow * sizeof(*class));
    for (int r = 0; r < rows.n_class; r++)
        for (int c = 0; c < cols.n_class; c++) {
            int i = r * cols.n_class + c;

            taken[i] = (int32_t)(s->sh.ic * (rows.end[r] - rows.first[r]) * (cols.end[c] - cols.first[c]));
            fill_class(s, &rows, &cols, r, c, fix + i * s->w.padded);
        }
    s->border = (struct xnor_border){
        .row = class, .col = class + g->oh, .n_col = cols.n_class, .taken = taken, .fix = fix};
    return 0;
}

static int place_picture(struct kernel_state *s, struct error *err) {
    const struct conv_geometry *g = &s->g;
    int64_t per_row = g->kw / s->sh.seg_taps, row;

    s->high = (g->oh - 1) * g->sh + (g->kh - 1) * g->dh + 1;
    s->wide = (g->ow - 1) * g->sw + (g->kw - 1) * g->dw + 1;
    if (__builtin_mul_overflow(s->wide, s->sh.words, &row) ||
        __builtin_mul_overflow(s->high, row, &s->plane) || s->plane > INT32_MAX / 16)
        return error_set(err, -EFBIG, "its input is too large");
    s->plane += SLACK;
    for (int i = 0; i < s->sh.n_seg; i++)
        s->seg[i] = (int32_t)((i / per_row * g->dh * s->wide + i % per_row * g->dw) * s->sh.words);
    return 0;
}

static struct kernel_state *xnor_done(struct kernel_state *s) {
    if (s) {
        free(s->tables);
        free(s->flip);
    }
    free(s);
    return NULL;
}
DEFINE_CLEANUP(struct kernel_state *, xnor_done)

static void share_out(struct kernel_state *s, const struct layer *l) {
    const struct conv_geometry *g = &s->g;
    int64_t parts =
        g->n * g->oh * g->ow * g->oc / 1024 * (s->sh.ic * s->sh.taps) / (PART_PRODUCTS / 1024) + 1;

    parts = parts < l->n_threads ? parts : l->n_threads;
    s->n_parts = (unsigned)(parts < s->w.n_blocks ? parts : s->w.n_blocks);
}

static int layer_prepare(const struct layer *l, const struct xnor_isa *isa, const struct conv_geometry *g,
    const struct xnor_shape *sh, struct pack_cache *packs, struct kernel_state **ret, size_t *ret_scratch,
    struct error *err) {
    _cleanup_(xnor_donep) struct kernel_state *s =
        calloc(1, sizeof(*s) + (size_t)sh->n_seg * sizeof(s->seg[0]));
    int r;

    if (!s)
        return error_oom(err);
    s->isa = isa;
    s->g = *g;
    s->sh = *sh;
    (void)xnor_output_read(l, &s->out, &s->residual); /* fits() said it can */
    s->is_residual_in_place = s->residual >= 0 && l->in_place_post == s->residual;
    r = xnor_pack(l, packs, sh, &s->out, &s->w, err);
    if (r == 0)
        r = place_picture(s, err);
    if (r == 0)
        r = make_border(s, err);
    if (r < 0)
        return r;
    share_out(s, l);
    *ret_scratch = 2 * (size_t)s->plane * sizeof(uint64_t) * s->n_parts;
    *ret = TAKE(s);
    return 0;
}

static int conv_prepare(const struct layer *l, const struct xnor_isa *isa, struct pack_cache *packs,
    struct kernel_state **ret, size_t *ret_scratch, struct error *err) {
    struct conv_geometry g;
    struct xnor_shape sh;

    if (!conv_shape(l, &g, &sh))
        return error_set(err, -EINVAL, "not a convolution this kernel takes");
    return layer_prepare(l, isa, &g, &sh, packs, ret, ret_scratch, err);
}

static int gemm_prepare(const struct layer *l, const struct xnor_isa *isa, struct pack_cache *packs,
    struct kernel_state **ret, size_t *ret_scratch, struct error *err) {
    struct conv_geometry g;
    struct xnor_shape sh;
    uint32_t *zeros;
    int r;

    if (!gemm_shape(l, &g, &sh))
        return error_set(err, -EINVAL, "not a matrix product this kernel takes");
    zeros = calloc((size_t)(sh.ic + 15) / 16 * 16, sizeof(*zeros));
    if (!zeros)
        return error_oom(err);
    r = layer_prepare(l, isa, &g, &sh, packs, ret, ret_scratch, err);
    if (r < 0) {
        free(zeros);
        return r;
    }
    (*ret)->flip = zeros;
    (*ret)->pack = bits_pack_for(l->cpu);
    return 0;
}

static const char *const conv_ops[] = {"Conv", NULL};
static const char *const gemm_ops[] = {"Gemm", "MatMul", NULL};

#define TO(layout_in, layout_out)                                                                            \
    { .in = 1u << (layout_in), .out = 1u << (layout_out), .free_out = true }

#define ROW(variable, row_name, isa_name, ops, fits_call, prepare_fn, layout)                                \
    static bool variable##_fits(const struct cpu *cpu, const struct layer *l) {                              \
        return xnor_isa_##isa_name.has(cpu) && fits_call;                                                    \
    }                                                                                                        \
    static int variable##_prepare(const struct layer *l, struct pack_cache *packs,                           \
        struct kernel_state **ret, size_t *ret_scratch, struct error *err) {                                 \
        return prepare_fn(l, &xnor_isa_##isa_name, packs, ret, ret_scratch, err);                            \
    }                                                                                                        \
    const struct kernel variable = {                                                                         \
        .name = row_name,                                                                                    \
        .op_types = ops,                                                                                     \
        .fits = variable##_fits,                                                                             \
        .layouts = layout,                                                                                   \
        .max_posts = NODE_MAX_POSTS,                                                                         \
        .can_sum_in_place = true,                                                                            \
        .prepare = variable##_prepare,                                                                       \
        .run = xnor_run,                                                                                     \
        .done = xnor_done,                                                                                   \
    }

#define ROWS(isa)                                                                                            \
    ROW(kernel_conv_xnor_##isa, "conv_xnor_" #isa, isa, conv_ops, conv_fits(l, false), conv_prepare,         \
        TO(LAYOUT_BITS, LAYOUT_NHWC));                                                                       \
    ROW(kernel_conv_xnor_bits_##isa, "conv_xnor_bits_" #isa, isa, conv_ops, conv_fits(l, true),              \
        conv_prepare, TO(LAYOUT_BITS, LAYOUT_BITS));                                                         \
    ROW(kernel_gemm_xnor_##isa, "gemm_xnor_" #isa, isa, gemm_ops, gemm_fits(l), gemm_prepare,                \
        TO(LAYOUT_PLAIN, LAYOUT_PLAIN))

ROWS(avx512vpopcntdq);
ROWS(avx2);
ROWS(plain);
