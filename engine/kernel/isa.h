/* Functions compiled for an instruction set, to be called only when struct cpu has it. A body written once is
 * a static inline function marked KERNEL_INLINE, called from one function per instruction set. */
#ifndef ENGINE_KERNEL_ISA_H
#define ENGINE_KERNEL_ISA_H

#define KERNEL_INLINE static inline __attribute__((always_inline))

#if defined(__x86_64__)
#define KERNEL_HAS_X86    1
#define KERNEL_AVX2       __attribute__((target("avx2,fma")))
#define KERNEL_AVX512     __attribute__((target("avx2,fma,avx512f,avx512bw,avx512dq,avx512vl")))
#define KERNEL_AVX512BF16 __attribute__((target("avx2,fma,avx512f,avx512bw,avx512dq,avx512vl,avx512bf16")))
#else
#define KERNEL_HAS_X86 0
#define KERNEL_AVX2
#define KERNEL_AVX512
#define KERNEL_AVX512BF16
#endif

#endif
