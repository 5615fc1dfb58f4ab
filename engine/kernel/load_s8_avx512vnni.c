/* Loaders of AVX-512. */
#include "engine/kernel/load_s8_avx512vnni.h"

INLINE void expand(const uint8_t *codes, const int8_t *table, size_t n_groups, uint8_t *to, const int bits) {
    for (size_t g = 0; g < n_groups; g++, codes += bits * UNIT, to += UNIT * S8_GROUP) {
#pragma GCC unroll 8
        for (int u = 0; u < S8_GROUP; u++)
            _mm512_storeu_si512(to + UNIT * u, look_up(table, codes_of(codes, bits, u), bits));
    }
}

INLINE_VBMI void expand_vbmi(
    const uint8_t *codes, const int8_t *table, size_t n_groups, uint8_t *to, const int bits) {
    for (size_t g = 0; g < n_groups; g++, codes += bits * UNIT, to += UNIT * S8_GROUP) {
#pragma GCC unroll 8
        for (int u = 0; u < S8_GROUP; u++)
            _mm512_storeu_si512(to + UNIT * u, look_up_vbmi(table, codes_of(codes, bits, u), bits));
    }
}

static bool vnni_has(const struct cpu *cpu) {
    return cpu->avx512_vnni;
}

static bool vbmi_has(const struct cpu *cpu) {
    return cpu->avx512_vnni && cpu->avx512_vbmi;
}

#define EXPAND(n)                                                                                            \
    TARGET static void expand_##n(const uint8_t *codes, const int8_t *table, size_t n_groups, uint8_t *to) { \
        expand(codes, table, n_groups, to, n);                                                               \
    }
#define LOADER(n)                                                                                            \
    EXPAND(n)                                                                                                \
    static const struct s8_loader loader_##n = {.bits = n, .has = vnni_has, .expand = expand_##n}
#define LOADER_FEW(n)                                                                                        \
    EXPAND(n)                                                                                                \
    static const struct s8_loader loader_##n = {.bits = n,                                                   \
        .has = vnni_has,                                                                                     \
        .expand = expand_##n,                                                                                \
        .run_few = s8_few_avx512vnni_##n,                                                                    \
        .max_few = MAX_FEW}
#define LOADER_VBMI(n)                                                                                       \
    TARGET_VBMI static void expand_vbmi_##n(                                                                 \
        const uint8_t *codes, const int8_t *table, size_t n_groups, uint8_t *to) {                           \
        expand_vbmi(codes, table, n_groups, to, n);                                                          \
    }                                                                                                        \
    static const struct s8_loader loader_vbmi_##n = {.bits = n, .has = vbmi_has, .expand = expand_vbmi_##n}

LOADER_FEW(1);
LOADER_FEW(2);
LOADER(3);
LOADER_FEW(4);
LOADER_VBMI(5);
LOADER_VBMI(6);
LOADER_VBMI(7);
LOADER(5);
LOADER(6);
LOADER(7);

const struct s8_loader *const s8_loaders_avx512vnni[] = {&loader_1, &loader_2, &loader_3, &loader_4,
    &loader_vbmi_5, &loader_5, &loader_vbmi_6, &loader_6, &loader_vbmi_7, &loader_7, NULL};
