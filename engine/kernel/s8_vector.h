/* Loops that the compiler vectorises (engine/ is built with -O3), once for each instruction set: write the
 * loop as an S8_LOOP function, and let S8_CLONES(name, (params), (args)) make name_plain, name_avx2 and
 * name_avx512 of it; S8_PICK(name, cpu) is the best one. The bytes are the same, for products and sums are
 * not contracted
 * (-ffp-contract=off). */
#ifndef ENGINE_KERNEL_S8_VECTOR_H
#define ENGINE_KERNEL_S8_VECTOR_H

#if defined(__GNUC__) && !defined(__clang__)
#define S8_WIDE ",prefer-vector-width=512"
#else
#define S8_WIDE ""
#endif

#include "engine/cpu.h"

#define S8_LOOP static inline __attribute__((always_inline)) void

#if defined(__x86_64__)
#define S8_CLONES(name, params, args)                                                                        \
    static void name##_plain params {                                                                        \
        name args;                                                                                           \
    }                                                                                                        \
    __attribute__((target("avx2,fma"))) static void name##_avx2 params {                                     \
        name args;                                                                                           \
    }                                                                                                        \
    __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl" S8_WIDE))) static void name##_avx512 params { \
        name args;                                                                                           \
    }
#define S8_PICK(name, cpu) ((cpu)->avx512 ? name##_avx512 : (cpu)->avx2 ? name##_avx2 : name##_plain)
#else
#define S8_CLONES(name, params, args)                                                                        \
    static void name##_plain params {                                                                        \
        name args;                                                                                           \
    }
#define S8_PICK(name, cpu) name##_plain
#endif

#endif
