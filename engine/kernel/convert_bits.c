/* Conversions between floats that are all +1 or -1 and LAYOUT_BITS. */
#include <stdlib.h>

#include "engine/kernel/bits.h"
#include "engine/kernel/rows.h"

struct kernel_state {
    bits_pack_fn *pack;
    enum layout from, to;
    int64_t n, c, pixels;
    uint32_t *flip;
    float limit[]; /* zeros, as flip behind them */
};

static bool convert_fits(const struct cpu *cpu, const struct layer *l) {
    const struct vtype *a = &l->in_type[0], *b = &l->out_type[0];

    (void)cpu;
    return a->dtype == DT_F32 && b->dtype == DT_F32 && a->quant.scale <= 0 && b->quant.scale <= 0 &&
           l->in[0]->shape.rank >= 3 && (a->layout == LAYOUT_BITS) != (b->layout == LAYOUT_BITS);
}

static int convert_prepare(const struct layer *l, struct pack_cache *packs, struct kernel_state **ret,
    size_t *ret_scratch, struct error *err) {
    const struct shape *x = &l->in[0]->shape;
    size_t padded = (size_t)(x->dim[1] + 15) / 16 * 16;
    struct kernel_state *s = calloc(1, sizeof(*s) + padded * (sizeof(float) + sizeof(uint32_t)));

    (void)packs;
    (void)ret_scratch;
    if (!s)
        return error_oom(err);
    s->flip = (uint32_t *)(void *)(s->limit + padded);
    s->pack = bits_pack_for(l->cpu);
    s->from = l->in_type[0].layout;
    s->to = l->out_type[0].layout;
    s->n = x->dim[0];
    s->c = x->dim[1];
    s->pixels = 1;
    for (int d = 2; d < x->rank; d++)
        s->pixels *= x->dim[d];
    *ret = s;
    return 0;
}

static void pack_plain(const struct kernel_state *s, const float *x, uint64_t *y) {
    for (int64_t p = 0; p < s->pixels; p++) {
        for (int64_t at = 0; at < s->c; at += 64) {
            uint64_t word = 0;

            for (int64_t c = at; c < s->c && c < at + 64; c++)
                word |= (uint64_t)(x[c * s->pixels + p] >= 0) << (c - at);
            *y++ = word;
        }
    }
}

static void unpack(const struct kernel_state *s, const uint64_t *x, float *y) {
    int64_t words = bits_words(s->c), pixel = 1, channel = s->pixels, run = 16 * s->pixels;

    if (s->to != LAYOUT_PLAIN) {
        pixel = s->to == LAYOUT_NHWC ? s->c : 16;
        channel = 1;
        run = s->to == LAYOUT_NHWC ? 16 : 16 * s->pixels;
    }
    for (int64_t p = 0; p < s->pixels; p++, x += words) {
        for (int64_t c = 0; c < s->c; c++)
            y[p * pixel + c / 16 * run + c % 16 * channel] = x[c / 64] >> c % 64 & 1 ? 1.0f : -1.0f;
        for (int64_t c = s->c; s->to == LAYOUT_nChw16c && c % 16; c++)
            y[p * pixel + c / 16 * run + c % 16] = 0;
    }
}

static void convert_run(const struct kernel_state *s, const struct run_io *io) {
    int64_t words = bits_words(s->c) * s->pixels;

    for (int64_t n = 0; n < s->n; n++) {
        if (s->from == LAYOUT_BITS) {
            int64_t c = s->to == LAYOUT_nChw16c ? (s->c + 15) / 16 * 16 : s->c;

            unpack(s, (const uint64_t *)io->in[0] + n * words, (float *)io->out[0] + n * c * s->pixels);
        } else if (s->from == LAYOUT_PLAIN) {
            pack_plain(
                s, (const float *)io->in[0] + n * s->c * s->pixels, (uint64_t *)io->out[0] + n * words);
        } else {
            struct bits_source from = bits_source_of(io->in[0], s->from, n, s->c, s->pixels);

            s->pack(&from, s->pixels, s->c, s->flip, s->limit, (uint64_t *)io->out[0] + n * words);
        }
    }
}

static struct kernel_state *convert_done(struct kernel_state *s) {
    free(s);
    return NULL;
}

const struct kernel kernel_convert_bits = {
    .name = "convert_bits",
    .fits = convert_fits,
    .prepare = convert_prepare,
    .run = convert_run,
    .done = convert_done,
};
