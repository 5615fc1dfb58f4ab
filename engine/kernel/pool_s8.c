/* Pools on codes, channels last. A maximum needs no scale: input and output share it. An average is the exact
 * sum of code - zero, times s_x / (s_y count), rounded once. */
#include "engine/kernel/s8_vector.h"

#include <stdlib.h>
#include <string.h>

#include "engine/kernel/conv_geometry.h"
#include "engine/kernel/rows.h"
#include "engine/kernel/s8.h"

struct taps;

struct kernel_state {
    struct conv_geometry g;
    struct s8_output out;
    bool is_max, counts_pad;
    int32_t zero;
    float ratio; /* s_x / s_y */
    void (*max)(const struct taps *t, uint8_t *y, int64_t n);
    void (*sum)(const struct taps *t, int32_t *sum, int64_t n);
    void (*finish)(
        const struct s8_output *o, const int32_t *sum, int32_t bias, float scale, uint8_t *y, int64_t n);
    int64_t sum_size; /* numbers of a part's scratch */
};

/* Taps of a window that lie in the picture: `ny` rows of `nx` pixels, `row` and `pixel` bytes apart. */
struct taps {
    const uint8_t *x;
    int64_t ny, nx, row, pixel;
};

#define RUN 64 /* channels in registers */

S8_LOOP max_run(const struct taps *t, int64_t c, uint8_t *y, const int n) {
    uint8_t best[RUN] = {0};

    for (int64_t ky = 0; ky < t->ny; ky++)
        for (int64_t kx = 0; kx < t->nx; kx++) {
            const uint8_t *x = t->x + ky * t->row + kx * t->pixel + c;

            for (int i = 0; i < n; i++)
                best[i] = best[i] > x[i] ? best[i] : x[i];
        }
    memcpy(y + c, best, (size_t)n);
}

S8_LOOP pool_max(const struct taps *t, uint8_t *y, int64_t n) {
    int64_t c = 0;

    for (; c + RUN <= n; c += RUN)
        max_run(t, c, y, RUN);
    for (; c + 16 <= n; c += 16)
        max_run(t, c, y, 16);
    for (; c < n; c++)
        max_run(t, c, y, 1);
}
S8_CLONES(pool_max, (const struct taps *t, uint8_t *y, int64_t n), (t, y, n))

S8_LOOP sum_run(const struct taps *t, int64_t c, int32_t *sum, const int n) {
    int32_t all[RUN] = {0};

    for (int64_t ky = 0; ky < t->ny; ky++)
        for (int64_t kx = 0; kx < t->nx; kx++) {
            const uint8_t *x = t->x + ky * t->row + kx * t->pixel + c;

            for (int i = 0; i < n; i++)
                all[i] += x[i];
        }
    memcpy(sum + c, all, (size_t)n * sizeof(*sum));
}

S8_LOOP pool_sum(const struct taps *t, int32_t *sum, int64_t n) {
    int64_t c = 0;

    for (; c + RUN <= n; c += RUN)
        sum_run(t, c, sum, RUN);
    for (; c + 16 <= n; c += 16)
        sum_run(t, c, sum, 16);
    for (; c < n; c++)
        sum_run(t, c, sum, 1);
}
S8_CLONES(pool_sum, (const struct taps *t, int32_t *sum, int64_t n), (t, sum, n))

S8_LOOP pool_finish(
    const struct s8_output *o, const int32_t *sum, int32_t bias, float scale, uint8_t *y, int64_t n) {
    const struct s8_output k = *o;

    for (int64_t i = 0; i < n; i++)
        y[i] = s8_encode((float)(sum[i] - bias) * scale, &k);
}
S8_CLONES(pool_finish,
    (const struct s8_output *o, const int32_t *sum, int32_t bias, float scale, uint8_t *y, int64_t n),
    (o, sum, bias, scale, y, n))

static bool is_global(const struct layer *l) {
    return strncmp(l->node->op_type, "Global", 6) == 0;
}

static bool is_max(const struct layer *l) {
    return strstr(l->node->op_type, "MaxPool") != NULL;
}

static bool pool_geometry(const struct layer *l, struct conv_geometry *g) {
    const struct shape *x = &l->in[0]->shape;

    if (!is_global(l))
        return conv_geometry_init(l, NULL, g);
    if (x->rank < 3)
        return false;
    *g = (struct conv_geometry){
        .n = x->dim[0], .c = x->dim[1], .oc = x->dim[1], .h = 1, .w = 1, .oh = 1, .ow = 1};
    for (int i = 2; i < x->rank; i++)
        g->w *= x->dim[i];
    g->kh = g->sh = g->sw = g->dh = g->dw = 1;
    g->kw = g->w;
    return g->w > 0;
}

