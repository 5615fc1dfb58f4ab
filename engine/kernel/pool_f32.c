#include "engine/kernel/pool_f32.h"

#include <stdlib.h>
#include <string.h>

#include "engine/kernel/ranges.h"
#include "engine/kernel/rows.h"

struct kernel_state {
    struct pool_f32 p;
    void (*rows)(const struct pool_f32 *p, const float *x, float *y, int64_t first, int64_t last);
    unsigned n_parts;
};

static bool is_op(const struct layer *l, const char *name) {
    return strcmp(l->node->op_type, name) == 0;
}

static bool is_global(const struct layer *l) {
    return is_op(l, "GlobalAveragePool") || is_op(l, "GlobalMaxPool");
}

static bool geometry(const struct layer *l, struct conv_geometry *g) {
    const struct shape *x = &l->in[0]->shape;

    if (!is_global(l))
        return conv_geometry_init(l, NULL, g);
    if (x->rank != 4)
        return false;
    *g = (struct conv_geometry){.n = x->dim[0],
        .c = x->dim[1],
        .h = x->dim[2],
        .w = x->dim[3],
        .oc = x->dim[1],
        .oh = 1,
        .ow = 1,
        .kh = x->dim[2],
        .kw = x->dim[3],
        .sh = 1,
        .sw = 1,
        .dh = 1,
        .dw = 1};
    return true;
}

/* Every window must have a tap in the picture: what else comes of padding is the reference's business. */
static bool has_empty_window(int64_t size, int64_t out, int64_t k, int64_t s, int64_t d, int64_t pad) {
    int64_t last = (out - 1) * s - pad;

    return pad > (k - 1) * d || last >= size || d > size;
}

static bool pool_f32_fits(const struct cpu *cpu, const struct layer *l) {
    struct conv_geometry g;

    if (!cpu->avx2 || l->in[0]->dtype != DT_F32 || l->out[0].dtype != DT_F32 || l->in[0]->data ||
        l->n_out != 1 || !geometry(l, &g))
        return false;
    /* what ceil_mode adds beyond the padding is not counted in ONNX */
    if (node_attr_int(l->node, "count_include_pad", 0) && node_attr_int(l->node, "ceil_mode", 0))
        return false;
    return g.n > 0 && g.c > 0 && !has_empty_window(g.h, g.oh, g.kh, g.sh, g.dh, g.pt) &&
           !has_empty_window(g.w, g.ow, g.kw, g.sw, g.dw, g.pl);
}

/* Below so many loads (some 10 us) waking another thread costs more than it brings. */
#define MIN_LOADS_A_PART (1 << 18)

static int pool_f32_prepare(const struct layer *l, struct pack_cache *packs, struct kernel_state **ret,
    size_t *ret_scratch, struct error *err) {
    struct kernel_state *s = calloc(1, sizeof(*s));
    const struct conv_geometry *g;

    (void)packs;
    (void)ret_scratch;
    if (!s)
        return error_oom(err);
    (void)geometry(l, &s->p.g); /* fits() said it can */
    g = &s->p.g;
    s->p.is_max = is_op(l, "MaxPool") || is_op(l, "GlobalMaxPool");
    if (node_attr_int(l->node, "count_include_pad", 0))
        s->p.divisor = g->kh * g->kw;
    s->rows = l->cpu->avx512 ? pool_f32_avx512 : pool_f32_avx2;
    s->n_parts = ranges_count(l, g->n * g->oh, conv_geometry_macs(g, 1), MIN_LOADS_A_PART);
    *ret = s;
    return 0;
}

static void run_range(
    const struct kernel_state *s, const struct run_io *io, unsigned part, int64_t first, int64_t end) {
    (void)part;
    s->rows(&s->p, io->in[0], io->out[0], first, end);
}

static void pool_f32_run(const struct kernel_state *s, const struct run_io *io) {
    ranges_run(s, io, run_range, s->p.g.n * s->p.g.oh, 1, s->n_parts);
}

static struct kernel_state *pool_f32_done(struct kernel_state *s) {
    free(s);
    return NULL;
}

const struct kernel kernel_pool_f32 = {
    .name = "pool_f32",
    .op_types = (const char *const[]){"MaxPool", "AveragePool", "GlobalAveragePool", "GlobalMaxPool", NULL},
    .fits = pool_f32_fits,
    .layouts = {.in = 1u << LAYOUT_NHWC, .out = 1u << LAYOUT_NHWC},
    .prepare = pool_f32_prepare,
    .run = pool_f32_run,
    .done = pool_f32_done,
};
