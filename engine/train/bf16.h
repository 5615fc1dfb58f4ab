/* bfloat16: the upper half of a float. */
#ifndef ENGINE_TRAIN_BF16_H
#define ENGINE_TRAIN_BF16_H

#include <stdint.h>
#include <string.h>

static inline float bf16_read(uint16_t h) {
    uint32_t bits = (uint32_t)h << 16;
    float x;

    memcpy(&x, &bits, sizeof(x));
    return x;
}

/* To the nearest, in doubt to the even one; what is no number stays none. */
static inline uint16_t bf16_round(float x) {
    uint32_t bits;

    memcpy(&bits, &x, sizeof(bits));
    return (uint16_t)((bits & 0x7fffffffu) > 0x7f800000u ? bits >> 16 | 0x40u
                                                         : (bits + 0x7fffu + (bits >> 16 & 1)) >> 16);
}

#endif