static bool pool_fits(const struct cpu *cpu, const struct layer *l) {
    const struct quant *x = &l->in_type[0].quant, *y = &l->out_type[0].quant;
    struct conv_geometry g;
    struct s8_output o;

    (void)cpu;
    if (l->n_out != 1 || !s8_is_codes(&l->in_type[0]) || !s8_is_codes(&l->out_type[0]) || l->in[0]->data ||
        !s8_output_init(l, &o) || !pool_geometry(l, &g))
        return false;
    if (is_max(l) && (x->scale < y->scale || x->scale > y->scale || x->zero != y->zero || l->node->n_post))
        return false;
    /* windows beyond all padding (ceil_mode) are not counted by ONNX: left to the reference */
    return !(node_attr_int(l->node, "count_include_pad", 0) && node_attr_int(l->node, "ceil_mode", 0));
}

static int pool_prepare(const struct layer *l, struct pack_cache *packs, struct kernel_state **ret,
    size_t *ret_scratch, struct error *err) {
    struct kernel_state *s = calloc(1, sizeof(*s));

    (void)packs;
    if (!s)
        return error_oom(err);
    (void)pool_geometry(l, &s->g); /* fits() said it can */
    (void)s8_output_init(l, &s->out);
    s->is_max = is_max(l);
    s->counts_pad = !is_global(l) && node_attr_int(l->node, "count_include_pad", 0);
    s->zero = l->in_type[0].quant.zero;
    s->ratio = l->in_type[0].quant.scale / l->out_type[0].quant.scale;
    s->max = S8_PICK(pool_max, l->cpu);
    s->sum = S8_PICK(pool_sum, l->cpu);
    s->finish = S8_PICK(pool_finish, l->cpu);
    s->sum_size = (s->g.c + 15) / 16 * 16;
    *ret_scratch = s->is_max ? 0 : (size_t)s->sum_size * l->n_threads * sizeof(int32_t);
    *ret = s;
    return 0;
}

/* The window's taps that lie in the picture: y0 + i dh for first <= i < end. */
static void clip_taps(
    int64_t at, int64_t kernel, int64_t dilation, int64_t size, int64_t *first, int64_t *end) {
    int64_t lo = at < 0 ? (-at + dilation - 1) / dilation : 0, hi = (size - at + dilation - 1) / dilation;

    *first = lo;
    *end = hi < kernel ? hi : kernel;
}

static void pool_pixel(
    const struct kernel_state *s, const uint8_t *x, int64_t oy, int64_t ox, int32_t *sum, uint8_t *y) {
    const struct conv_geometry *g = &s->g;
    int64_t y0 = oy * g->sh - g->pt, x0 = ox * g->sw - g->pl, ky0, ky1, kx0, kx1, count;
    struct taps t;

    clip_taps(y0, g->kh, g->dh, g->h, &ky0, &ky1);
    clip_taps(x0, g->kw, g->dw, g->w, &kx0, &kx1);
    t = (struct taps){.x = x + ((y0 + ky0 * g->dh) * g->w + x0 + kx0 * g->dw) * g->c,
        .ny = ky1 - ky0,
        .nx = kx1 - kx0,
        .row = g->dh * g->w * g->c,
        .pixel = g->dw * g->c};
    if (s->is_max) {
        s->max(&t, y, g->c);
        return;
    }
    s->sum(&t, sum, g->c);
    count = ky1 > ky0 && kx1 > kx0 ? (ky1 - ky0) * (kx1 - kx0) : 0;
    s->finish(&s->out, sum, (int32_t)(count * s->zero),
        s->ratio / (float)(s->counts_pad ? g->kh * g->kw
                           : count       ? count
                                         : 1),
        y, g->c);
}

/* Output rows first to end, of all images. */
static void pool_range(
    const struct kernel_state *s, const struct run_io *io, unsigned part, int64_t first, int64_t end) {
    const struct conv_geometry *g = &s->g;
    int32_t *sum = io->scratch;

    sum = sum ? sum + part * s->sum_size : NULL;
    for (int64_t row = first; row < end; row++) {
        const uint8_t *x = (const uint8_t *)io->in[0] + row / g->oh * g->h * g->w * g->c;
        uint8_t *y = (uint8_t *)io->out[0] + row * g->ow * g->c;

        for (int64_t ox = 0; ox < g->ow; ox++, y += g->c)
            pool_pixel(s, x, row % g->oh, ox, sum, y);
    }
}

static void pool_run(const struct kernel_state *s, const struct run_io *io) {
    const struct conv_geometry *g = &s->g;

    s8_run_ranges(s, io, pool_range, g->n * g->oh, 1, g->n * g->oh * g->ow * g->c * g->kh * g->kw);
}

static struct kernel_state *pool_done(struct kernel_state *s) {
    free(s);
    return NULL;
}

static const char *const pool_ops[] = {"AveragePool", "GlobalAveragePool", "GlobalMaxPool", "MaxPool", NULL};

const struct kernel kernel_pool_s8 = {
    .name = "pool_s8",
    .op_types = pool_ops,
    .fits = pool_fits,
    .layouts = {.in = 1u << LAYOUT_NHWC, .out = 1u << LAYOUT_NHWC},
    .max_posts = NODE_MAX_POSTS,
    .prepare = pool_prepare,
    .run = pool_run,
    .done = pool_done,
};
