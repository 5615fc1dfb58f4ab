/* Four channels a vector. Bytes are counted by two table look-ups of four bits each, and summed over up to 31
 * vectors before they could overflow; the full adder of xnor.h saves a third of the look-ups. */
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

ISA_INLINE __m256i carry(__m256i a, __m256i b, __m256i sum) {
    __m256i t = _mm256_xor_si256(a, b);

    return _mm256_or_si256(_mm256_andnot_si256(t, a), _mm256_andnot_si256(sum, t));
}

struct counts {
    __m256i ones[TILE], twos[TILE]; /* bytes */
    __m256i total[TILE];            /* words */
    int n;                          /* added to bytes since they were empty */
};

ISA_INLINE void flush(struct counts *c, const int n) {
    const __m256i zero = _mm256_setzero_si256();

    for (int i = 0; i < n; i++) {
        __m256i twos = _mm256_sad_epu8(c->twos[i], zero);

        c->total[i] = _mm256_add_epi64(c->total[i], _mm256_sad_epu8(c->ones[i], zero));
        c->total[i] = _mm256_add_epi64(c->total[i], _mm256_add_epi64(twos, twos));
        c->ones[i] = c->twos[i] = zero;
    }
    c->n = 0;
}

/* Four channels (w) of n pixels. */
ISA_INLINE void count(const struct xnor_job *j, const uint64_t *x0, const uint64_t *w, const int n,
    int32_t (*ret)[XNOR_BLOCK], int half) {
    struct counts c = {0};

    for (int s = 0; s < j->n_seg; s++) {
        const uint64_t *x = x0 + j->seg[s];
        int k = 0;

        for (; k + 3 <= j->seg_len; k += 3, x += 3, w += 3 * XNOR_BLOCK) {
            __m256i w0 = load(w), w1 = load(w + XNOR_BLOCK), w2 = load(w + 2 * XNOR_BLOCK);

            for (int i = 0; i < n; i++) {
                const uint64_t *p = x + i * j->pixel;
                __m256i a = _mm256_xor_si256(w0, word(p)), b = _mm256_xor_si256(w1, word(p + 1));
                __m256i sum = _mm256_xor_si256(w2, word(p + j->sums));

                c.ones[i] = _mm256_add_epi8(c.ones[i], count_bytes(sum));
                c.twos[i] = _mm256_add_epi8(c.twos[i], count_bytes(carry(a, b, sum)));
            }
            if (++c.n == BYTE_SUMS)
                flush(&c, n);
        }
        for (; k < j->seg_len; k++, x++, w += XNOR_BLOCK) {
            for (int i = 0; i < n; i++)
                c.ones[i] = _mm256_add_epi8(
                    c.ones[i], count_bytes(_mm256_xor_si256(load(w), word(x + i * j->pixel))));
            if (++c.n == BYTE_SUMS)
                flush(&c, n);
        }
    }
    flush(&c, n);
    for (int i = 0; i < n; i++) {
        uint64_t total[4];

        _mm256_storeu_si256((__m256i *)(void *)total, c.total[i]);
        for (int k = 0; k < 4; k++)
            ret[i][half + k] = (int32_t)total[k];
    }
}

KERNEL_AVX2 static void run_tile(const struct xnor_job *j, const struct xnor_tile *t, int n) {
    for (int first = 0; first < n; first += TILE) {
        const uint64_t *x = t->x + first * j->pixel;
        int32_t counts[TILE][XNOR_BLOCK];

        for (int half = 0; half < XNOR_BLOCK; half += 4) {
            if (n - first >= TILE)
                count(j, x, t->w + half, TILE, counts, half);
            else
                count(j, x, t->w + half, 1, counts, half);
        }
        for (int i = 0; i < TILE && first + i < n; i++)
            xnor_store(j, t, first + i, counts[i]);
    }
}

static void xnor_run(const struct xnor_job *j) {
    xnor_walk(j, run_tile);
}

KERNEL_AVX2 static void add_triples(const uint64_t *x, uint64_t *sums, int64_t n) {
    for (int64_t i = 0; i < n; i++)
        sums[i] = x[i] ^ x[i + 1] ^ x[i + 2];
}

static bool has(const struct cpu *cpu) {
    return cpu->avx2;
}

const struct xnor_isa xnor_isa_avx2 = {.has = has, .run = xnor_run, .add_triples = add_triples};
#else
static bool has(const struct cpu *cpu) {
    (void)cpu;
    return false;
}

const struct xnor_isa xnor_isa_avx2 = {.has = has};
#endif
