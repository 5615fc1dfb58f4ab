/* Passes over memory of the plain layers, compiled for several instruction sets. */
#ifndef ENGINE_TRAIN_PASSES_H
#define ENGINE_TRAIN_PASSES_H

#include <stdbool.h>
#include <stdint.h>

#include "engine/cpu.h"

/* One window of max pooling: taps that lie in the picture. */
struct max_window {
    int64_t ky0, ky1, kx0, kx1;
};

struct max_pool {
    int64_t n, c, ih, iw, oh, ow;
    int kh, kw, sh, sw, dh, dw, top, left;
    int64_t c_tap; /* bytes of a pixel's taps: c in whole vectors of any kind */
};

struct train_passes {
    void (*add)(int64_t n, const float *a, const float *b, float *y);
    void (*add_bf16)(int64_t n, const uint16_t *a, const uint16_t *b, uint16_t *y);
    void (*widen)(int64_t n, const uint16_t *x, float *y);
    void (*narrow)(int64_t n, const float *x, uint16_t *y, bool adds); /* y = x or y += x */
    /* Clamp to [low, high]; what is no number stays none, so that the loss tells. */
    void (*clamp)(int64_t n, const float *x, float low, float high, float *y);
    /* dx = dy, or dx += dy, where low < y < high. */
    void (*clamp_back)(
        int64_t n, const float *y, const float *dy, float low, float high, float *dx, bool adds);
    /* Where each maximum stood is kept as the tap's number: tap[n][oh][ow][c_tap]. */
    void (*max_pool)(const struct max_pool *p, const float *x, float *y, uint8_t *tap);
    /* dx += dy at the maxima. */
    void (*max_pool_back)(const struct max_pool *p, const uint8_t *tap, const float *dy, float *dx);
};

extern const struct train_passes train_passes_avx512, train_passes_avx2, train_passes_plain;

const struct train_passes *train_passes_for(const struct cpu *cpu);

#endif
