/* Sixteen channels in two vectors, the words of a pixel broadcast from memory. Of the two ports that take 512
 * bits an operation each, two words cost five; of these one counts bits, which only one port can. */
#include "engine/kernel/xnor_tile.h"

#if KERNEL_HAS_X86
#include <immintrin.h>

#define ISA        __attribute__((target("avx2,fma,avx512f,avx512bw,avx512dq,avx512vl,avx512vpopcntdq")))
#define ISA_INLINE ISA static inline __attribute__((always_inline))

#define HALF  (XNOR_BLOCK / 2)
#define SUM   0x96 /* a ^ b ^ c */
#define FALLS 0x74 /* of ones, p and q: p ? ~q : ones */

ISA_INLINE __m512i word(const uint64_t *x) {
    return _mm512_set1_epi64((int64_t)*x);
}

struct counts {
    __m512i ones, twos;
};

ISA_INLINE void add_pair(struct counts *c, const uint64_t *x0, __m512i w0, const uint64_t *x1, __m512i w1) {
    __m512i p = _mm512_ternarylogic_epi64(word(x0), w0, c->ones, SUM);
    __m512i q = _mm512_ternarylogic_epi64(word(x1), w1, p, SUM);

    c->twos = _mm512_add_epi64(c->twos, _mm512_popcnt_epi64(_mm512_ternarylogic_epi64(c->ones, p, q, FALLS)));
    c->ones = q;
}

ISA_INLINE void add_one(struct counts *c, const uint64_t *x, __m512i w) {
    __m512i p = _mm512_ternarylogic_epi64(word(x), w, c->ones, SUM);

    c->twos = _mm512_add_epi64(c->twos, _mm512_popcnt_epi64(_mm512_andnot_si512(p, c->ones)));
    c->ones = p;
}

ISA_INLINE void store_floats(const struct xnor_job *j, int64_t at, int64_t c0, __mmask16 mask, __m512i sum) {
    const struct xnor_output *o = &j->out;
    __m512 v = _mm512_mul_ps(_mm512_cvtepi32_ps(sum), _mm512_loadu_ps(o->scale + c0));

    v = _mm512_add_ps(v, _mm512_loadu_ps(o->bias + c0));
    v = _mm512_min_ps(_mm512_max_ps(v, _mm512_set1_ps(o->low)), _mm512_set1_ps(o->high));
    if (o->has_residual) {
        v = _mm512_add_ps(v, _mm512_maskz_loadu_ps(mask, j->residual + at));
        v = _mm512_min_ps(_mm512_max_ps(v, _mm512_set1_ps(o->low2)), _mm512_set1_ps(o->high2));
    }
    _mm512_mask_storeu_ps((float *)j->y + at, mask, v);
}

/* Even channels' counts and odd ones', side by side. */
ISA_INLINE __m512i join(__m512i even, __m512i odd) {
    return _mm512_or_si512(even, _mm512_slli_epi64(odd, 32));
}

ISA_INLINE void store(const struct xnor_job *j, const struct xnor_tile *t, int i, const struct counts c[2]) {
    const struct xnor_output *o = &j->out;
    int64_t c0 = t->block * XNOR_BLOCK, place = (t->pixel + i) * j->y_pixel, left = j->n_channels - c0;
    __mmask16 mask = (__mmask16)(left >= XNOR_BLOCK ? 0xffffu : (1u << left) - 1);
    __m512i ones = join(_mm512_popcnt_epi64(c[0].ones), _mm512_popcnt_epi64(c[1].ones));
    __m512i twos = join(c[0].twos, c[1].twos);
    __m512i count = _mm512_add_epi32(ones, _mm512_add_epi32(twos, twos));
    __m512i sum = _mm512_sub_epi32(_mm512_set1_epi32(t->window->products), _mm512_add_epi32(count, count));

    if (o->is_bits) {
        __m512i flip = _mm512_loadu_si512(o->flip + c0), limit = _mm512_loadu_si512(o->limit + c0);
        uint16_t *to = (uint16_t *)(void *)((char *)j->y + place) + t->block;

        sum = _mm512_sub_epi32(_mm512_xor_si512(sum, flip), flip);
        *to = (uint16_t)_mm512_mask_cmpge_epi32_mask(mask, sum, limit);
        return;
    }
    store_floats(j, place / (int64_t)sizeof(float) + c0, c0, mask, sum);
}

ISA_INLINE void tile(const struct xnor_job *j, const struct xnor_tile *t, const int n) {
    const struct xnor_word *k = t->window->word, *end = k + t->window->n_words / 2 * 2;
    struct counts c[XNOR_TILE][2];
    int64_t pixel = j->pixel;

    for (int i = 0; i < n; i++)
        for (int h = 0; h < 2; h++)
            c[i][h].ones = c[i][h].twos = _mm512_setzero_si512();
    for (; k < end; k += 2) {
        const uint64_t *x0 = t->x + k[0].x, *x1 = t->x + k[1].x;
        const uint64_t *w0 = t->w + k[0].w, *w1 = t->w + k[1].w;

        for (int h = 0; h < 2; h++) {
            __m512i v0 = _mm512_loadu_si512(w0 + h * HALF), v1 = _mm512_loadu_si512(w1 + h * HALF);

            for (int i = 0; i < n; i++)
                add_pair(&c[i][h], x0 + i * pixel, v0, x1 + i * pixel, v1);
        }
    }
    if (t->window->n_words % 2)
        for (int h = 0; h < 2; h++)
            for (int i = 0; i < n; i++)
                add_one(&c[i][h], t->x + k->x + i * pixel, _mm512_loadu_si512(t->w + k->w + h * HALF));
    for (int i = 0; i < n; i++)
        store(j, t, i, c[i]);
}

ISA static void run_tile(const struct xnor_job *j, const struct xnor_tile *t, int n) {
    switch (n) { /* so that counts stay in registers */
    case 1: tile(j, t, 1); break;
    case 2: tile(j, t, 2); break;
    case 3: tile(j, t, 3); break;
    case 4: tile(j, t, 4); break;
    default: tile(j, t, 5); break;
    }
}

ISA static void xnor_run(const struct xnor_job *j) {
    xnor_walk(j, run_tile);
}

static bool has(const struct cpu *cpu) {
    return cpu->avx512 && cpu->avx512_vpopcntdq;
}

const struct xnor_isa xnor_isa_avx512vpopcntdq = {.has = has, .run = xnor_run};
#else
static bool has(const struct cpu *cpu) {
    (void)cpu;
    return false;
}

const struct xnor_isa xnor_isa_avx512vpopcntdq = {.has = has};
#endif
