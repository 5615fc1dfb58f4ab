/* Bytes through a table of 256: the engine's operator Lookup. With VBMI the table lies in four registers. */
#include <immintrin.h>
#include <stdlib.h>
#include <string.h>

#include "engine/kernel/rows.h"
#include "engine/lookup.h"

struct kernel_state {
    uint8_t table[256];
    int64_t n;
    void (*run)(const uint8_t *table, const uint8_t *x, uint8_t *y, int64_t n);
};

static void lookup_plain(const uint8_t *table, const uint8_t *x, uint8_t *y, int64_t n) {
    for (int64_t i = 0; i < n; i++)
        y[i] = table[x[i]];
}

__attribute__((target("avx512f,avx512bw,avx512vl,avx512vbmi"))) static void lookup_avx512vbmi(
    const uint8_t *table, const uint8_t *x, uint8_t *y, int64_t n) {
    const __m512i t0 = _mm512_loadu_si512(table), t1 = _mm512_loadu_si512(table + 64);
    const __m512i t2 = _mm512_loadu_si512(table + 128), t3 = _mm512_loadu_si512(table + 192);

    for (int64_t i = 0; i < n; i += 64) {
        __mmask64 mask = n - i >= 64 ? ~(__mmask64)0 : ((__mmask64)1 << (n - i)) - 1;
        __m512i v = _mm512_maskz_loadu_epi8(mask, x + i);
        __m512i low = _mm512_permutex2var_epi8(t0, v, t1), high = _mm512_permutex2var_epi8(t2, v, t3);

        _mm512_mask_storeu_epi8(y + i, mask, _mm512_mask_blend_epi8(_mm512_movepi8_mask(v), low, high));
    }
}

static bool lookup_fits(const struct cpu *cpu, const struct layer *l) {
    (void)cpu;
    return l->node->op == &op_lookup && l->in_type[0].layout == l->out_type[0].layout;
}

static int lookup_prepare(const struct layer *l, struct pack_cache *packs, struct kernel_state **ret,
    size_t *ret_scratch, struct error *err) {
    const struct lookup_param *p = l->node->param;
    struct kernel_state *s = calloc(1, sizeof(*s));

    (void)packs;
    (void)ret_scratch;
    if (!s)
        return error_oom(err);
    memcpy(s->table, p->table, sizeof(s->table));
    (void)shape_count(&l->out[0].shape, &s->n);
    s->run = l->cpu->avx512_vbmi ? lookup_avx512vbmi : lookup_plain;
    *ret = s;
    return 0;
}

static void lookup_run(const struct kernel_state *s, const struct run_io *io) {
    s->run(s->table, io->in[0], io->out[0], s->n);
}

static struct kernel_state *lookup_done(struct kernel_state *s) {
    free(s);
    return NULL;
}

static const char *const lookup_ops[] = {"Lookup", NULL};

const struct kernel kernel_lookup_s8 = {
    .name = "lookup_s8",
    .op_types = lookup_ops,
    .fits = lookup_fits,
    .layouts = {.in = 1u << LAYOUT_PLAIN | 1u << LAYOUT_NHWC, .out = 1u << LAYOUT_PLAIN | 1u << LAYOUT_NHWC},
    .can_run_in_place = true,
    .prepare = lookup_prepare,
    .run = lookup_run,
    .done = lookup_done,
};
