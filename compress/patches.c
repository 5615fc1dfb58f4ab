#include "compress/patches.h"

int64_t patch_pixel(int64_t row, int64_t n) {
    /* splitmix64 */
    uint64_t x = (uint64_t)row * 0x9e3779b97f4a7c15u + 0x632be59bd9b4e019u;

    x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9u;
    x = (x ^ x >> 27) * 0x94d049bb133111ebu;
    return (int64_t)((x ^ x >> 31) % (uint64_t)n);
}

void patch_init(struct patch *ret, const struct kernel_window *w, const struct shape *in,
    const struct shape *out, int64_t pixel) {
    *ret = (struct patch){.window = w, .in = in, .plane = 1};
    for (int d = w->rank - 1; d >= 0; d--) {
        ret->place[d] = pixel % out->dim[d + 2];
        pixel /= out->dim[d + 2];
        ret->plane *= in->dim[d + 2];
    }
}

int64_t patch_tap(const struct patch *patch, int64_t tap) {
    const struct kernel_window *w = patch->window;
    int64_t at = 0, step = 1;

    for (int d = w->rank - 1; d >= 0; d--) {
        int64_t p = patch->place[d] * w->stride[d] - w->begin[d] + tap % w->kernel[d] * w->dilation[d];

        if (p < 0 || p >= patch->in->dim[d + 2])
            return -1;
        tap /= w->kernel[d];
        at += p * step;
        step *= patch->in->dim[d + 2];
    }
    return at;
}

void patch_take(const struct kernel_window *w, const struct shape *in, const struct shape *out,
    const float *x, int64_t pixel, float *to) {
    struct patch p;
    int64_t taps = 1;

    patch_init(&p, w, in, out, pixel);
    for (int d = 0; d < w->rank; d++)
        taps *= w->kernel[d];
    for (int64_t tap = 0; tap < taps; tap++) {
        int64_t at = patch_tap(&p, tap);

        for (int64_t c = 0; c < in->dim[1]; c++)
            to[c * taps + tap] = at < 0 ? 0 : x[c * p.plane + at];
    }
}
