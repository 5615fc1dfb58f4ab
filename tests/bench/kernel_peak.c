/* What one core can do at most, by loops that do nothing else: the best of many short bursts. */
#include <immintrin.h>
#include <string.h>

#include "base/clock.h"
#include "engine/hugemem.h"
#include "tests/bench/kernel_bench.h"

#define ACCUMULATORS 12
#define LOOPS        20000
#define BURSTS       60
#define READS        8
#define STREAM_BYTES ((size_t)128 << 20) /* beyond any cache of one core's share */

const char *const peak_names[N_PEAKS] = {"FMA", "VNNI", "popcount", "bandwidth"};

/* Keeps the loops: their results are looked at. */
static volatile float sink;

__attribute__((target("avx512f"))) static double fma_512(void) {
    __m512 a[ACCUMULATORS], x = _mm512_set1_ps(0.999f), y = _mm512_set1_ps(0.001f);

    for (int k = 0; k < ACCUMULATORS; k++)
        a[k] = _mm512_set1_ps((float)k);
    for (int i = 0; i < LOOPS; i++)
#pragma GCC unroll 12
        for (int k = 0; k < ACCUMULATORS; k++)
            a[k] = _mm512_fmadd_ps(a[k], x, y);
    for (int k = 1; k < ACCUMULATORS; k++)
        a[0] = _mm512_add_ps(a[0], a[k]);
    sink = _mm512_reduce_add_ps(a[0]);
    return 2.0 * 16 * ACCUMULATORS * LOOPS;
}

__attribute__((target("avx2,fma"))) static double fma_256(void) {
    __m256 a[ACCUMULATORS], x = _mm256_set1_ps(0.999f), y = _mm256_set1_ps(0.001f);

    for (int k = 0; k < ACCUMULATORS; k++)
        a[k] = _mm256_set1_ps((float)k);
    for (int i = 0; i < LOOPS; i++)
#pragma GCC unroll 12
        for (int k = 0; k < ACCUMULATORS; k++)
            a[k] = _mm256_fmadd_ps(a[k], x, y);
    for (int k = 1; k < ACCUMULATORS; k++)
        a[0] = _mm256_add_ps(a[0], a[k]);
    sink = _mm256_cvtss_f32(a[0]);
    return 2.0 * 8 * ACCUMULATORS * LOOPS;
}

/* By hand: gcc 12 copies the operands of the intrinsic around. Contents do not matter. */
__attribute__((target("avx512f,avx512vnni"))) static double vnni_512(void) {
    long n = LOOPS;

    __asm__ volatile("1:\n\t"
                     "vpdpbusd %%zmm13, %%zmm12, %%zmm0\n\t"
                     "vpdpbusd %%zmm13, %%zmm12, %%zmm1\n\t"
                     "vpdpbusd %%zmm13, %%zmm12, %%zmm2\n\t"
                     "vpdpbusd %%zmm13, %%zmm12, %%zmm3\n\t"
                     "vpdpbusd %%zmm13, %%zmm12, %%zmm4\n\t"
                     "vpdpbusd %%zmm13, %%zmm12, %%zmm5\n\t"
                     "vpdpbusd %%zmm13, %%zmm12, %%zmm6\n\t"
                     "vpdpbusd %%zmm13, %%zmm12, %%zmm7\n\t"
                     "vpdpbusd %%zmm13, %%zmm12, %%zmm8\n\t"
                     "vpdpbusd %%zmm13, %%zmm12, %%zmm9\n\t"
                     "vpdpbusd %%zmm13, %%zmm12, %%zmm10\n\t"
                     "vpdpbusd %%zmm13, %%zmm12, %%zmm11\n\t"
                     "dec %0\n\t"
                     "jnz 1b"
                     : "+r"(n)
                     :
                     : "cc", "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", "xmm9",
                     "xmm10", "xmm11", "xmm12", "xmm13");
    return 2.0 * 64 * ACCUMULATORS * LOOPS;
}

/* A multiply-add of signs is an exclusive or and a count: 512 of them, two operations each. */
__attribute__((target("avx512f,avx512vpopcntdq"))) static double popcount_512(void) {
    __m512i a[ACCUMULATORS], x = _mm512_set1_epi64(0x5555555500ff00ff);

    for (int k = 0; k < ACCUMULATORS; k++)
        a[k] = _mm512_set1_epi64(k);
    for (int i = 0; i < LOOPS; i++) {
        x = _mm512_xor_si512(x, a[0]);
#pragma GCC unroll 12
        for (int k = 0; k < ACCUMULATORS; k++)
            a[k] = _mm512_add_epi64(a[k], _mm512_popcnt_epi64(_mm512_xor_si512(x, a[k])));
    }
    for (int k = 1; k < ACCUMULATORS; k++)
        a[0] = _mm512_add_epi64(a[0], a[k]);
    sink = (float)_mm512_reduce_add_epi64(a[0]);
    return 2.0 * 512 * ACCUMULATORS * LOOPS;
}

static double best_rate(double (*loop)(void)) {
    double best = 0;

    for (int i = 0; i < BURSTS; i++) {
        double begin = clock_now_us(), n = loop(), rate = n / (clock_now_us() - begin);

        best = rate > best ? rate : best;
    }
    return best;
}

/* Sums of eight streams: one alone does not keep enough lines under way. */
__attribute__((target("avx2"))) static void read_all(const uint8_t *p, size_t size) {
    size_t part = size / 8 / 64 * 64;
    __m256i sum = _mm256_setzero_si256();

    for (size_t at = 0; at < part; at += 64)
        for (size_t k = 0; k < 8; k++) {
            const __m256i *v = (const __m256i *)(const void *)(p + k * part + at);

            sum = _mm256_add_epi64(sum, _mm256_add_epi64(_mm256_load_si256(v), _mm256_load_si256(v + 1)));
        }
    sink = (float)_mm256_extract_epi32(sum, 0);
}

double peak_bandwidth(size_t size) {
    uint8_t *p = hugemem_new(size);
    double best = 0;

    if (p)
        memset(p, 1, size); /* pages never written to are all one page of zeros */
    for (int i = 0; p && i < READS; i++) {
        double begin = clock_now_us(), rate;

        read_all(p, size);
        rate = (double)size / (clock_now_us() - begin);
        best = rate > best ? rate : best;
    }
    hugemem_free(p, size);
    return best;
}

void peak_measure(const struct cpu *cpu, double ret[static N_PEAKS]) {
    ret[PEAK_FMA] = cpu->avx512 ? best_rate(fma_512) : cpu->fma ? best_rate(fma_256) : 0;
    ret[PEAK_VNNI] = cpu->avx512_vnni ? best_rate(vnni_512) : 0;
    ret[PEAK_POPCOUNT] = cpu->avx512_vpopcntdq ? best_rate(popcount_512) : 0;
    ret[PEAK_BANDWIDTH] = cpu->avx2 ? peak_bandwidth(STREAM_BYTES) : 0;
}
