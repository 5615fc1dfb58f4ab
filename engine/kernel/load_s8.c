/* Loaders in plain C: the meaning of a coded block (s8.h). */
#include "engine/kernel/isa.h"
#include "engine/kernel/s8.h"

#define UNIT 32

/* Bits of plane `width` that belong to byte i of unit u. */
KERNEL_INLINE unsigned plane_at(const uint8_t *plane, int width, int u, int i) {
    int per = 8 / width;

    return (unsigned)plane[u / per * UNIT + i] >> (u % per * width) & ((1u << width) - 1);
}

/* `bits` is a constant after inlining */
KERNEL_INLINE void expand(
    const uint8_t *codes, const int8_t *table, size_t n_groups, uint8_t *to, const int bits) {
    for (size_t g = 0; g < n_groups; g++, codes += bits * UNIT)
        for (int u = 0; u < S8_GROUP; u++, to += 2 * UNIT)
            for (int i = 0; i < UNIT; i++) {
                const uint8_t *plane = codes;
                unsigned code = 0;
                int at = 0;
                int16_t v;

                for (int width = 4; width > 0; width /= 2) {
                    if (!(bits & width))
                        continue;
                    code |= plane_at(plane, width, u, i) << at;
                    plane += width * UNIT;
                    at += width;
                }
                v = table[code];
                __builtin_memcpy(to + 2 * i, &v, sizeof(v));
            }
}

static bool always(const struct cpu *cpu) {
    (void)cpu;
    return true;
}

#define LOADER(n)                                                                                            \
    static void expand_##n(const uint8_t *codes, const int8_t *table, size_t n_groups, uint8_t *to) {        \
        expand(codes, table, n_groups, to, n);                                                               \
    }                                                                                                        \
    static const struct s8_loader loader_##n = {.bits = n, .has = always, .expand = expand_##n}

LOADER(1);
LOADER(2);
LOADER(3);
LOADER(4);
LOADER(5);
LOADER(6);
LOADER(7);

const struct s8_loader *const s8_loaders_plain[] = {
    &loader_1, &loader_2, &loader_3, &loader_4, &loader_5, &loader_6, &loader_7, NULL};
