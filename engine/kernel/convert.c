/* Conversions between forms of a value: layout first, by element size; then type. PLAIN, NHWC and nChw16c in
 * every direction; f32 to codes and back, codes to other codes. */
#include <stdlib.h>
#include <string.h>

#include "engine/kernel/isa.h"
#include "engine/kernel/quant.h"
#include "engine/kernel/rows.h"

struct kernel_state {
    struct vtype from, to;
    int64_t n, c, hw; /* images, channels, pixels */
    size_t size;      /* of an element, in the layout step */
    size_t scratch_at;
};

static size_t element_size(enum dtype t) {
    const struct dtype_info *i = dtype_info(t);

    return i ? i->bits / 8 : 0;
}

static bool convert_fits(const struct cpu *cpu, const struct layer *l) {
    const unsigned known = 1u << LAYOUT_PLAIN | 1u << LAYOUT_NHWC | 1u << LAYOUT_nChw16c;
    const struct vtype *a = &l->in_type[0], *b = &l->out_type[0];

    (void)cpu;
    if (!(known & 1u << a->layout) || !(known & 1u << b->layout) || !element_size(a->dtype) ||
        !element_size(b->dtype))
        return false;
    if (a->dtype == b->dtype && a->quant.scale == b->quant.scale && a->quant.zero == b->quant.zero)
        return true;
    return (a->dtype == DT_F32 || a->quant.scale > 0) && (b->dtype == DT_F32 || b->quant.scale > 0);
}

static bool changes_type(const struct kernel_state *s) {
    return s->from.dtype != s->to.dtype || s->from.quant.scale != s->to.quant.scale ||
           s->from.quant.zero != s->to.quant.zero;
}

static int convert_prepare(const struct layer *l, struct pack_cache *packs, struct kernel_state **ret,
    size_t *ret_scratch, struct error *err) {
    const struct shape *sh = &l->in[0]->shape;
    struct kernel_state *s = calloc(1, sizeof(*s));
    int64_t total = 1;

    (void)packs;
    if (!s)
        return error_oom(err);
    *s = (struct kernel_state){.from = l->in_type[0], .to = l->out_type[0], .n = 1, .c = 1, .hw = 1};
    for (int i = 0; i < sh->rank; i++) {
        total *= sh->dim[i];
        if (i == 0)
            s->n = sh->dim[0];
        else if (i == 1)
            s->c = sh->dim[1];
        else
            s->hw *= sh->dim[i];
    }
    if (s->from.layout == s->to.layout && s->from.layout != LAYOUT_nChw16c) {
        s->n = 1;
        s->c = 1;
        s->hw = total;
    }
    s->size = element_size(s->from.dtype);
    if (changes_type(s)) {
        /* [decoded floats, plain order of the source][the same in the target's order] */
        size_t floats = ((size_t)(s->n * ((s->c + 15) / 16 * 16) * s->hw) * sizeof(float) + 63) / 64 * 64;

        s->scratch_at = floats;
        *ret_scratch = 2 * floats;
        s->size = sizeof(float);
    }
    *ret = s;
    return 0;
}

/* Element (n, c, p) in layout l, of images n, channels c_all, pixels hw. */
static int64_t index_of(const struct kernel_state *s, enum layout l, int64_t n, int64_t c, int64_t p) {
    if (l == LAYOUT_NHWC)
        return (n * s->hw + p) * s->c + c;
    if (l == LAYOUT_nChw16c)
        return ((n * ((s->c + 15) / 16) + c / 16) * s->hw + p) * 16 + c % 16;
    return (n * s->c + c) * s->hw + p;
}

