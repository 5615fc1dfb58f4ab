#include "engine/kernel/quant.h"

#include <math.h>

void quant_decode(const void *codes, enum dtype t, struct quant q, int64_t n, float *ret) {
    const uint8_t *u = codes;
    const int8_t *s = codes;

    for (int64_t i = 0; i < n; i++)
        ret[i] = q.scale * (float)((t == DT_S8 ? s[i] : u[i]) - q.zero);
}

void quant_encode(const float *x, int64_t n, struct quant q, enum dtype t, void *ret) {
    const float low = t == DT_S8 ? -128 : 0, high = t == DT_S8 ? 127 : 255;
    uint8_t *u = ret;

    for (int64_t i = 0; i < n; i++) {
        float v = rintf(x[i] / q.scale) + (float)q.zero;

        v = v > low ? v : low; /* NaN becomes the lowest code */
        v = v < high ? v : high;
        u[i] = (uint8_t)(int)v;
    }
}
