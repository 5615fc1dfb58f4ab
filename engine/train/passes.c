#include "engine/train/passes.h"

#include "engine/kernel/isa.h"

const struct train_passes *train_passes_for(const struct cpu *cpu) {
#if KERNEL_HAS_X86
    if (cpu->avx512)
        return &train_passes_avx512;
    if (cpu->avx2 && cpu->fma)
        return &train_passes_avx2;
#endif
    (void)cpu;
    return &train_passes_plain;
}
