/* Convolution and fully connected layers whose inputs and weights are signs. xnor_isa.run counts each block
 * of channels over the whole picture, where it lies: a picture of bits is small. Threads share out the
 * blocks.
 *
 * A fully connected layer is a row of pixels without neighbours; its inputs come as floats (+1 or -1), and
 * each part makes bits of them in scratch. */
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
#define MAX_WORDS     ((int64_t)1 << 18)  /* of all windows that differ */

struct kernel_state {
    const struct xnor_isa *isa;
    struct conv_geometry g;
    struct xnor_shape sh;
    struct xnor_weights w;
    struct xnor_output out;
    int residual; /* post, -1 */
    bool is_residual_in_place;
    int64_t row, pixel, picture; /* words of the input */
    struct xnor_run *rows, *cols;
    int n_rows, n_cols;
    struct xnor_window *windows; /* [n_rows][n_cols], their words behind them */
    unsigned n_parts;
    bits_pack_fn *pack; /* of fully connected layers */
    uint32_t *flip;     /* zeros */
};

/* ---- running ---- */

struct call {
    const struct kernel_state *s;
    const void *x;
    const float *residual;
    char *y;
    uint64_t *scratch;
};

/* Bits of channels beyond the last block are zeros too. */
static void clear_tail(const struct kernel_state *s, char *y, int64_t y_pixel) {
    int64_t used = s->w.n_blocks * XNOR_BLOCK / 8;

    for (int64_t p = 0; used < y_pixel && p < s->g.oh * s->g.ow; p++)
        memset(y + p * y_pixel + used, 0, (size_t)(y_pixel - used));
}

