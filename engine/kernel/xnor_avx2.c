/* Four channels a vector. Bytes are counted by two table look-ups of four bits each, and summed over up to 31
 * vectors before they could overflow; the parities of xnor.h save half of the look-ups. */
#include "engine/kernel/xnor_tile.h"

#if KERNEL_HAS_X86
#include <immintrin.h>

#define ISA_INLINE KERNEL_AVX2 static inline __attribute__((always_inline))

#define BYTE_SUMS 31 /* counts of up to 8 that fit a byte */
#define TILE      2  /* pixels */

ISA_INLINE __m256i word(const uint64_t *x) {
    return _mm256_set1_epi64x((int64_t)*x);
}

ISA_INLINE __m256i load(const uint64_t *x) {
    return _mm256_loadu_si256((const __m256i *)(const void *)x);
}

/* Bits of each byte. */
ISA_INLINE __m256i count_bytes(__m256i v) {
    const __m256i table = _mm256_setr_epi8(
        0, 1, 1, 2, 1, 2, 2, 3, 1, 2, 2, 3, 2, 3, 3, 4, 0, 1, 1, 2, 1, 2, 2, 3, 1, 2, 2, 3, 2, 3, 3, 4);
    const __m256i low = _mm256_set1_epi8(15);

    return _mm256_add_epi8(_mm256_shuffle_epi8(table, _mm256_and_si256(v, low)),
        _mm256_shuffle_epi8(table, _mm256_and_si256(_mm256_srli_epi64(v, 4), low)));
}

struct counts {
    __m256i ones[TILE];  /* parities */
    __m256i falls[TILE]; /* bytes */
    __m256i total[TILE]; /* words */
};

ISA_INLINE void flush(struct counts *c, const int n) {
    const __m256i zero = _mm256_setzero_si256();

    for (int i = 0; i < n; i++) {
        c->total[i] = _mm256_add_epi64(c->total[i], _mm256_sad_epu8(c->falls[i], zero));
        c->falls[i] = zero;
    }
}

ISA_INLINE void add_pair(struct counts *c, int i, __m256i a, __m256i b) {
    __m256i p = _mm256_xor_si256(c->ones[i], a), q = _mm256_xor_si256(p, b);
    __m256i falls = _mm256_or_si256(_mm256_andnot_si256(q, p), _mm256_andnot_si256(p, c->ones[i]));

    c->falls[i] = _mm256_add_epi8(c->falls[i], count_bytes(falls));
    c->ones[i] = q;
}

ISA_INLINE void finish(struct counts *c, int i, int32_t *ret) {
    __m256i ones = _mm256_sad_epu8(count_bytes(c->ones[i]), _mm256_setzero_si256());
    uint64_t total[4];

    _mm256_storeu_si256(
        (__m256i *)(void *)total, _mm256_add_epi64(ones, _mm256_add_epi64(c->total[i], c->total[i])));
    for (int k = 0; k < 4; k++)
        ret[k] = (int32_t)total[k];
}

/* Four lanes (w) of n pixels. */
ISA_INLINE void count(const struct xnor_job *j, const struct xnor_window *v, const uint64_t *x,
    const uint64_t *w, const int n, int32_t (*ret)[XNOR_BLOCK], int lane) {
    struct counts c = {0};
    int k = 0;

    for (int n_added = 1; k + 2 <= v->n_words; k += 2, n_added++) {
        const uint64_t *x0 = x + v->word[k].x, *x1 = x + v->word[k + 1].x;
        __m256i w0 = load(w + v->word[k].w), w1 = load(w + v->word[k + 1].w);

        for (int i = 0; i < n; i++)
            add_pair(&c, i, _mm256_xor_si256(w0, word(x0 + i * j->pixel)),
                _mm256_xor_si256(w1, word(x1 + i * j->pixel)));
        if (n_added % BYTE_SUMS == 0)
            flush(&c, n);
    }
    flush(&c, n);
    if (k < v->n_words) {
        for (int i = 0; i < n; i++)
            add_pair(&c, i, _mm256_xor_si256(load(w + v->word[k].w), word(x + v->word[k].x + i * j->pixel)),
                _mm256_setzero_si256());
        flush(&c, n);
    }
    for (int i = 0; i < n; i++)
        finish(&c, i, ret[i] + lane);
}

KERNEL_AVX2 static void run_tile(const struct xnor_job *j, const struct xnor_tile *t, int n) {
    for (int first = 0; first < n; first += TILE) {
        const uint64_t *x = t->x + first * j->pixel;
        int32_t counts[TILE][XNOR_BLOCK];

        for (int lane = 0; lane < XNOR_BLOCK; lane += 4) {
            if (n - first >= TILE)
                count(j, t->window, x, t->w + lane, TILE, counts, lane);
            else
                count(j, t->window, x, t->w + lane, 1, counts, lane);
        }
        for (int i = 0; i < TILE && first + i < n; i++)
            xnor_store(j, t, first + i, counts[i]);
    }
}

static void xnor_run(const struct xnor_job *j) {
    xnor_walk(j, run_tile);
}

static bool has(const struct cpu *cpu) {
    return cpu->avx2;
}

const struct xnor_isa xnor_isa_avx2 = {.has = has, .run = xnor_run};
#else
static bool has(const struct cpu *cpu) {
    (void)cpu;
    return false;
}

const struct xnor_isa xnor_isa_avx2 = {.has = has};
#endif
