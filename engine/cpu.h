/* What this processor can do. Features can be hidden (`cpu_hide`), so that every path is tested on one
 * machine. */
#ifndef ENGINE_CPU_H
#define ENGINE_CPU_H

#include <stdbool.h>

#include "base/error.h"

struct cpu {
    bool avx2, fma;
    bool avx512; /* F, BW, DQ, VL */
    bool avx512_vnni;
    bool avx512_bf16;
    bool bf16_products; /* products of bfloat16 are faster than those of floats */
    bool avx512_vpopcntdq;
    bool avx512_vbmi;
};

/* Reads cpuid; `hide` is a comma-separated list of feature names to leave out ("avx512_vnni,avx512"), or
 * "all"; NULL. */
int cpu_detect(const char *hide, struct cpu *ret, struct error *err);
#endif
