#include "engine/train/norm_rows.h"

#include "engine/kernel/isa.h"

const struct norm_rows *norm_rows_for(const struct cpu *cpu, bool is_bf16) {
#if KERNEL_HAS_X86
    if (is_bf16)
        return &norm_rows_avx512bf16;
    if (cpu->avx512)
        return &norm_rows_avx512;
    if (cpu->avx2 && cpu->fma)
        return &norm_rows_avx2;
#endif
    (void)cpu;
    (void)is_bf16;
    return &norm_rows_plain;
}
