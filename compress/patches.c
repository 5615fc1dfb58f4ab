#include "compress/patches.h"

#include <stdbool.h>

int64_t patch_pixel(int64_t row, int64_t n) {
    /* splitmix64 */
    uint64_t x = (uint64_t)row * 0x9e3779b97f4a7c15u + 0x632be59bd9b4e019u;

    x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9u;
    x = (x ^ x >> 27) * 0x94d049bb133111ebu;
    return (int64_t)((x ^ x >> 31) % (uint64_t)n);
}

void patch_take(const struct kernel_window *w, const struct shape *in, const struct shape *out,
    const float *x, int64_t pixel, float *to) {
    int64_t place[KERNEL_WINDOW_MAX] = {0}, taps = 1;

    for (int d = w->rank - 1; d >= 0; d--) {
        place[d] = pixel % out->dim[d + 2];
        pixel /= out->dim[d + 2];
        taps *= w->kernel[d];
    }
    for (int64_t c = 0; c < in->dim[1]; c++)
        for (int64_t tap = 0; tap < taps; tap++) {
            int64_t rest = tap, at = 0, step = 1;
            bool is_inside = true;

            for (int d = w->rank - 1; d >= 0; d--) {
                int64_t p = place[d] * w->stride[d] - w->begin[d] + rest % w->kernel[d] * w->dilation[d];

                rest /= w->kernel[d];
                is_inside &= p >= 0 && p < in->dim[d + 2];
                at += p * step;
                step *= in->dim[d + 2];
            }
            *to++ = is_inside ? x[c * step + at] : 0;
        }
}