static void run_image(
    const struct call *c, int64_t n, const uint64_t *picture, int64_t block0, int64_t block1) {
    const struct kernel_state *s = c->s;
    const struct conv_geometry *g = &s->g;
    int64_t y_pixel =
        s->out.is_bits ? bits_words(g->oc) * (int64_t)sizeof(uint64_t) : g->oc * (int64_t)sizeof(float);
    int64_t y_image = g->oh * g->ow * y_pixel;
    struct xnor_job j = {
        .x = picture,
        .row = g->sh * s->row,
        .pixel = g->sw * s->pixel,
        .rows = s->rows,
        .cols = s->cols,
        .n_rows = s->n_rows,
        .n_cols = s->n_cols,
        .windows = s->windows,
        .n_pixels = g->ow,
        .w = s->w.w,
        .w_block = s->w.block,
        .block0 = block0,
        .block1 = block1,
        .n_channels = g->oc,
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

    if (s->pack) {
        struct bits_source from = {c->x, g->c, 16};
        uint64_t *picture = c->scratch + part * s->picture;

        s->pack(&from, g->w, g->c, s->flip, (const float *)s->flip, picture);
        run_image(c, 0, picture, block0, block1);
        return;
    }
    for (int64_t n = 0; n < g->n; n++)
        run_image(c, n, (const uint64_t *)c->x + n * s->picture, block0, block1);
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

    if (w->rank != l->in[0]->shape.rank || !conv_geometry_init(l, w, g) || w->dim[1] != g->c)
        return false;
    *sh = (struct xnor_shape){.oc = g->oc, .ic = g->c, .taps = g->kh * g->kw, .words = bits_words(g->c)};
    return sh->taps <=
           INT32_MAX / 16 / XNOR_BLOCK / (64 * sh->words); /* sums, and places of words, are 32 bits */
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
    int64_t words;                                   /* between neighbours in the picture */
    struct xnor_run *run;
    int n_runs;
    int64_t *first, *end; /* of each run, the taps in the picture */
};

/* Outputs with the same taps in the picture are neighbours: both ends move one way. */
static int axis_init(struct axis *a) {
    int64_t max = 2 * a->taps + 1 < a->n ? 2 * a->taps + 1 : a->n, first, end;

    a->run = calloc((size_t)max, sizeof(*a->run));
    a->first = calloc((size_t)max, sizeof(*a->first));
    a->end = calloc((size_t)max, sizeof(*a->end));
    if (!a->run || !a->first || !a->end)
        return -ENOMEM;
    for (int64_t i = 0; i < a->n; i++) {
        int64_t at = i * a->stride - a->before;
        int k = a->n_runs - 1;

        clip_taps(at, a->taps, a->dilation, a->size, &first, &end);
        if (k < 0 || a->first[k] != first || a->end[k] != end) {
            k = a->n_runs++;
            a->first[k] = first;
            a->end[k] = end;
            a->run[k].first = i;
            a->run[k].x = first < end ? (at + first * a->dilation) * a->words : 0;
        }
        a->run[k].n++;
    }
    return 0;
}

static void axis_done(struct axis *a) {
    free(a->run);
    free(a->first);
    free(a->end);
}

static int64_t axis_taps(const struct axis *a) {
    int64_t sum = 0;

    for (int i = 0; i < a->n_runs; i++)
        sum += a->end[i] - a->first[i];
    return sum;
}

/* The words of windows in rows r and columns c. */
static struct xnor_word *list_words(const struct kernel_state *s, const struct axis *rows, int r,
    const struct axis *cols, int c, struct xnor_word *to) {
    for (int64_t y = rows->first[r]; y < rows->end[r]; y++)
        for (int64_t x = cols->first[c]; x < cols->end[c]; x++)
            for (int64_t k = 0; k < s->sh.words; k++, to++) {
                int64_t row = (y - rows->first[r]) * rows->dilation * rows->words;
                int64_t col = (x - cols->first[c]) * cols->dilation * cols->words;

                to->x = (int32_t)(row + col + k);
                to->w = (int32_t)(((y * cols->taps + x) * s->sh.words + k) * XNOR_BLOCK);
            }
    return to;
}

static int make_windows(
    struct kernel_state *s, const struct axis *rows, const struct axis *cols, struct error *err) {
    int64_t n_words;
    struct xnor_word *word;
    size_t n = (size_t)rows->n_runs * (size_t)cols->n_runs;

    if (__builtin_mul_overflow(axis_taps(rows) * s->sh.words, axis_taps(cols), &n_words) ||
        n_words > MAX_WORDS || n > (size_t)MAX_WORDS)
        return error_set(err, -EOPNOTSUPP, "its border has too many kinds of pixels");
    s->windows = calloc(1, n * sizeof(*s->windows) + (size_t)n_words * sizeof(*word));
    if (!s->windows)
        return error_oom(err);
    word = (struct xnor_word *)(void *)(s->windows + n);
    for (int r = 0; r < rows->n_runs; r++)
        for (int c = 0; c < cols->n_runs; c++) {
            struct xnor_window *w = &s->windows[r * cols->n_runs + c];
            int64_t taps = (rows->end[r] - rows->first[r]) * (cols->end[c] - cols->first[c]);

            w->word = word;
            w->n_words = (int32_t)(taps * s->sh.words);
            w->products = (int32_t)(taps * s->sh.ic);
            word = list_words(s, rows, r, cols, c, word);
        }
    return 0;
}

/* How windows lie in the picture. */
static int place_windows(struct kernel_state *s, struct error *err) {
    const struct conv_geometry *g = &s->g;
    _cleanup_(axis_done) struct axis rows = {g->oh, g->h, g->sh, g->dh, g->kh, g->pt, 0, NULL, 0, NULL, NULL};
    _cleanup_(axis_done) struct axis cols = {g->ow, g->w, g->sw, g->dw, g->kw, g->pl, 0, NULL, 0, NULL, NULL};
    int r;

    s->pixel = s->sh.words;
    if (__builtin_mul_overflow(g->w, s->pixel, &s->row) ||
        __builtin_mul_overflow(g->h, s->row, &s->picture) || s->picture > INT32_MAX / 16)
        return error_set(err, -EFBIG, "its input is too large");
    rows.words = s->row;
    cols.words = s->pixel;
    if (axis_init(&rows) < 0 || axis_init(&cols) < 0)
        return error_oom(err);
    r = make_windows(s, &rows, &cols, err);
    if (r < 0)
        return r;
    s->n_rows = rows.n_runs;
    s->n_cols = cols.n_runs;
    s->rows = TAKE(rows.run);
    s->cols = TAKE(cols.run);
    return 0;
}

static struct kernel_state *xnor_done(struct kernel_state *s) {
    if (s) {
        free(s->rows);
        free(s->cols);
        free(s->windows);
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
    const struct xnor_shape *sh, struct pack_cache *packs, struct kernel_state **ret, struct error *err) {
    _cleanup_(xnor_donep) struct kernel_state *s = calloc(1, sizeof(*s));
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
        r = place_windows(s, err);
    if (r < 0)
        return r;
    share_out(s, l);
    *ret = TAKE(s);
    return 0;
}

static int conv_prepare(const struct layer *l, const struct xnor_isa *isa, struct pack_cache *packs,
    struct kernel_state **ret, size_t *ret_scratch, struct error *err) {
    struct conv_geometry g;
    struct xnor_shape sh;

    if (!conv_shape(l, &g, &sh))
        return error_set(err, -EINVAL, "not a convolution this kernel takes");
    *ret_scratch = 0;
    return layer_prepare(l, isa, &g, &sh, packs, ret, err);
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
    r = layer_prepare(l, isa, &g, &sh, packs, ret, err);
    if (r < 0) {
        free(zeros);
        return r;
    }
    *ret_scratch = (size_t)(*ret)->picture * sizeof(uint64_t) * (*ret)->n_parts;
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
