/* Tiles of sums in registers: rows, each with its broadcast factor, times two vectors. After f32_vector.h.
 *
 * AVX-512: 14 rows x 2 vectors of sums, 2 of weights, 1 broadcast: 31 of 32 registers, 16 loads for 28
 * products. AVX2: 6 x 2, 2, 1: 15 of 16. */
#ifndef ENGINE_KERNEL_F32_ROWS_H
#define ENGINE_KERNEL_F32_ROWS_H

#define F32_PANEL (2 * F32_LANES)
#if F32_LANES == 16
#define F32_ROWS 14
#else
#define F32_ROWS 6
#endif

/* x[0], x[s], x[2 s], x[4 s] to all lanes. As assembly, because only the addressing modes of the instruction
 * let seven rows share three registers (s, 3 s, 5 s); the compiler keeps a pointer a row and spills them. */
#define F32_BROADCAST_AT(name, address)                                                                      \
    F32_INLINE f32v name(const float *x, int64_t bytes) {                                                    \
        f32v v;                                                                                              \
        __asm__("vbroadcastss " address ", %0" : "=v"(v) : "r"(x), "r"(bytes));                              \
        return v;                                                                                            \
    }
F32_BROADCAST_AT(f32_broadcast_0, "(%1)")
F32_BROADCAST_AT(f32_broadcast_1, "(%1,%2)")
F32_BROADCAST_AT(f32_broadcast_2, "(%1,%2,2)")
F32_BROADCAST_AT(f32_broadcast_4, "(%1,%2,4)")

/* Row r of 0 to 6 from x on, s bytes apart. */
F32_INLINE f32v f32_row(int r, const float *x, int64_t s, int64_t s3, int64_t s5) {
    switch (r) {
    case 0: return f32_broadcast_0(x, s);
    case 1: return f32_broadcast_1(x, s);
    case 2: return f32_broadcast_2(x, s);
    case 3: return f32_broadcast_1(x, s3);
    case 4: return f32_broadcast_4(x, s);
    case 5: return f32_broadcast_1(x, s5);
    default: return f32_broadcast_2(x, s3);
    }
}

#endif