#define DEFINE_RELAYOUT(type)                                                                                \
    static void relayout_##type(const struct kernel_state *s, const type *x, type *y) {                      \
        const int64_t cx = index_of(s, s->from.layout, 0, 1, 0), px = index_of(s, s->from.layout, 0, 0, 1);  \
        const int64_t cy = index_of(s, s->to.layout, 0, 1, 0), py = index_of(s, s->to.layout, 0, 0, 1);      \
        for (int64_t n = 0; n < s->n; n++) {                                                                 \
            for (int64_t c0 = 0; c0 < s->c; c0 += 16) {                                                      \
                const int64_t nc = s->c - c0 < 16 ? s->c - c0 : 16;                                          \
                const type *xb = x + index_of(s, s->from.layout, n, c0, 0);                                  \
                type *yb = y + index_of(s, s->to.layout, n, c0, 0);                                          \
                for (int64_t p = 0; p < s->hw; p++) {                                                        \
                    for (int64_t c = 0; c < nc; c++)                                                         \
                        yb[p * py + c * cy] = xb[p * px + c * cx];                                           \
                }                                                                                            \
            }                                                                                                \
        }                                                                                                    \
    }
DEFINE_RELAYOUT(uint8_t)
DEFINE_RELAYOUT(uint16_t)
DEFINE_RELAYOUT(uint32_t)
DEFINE_RELAYOUT(uint64_t)

/* A picture of few channels: c streams become one, 1.5 to 3 times faster than in blocks. */
KERNEL_INLINE void interleave(const struct kernel_state *s, const float *x, float *y, const int64_t c) {
    for (int64_t n = 0; n < s->n; n++) {
        const float *xn = x + n * c * s->hw;
        float *yn = y + n * c * s->hw;

        for (int64_t p = 0; p < s->hw; p++) {
            for (int64_t k = 0; k < c; k++)
                yn[p * c + k] = xn[k * s->hw + p];
        }
    }
}

static bool interleave_few(const struct kernel_state *s, const void *x, void *y) {
    if (s->size != sizeof(float) || s->from.layout != LAYOUT_PLAIN || s->to.layout != LAYOUT_NHWC || s->c > 4)
        return false;
    if (s->c == 2)
        interleave(s, x, y, 2);
    else if (s->c == 3)
        interleave(s, x, y, 3);
    else
        interleave(s, x, y, s->c);
    return true;
}

static void relayout(const struct kernel_state *s, const void *x, void *y) {
    if (interleave_few(s, x, y))
        return;
    if (s->to.layout == LAYOUT_nChw16c && s->c % 16)
        memset(y, 0, (size_t)(s->n * ((s->c + 15) / 16 * 16) * s->hw) * s->size);
    if (s->size == 1)
        relayout_uint8_t(s, x, y);
    else if (s->size == 2)
        relayout_uint16_t(s, x, y);
    else if (s->size == 4)
        relayout_uint32_t(s, x, y);
    else
        relayout_uint64_t(s, x, y);
}

static int64_t n_stored(const struct kernel_state *s, enum layout l) {
    int64_t c = l == LAYOUT_nChw16c ? (s->c + 15) / 16 * 16 : s->c;

    return s->n * c * s->hw;
}

static void convert_run(const struct kernel_state *s, const struct run_io *io) {
    bool moves = s->from.layout != s->to.layout;
    const void *x = io->in[0];
    char *scratch = io->scratch;

    if (!changes_type(s)) {
        relayout(s, x, io->out[0]);
        return;
    }
    if (s->from.dtype != DT_F32) {
        quant_decode(x, s->from.dtype, s->from.quant, n_stored(s, s->from.layout), (float *)(void *)scratch);
        x = scratch;
    }
    if (moves) {
        void *y = s->to.dtype == DT_F32 ? io->out[0] : scratch + s->scratch_at;

        relayout(s, x, y);
        x = y;
    }
    if (s->to.dtype != DT_F32)
        quant_encode(x, n_stored(s, s->to.layout), s->to.quant, s->to.dtype, io->out[0]);
    else if (x != io->out[0])
        memcpy(io->out[0], x, (size_t)n_stored(s, s->to.layout) * sizeof(float));
}

static struct kernel_state *convert_done(struct kernel_state *s) {
    free(s);
    return NULL;
}

const struct kernel kernel_convert_any = {
    .name = "convert",
    .fits = convert_fits,
    .prepare = convert_prepare,
    .run = convert_run,
    .done = convert_done,
};
