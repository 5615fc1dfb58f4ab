/* Eight channels a vector, the words of a pixel broadcast from memory: of the two ports that take 512 bits an
 * operation each, three words cost 8 operations in place of 9. */
#include "engine/kernel/xnor_tile.h"

#if KERNEL_HAS_X86
#include <immintrin.h>

#define ISA        __attribute__((target("avx2,fma,avx512f,avx512bw,avx512dq,avx512vl,avx512vpopcntdq")))
#define ISA_INLINE ISA static inline __attribute__((always_inline))

#define CARRY 0xd4 /* of a, b and their sum with a third: a, b and a ^ b ^ sum have two bits or more */

ISA_INLINE __m512i word(const uint64_t *x) {
    return _mm512_set1_epi64((int64_t)*x);
}

ISA_INLINE void store_floats(const struct xnor_job *j, int64_t at, int64_t c0, __mmask8 mask, __m256i sum) {
    const struct xnor_output *o = &j->out;
    __m256 v = _mm256_mul_ps(_mm256_cvtepi32_ps(sum), _mm256_loadu_ps(o->scale + c0));

    v = _mm256_add_ps(v, _mm256_loadu_ps(o->bias + c0));
    v = _mm256_min_ps(_mm256_max_ps(v, _mm256_set1_ps(o->low)), _mm256_set1_ps(o->high));
    if (o->has_residual) {
        v = _mm256_add_ps(v, _mm256_maskz_loadu_ps(mask, j->residual + at + c0));
        v = _mm256_min_ps(_mm256_max_ps(v, _mm256_set1_ps(o->low2)), _mm256_set1_ps(o->high2));
    }
    _mm256_mask_storeu_ps((float *)j->y + at + c0, mask, v);
}

ISA_INLINE void store(const struct xnor_job *j, const struct xnor_tile *t, int i, __m512i count) {
    const struct xnor_output *o = &j->out;
    int64_t class = xnor_class(j, t, i), c0 = t->block * XNOR_BLOCK, place = xnor_place(j, t, i);
    int64_t left = j->n_channels - c0;
    __mmask8 mask = (__mmask8)(left >= XNOR_BLOCK ? 0xffu : (1u << left) - 1);
    __m256i fix = _mm256_cvtepi16_epi32(
        _mm_loadu_si128((const __m128i *)(const void *)(j->border.fix + class * j->padded + c0)));
    __m256i sum = _mm256_sub_epi32(_mm512_cvtepi64_epi32(count), fix);

    sum = _mm256_sub_epi32(_mm256_set1_epi32(j->border.taken[class]), _mm256_add_epi32(sum, sum));
    if (o->is_bits) {
        __m256i flip = _mm256_loadu_si256((const __m256i *)(const void *)(o->flip + c0));
        __m256i limit = _mm256_loadu_si256((const __m256i *)(const void *)(o->limit + c0));

        sum = _mm256_sub_epi32(_mm256_xor_si256(sum, flip), flip);
        ((uint8_t *)j->y)[place + t->block] = (uint8_t)_mm256_mask_cmpge_epi32_mask(mask, sum, limit);
        return;
    }
    store_floats(j, place / (int64_t)sizeof(float), c0, mask, sum);
}

ISA_INLINE void tile(const struct xnor_job *j, const struct xnor_tile *t, const int n) {
    __m512i ones[XNOR_TILE], twos[XNOR_TILE];
    const uint64_t *w = t->w;

    for (int i = 0; i < n; i++)
        ones[i] = twos[i] = _mm512_setzero_si512();
    for (int s = 0; s < j->n_seg; s++) {
        const uint64_t *x = t->x + j->seg[s];
        int k = 0;

        for (; k + 3 <= j->seg_len; k += 3, x += 3, w += 3 * XNOR_BLOCK) {
            __m512i w0 = _mm512_loadu_si512(w), w1 = _mm512_loadu_si512(w + XNOR_BLOCK);
            __m512i w2 = _mm512_loadu_si512(w + 2 * XNOR_BLOCK);

            for (int i = 0; i < n; i++) {
                const uint64_t *p = x + i * j->pixel;
                __m512i a = _mm512_xor_si512(w0, word(p)), b = _mm512_xor_si512(w1, word(p + 1));
                __m512i sum = _mm512_xor_si512(w2, word(p + j->sums));
                __m512i carry = _mm512_ternarylogic_epi64(a, b, sum, CARRY);

                ones[i] = _mm512_add_epi64(ones[i], _mm512_popcnt_epi64(sum));
                twos[i] = _mm512_add_epi64(twos[i], _mm512_popcnt_epi64(carry));
            }
        }
        for (; k < j->seg_len; k++, x++, w += XNOR_BLOCK) {
            __m512i w0 = _mm512_loadu_si512(w);

            for (int i = 0; i < n; i++)
                ones[i] = _mm512_add_epi64(
                    ones[i], _mm512_popcnt_epi64(_mm512_xor_si512(w0, word(x + i * j->pixel))));
        }
    }
    for (int i = 0; i < n; i++)
        store(j, t, i, _mm512_add_epi64(ones[i], _mm512_add_epi64(twos[i], twos[i])));
}

ISA static void run_tile(const struct xnor_job *j, const struct xnor_tile *t, int n) {
    switch (n) { /* so that counts stay in registers */
    case 1: tile(j, t, 1); break;
    case 2: tile(j, t, 2); break;
    case 3: tile(j, t, 3); break;
    case 4: tile(j, t, 4); break;
    case 5: tile(j, t, 5); break;
    case 6: tile(j, t, 6); break;
    case 7: tile(j, t, 7); break;
    default: tile(j, t, 8); break;
    }
}

ISA static void xnor_run(const struct xnor_job *j) {
    xnor_walk(j, run_tile);
}

ISA static void add_triples(const uint64_t *x, uint64_t *sums, int64_t n) {
    for (int64_t i = 0; i < n; i += 8) {
        __mmask8 mask = (__mmask8)(n - i >= 8 ? 0xffu : (1u << (n - i)) - 1);
        __m512i v = _mm512_ternarylogic_epi64(_mm512_maskz_loadu_epi64(mask, x + i),
            _mm512_maskz_loadu_epi64(mask, x + i + 1), _mm512_maskz_loadu_epi64(mask, x + i + 2), 0x96);

        _mm512_mask_storeu_epi64(sums + i, mask, v);
    }
}

static bool has(const struct cpu *cpu) {
    return cpu->avx512 && cpu->avx512_vpopcntdq;
}

const struct xnor_isa xnor_isa_avx512vpopcntdq = {.has = has, .run = xnor_run, .add_triples = add_triples};
#else
static bool has(const struct cpu *cpu) {
    (void)cpu;
    return false;
}

const struct xnor_isa xnor_isa_avx512vpopcntdq = {.has = has};
#endif
