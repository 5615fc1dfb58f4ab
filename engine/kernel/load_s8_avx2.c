/* Loaders of AVX2. */
#include "engine/kernel/load_s8_avx2.h"

INLINE void expand(const uint8_t *codes, const int8_t *table, size_t n_groups, uint8_t *to, const int bits) {
    for (size_t g = 0; g < n_groups; g++, codes += bits * UNIT, to += 2 * UNIT * S8_GROUP) {
#pragma GCC unroll 8
        for (int u = 0; u < S8_GROUP; u++) {
            __m256i w[2];

            unit_of(codes, table, bits, u, w);
            _mm256_storeu_si256((__m256i *)(void *)(to + 2 * UNIT * u), w[0]);
            _mm256_storeu_si256((__m256i *)(void *)(to + 2 * UNIT * u + UNIT), w[1]);
        }
    }
}

static bool avx2_has(const struct cpu *cpu) {
    return cpu->avx2;
}

#define EXPAND(n)                                                                                            \
    TARGET static void expand_##n(const uint8_t *codes, const int8_t *table, size_t n_groups, uint8_t *to) { \
        expand(codes, table, n_groups, to, n);                                                               \
    }
#define LOADER(n)                                                                                            \
    EXPAND(n)                                                                                                \
    static const struct s8_loader loader_##n = {.bits = n, .has = avx2_has, .expand = expand_##n}
#define LOADER_FEW(n)                                                                                        \
    EXPAND(n)                                                                                                \
    static const struct s8_loader loader_##n = {                                                             \
        .bits = n, .has = avx2_has, .expand = expand_##n, .run_few = s8_few_avx2_##n, .max_few = MAX_PIXELS}

LOADER_FEW(1);
LOADER_FEW(2);
LOADER(3);
LOADER_FEW(4);
LOADER(5);
LOADER(6);
LOADER(7);

const struct s8_loader *const s8_loaders_avx2[] = {
    &loader_1, &loader_2, &loader_3, &loader_4, &loader_5, &loader_6, &loader_7, NULL};
