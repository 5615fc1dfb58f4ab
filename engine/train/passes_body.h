/* passes.h on vectors; after f32_vector.h. */
#include <math.h>

#include "engine/train/bf16.h"

F32_INLINE f32v passes_load(const float *p, int64_t n) {
    return n >= F32_LANES ? f32_load(p) : f32_load_some(p, n);
}

F32_INLINE void passes_store(float *p, f32v v, int64_t n) {
    if (n >= F32_LANES)
        f32_store(p, v);
    else
        f32_store_some(p, v, n);
}

/* ---- elementwise: whole vectors, then what is left ---- */

F32_TARGET static void passes_add(int64_t n, const float *a, const float *b, float *y) {
    int64_t i = 0;

    for (; i + F32_LANES <= n; i += F32_LANES)
        f32_store(y + i, f32_add(f32_load(a + i), f32_load(b + i)));
    if (i < n)
        f32_store_some(y + i, f32_add(f32_load_some(a + i, n - i), f32_load_some(b + i, n - i)), n - i);
}

F32_TARGET static void passes_clamp(int64_t n, const float *x, float low, float high, float *y) {
    const f32v l = f32_set(low), h = f32_set(high);
    int64_t i = 0;

    for (; i + F32_LANES <= n; i += F32_LANES)
        f32_store(y + i, f32_min(h, f32_max(l, f32_load(x + i))));
    if (i < n)
        f32_store_some(y + i, f32_min(h, f32_max(l, f32_load_some(x + i, n - i))), n - i);
}

/* For any processor: compilers vectorise whole numbers anywhere. */
F32_TARGET static void passes_add_bf16(int64_t n, const uint16_t *a, const uint16_t *b, uint16_t *y) {
    for (int64_t i = 0; i < n; i++)
        y[i] = bf16_round(bf16_read(a[i]) + bf16_read(b[i]));
}

F32_TARGET static void passes_widen(int64_t n, const uint16_t *x, float *y) {
    for (int64_t i = 0; i < n; i++)
        y[i] = bf16_read(x[i]);
}

F32_TARGET static void passes_narrow(int64_t n, const float *x, uint16_t *y, bool adds) {
    if (adds)
        for (int64_t i = 0; i < n; i++)
            y[i] = bf16_round(bf16_read(y[i]) + x[i]);
    else
        for (int64_t i = 0; i < n; i++)
            y[i] = bf16_round(x[i]);
}

F32_INLINE void passes_clamp_back_some(
    const float *y, const float *dy, const f32v low, const f32v high, float *dx, bool adds, int64_t n) {
    f32v d = f32_inside(passes_load(dy, n), passes_load(y, n), low, high);

    passes_store(dx, adds ? f32_add(passes_load(dx, n), d) : d, n);
}

F32_TARGET static void passes_clamp_back(
    int64_t n, const float *y, const float *dy, float low, float high, float *dx, bool adds) {
    const f32v l = f32_set(low), h = f32_set(high);
    int64_t i = 0;

    for (; i + F32_LANES <= n; i += F32_LANES)
        passes_clamp_back_some(y + i, dy + i, l, h, dx + i, adds, F32_LANES);
    if (i < n)
        passes_clamp_back_some(y + i, dy + i, l, h, dx + i, adds, n - i);
}

/* ---- max pooling ---- */

/* The first and the last tap in the picture of `size` pixels, of k taps d apart from `at` on. */
static void passes_clip(int64_t at, int64_t size, int64_t k, int64_t d, int64_t *first, int64_t *last) {
    *first = at < 0 ? (-at + d - 1) / d : 0;
    *last = at + (k - 1) * d >= size ? (size - at + d - 1) / d : k;
}

/* Offset of the window's first tap in a picture, in pixels; the window's taps that there are. */
static int64_t passes_window(const struct max_pool *p, int64_t oy, int64_t ox, struct max_window *ret) {
    int64_t iy = oy * p->sh - p->top, ix = ox * p->sw - p->left;

    passes_clip(iy, p->ih, p->kh, p->dh, &ret->ky0, &ret->ky1);
    passes_clip(ix, p->iw, p->kw, p->dw, &ret->kx0, &ret->kx1);
    return iy * p->iw + ix;
}

/* x: the window's first tap, perhaps outside of the picture. */
F32_INLINE void passes_max(
    const struct max_pool *p, const struct max_window *w, const float *x, int64_t n, float *y, uint8_t *tap) {
    f32v most = f32_set(-HUGE_VALF), where = f32_set(0);

    for (int64_t ky = w->ky0; ky < w->ky1; ky++)
        for (int64_t kx = w->kx0; kx < w->kx1; kx++) {
            f32v v = passes_load(x + (ky * p->dh * p->iw + kx * p->dw) * p->c, n);

            where = f32_above(v, most, f32_set((float)(ky * p->kw + kx)), where);
            most = f32_above(v, most, v, most);
        }
    passes_store(y, most, n);
    f32_to_bytes(tap, where);
}

F32_TARGET static void passes_max_pool(const struct max_pool *p, const float *x, float *y, uint8_t *tap) {
    for (int64_t i = 0; i < p->n * p->oh; i++)
        for (int64_t ox = 0; ox < p->ow; ox++, y += p->c, tap += p->c_tap) {
            struct max_window w;
            const float *from = x + (i / p->oh * p->ih * p->iw + passes_window(p, i % p->oh, ox, &w)) * p->c;
            int64_t c = 0;

            for (; c + F32_LANES <= p->c; c += F32_LANES)
                passes_max(p, &w, from + c, F32_LANES, y + c, tap + c);
            if (c < p->c)
                passes_max(p, &w, from + c, p->c - c, y + c, tap + c);
        }
}

F32_INLINE void passes_max_back(const struct max_pool *p, const struct max_window *w, const uint8_t *tap,
    const float *dy, int64_t n, float *dx) {
    f32v where = f32_from_bytes(tap), d = passes_load(dy, n);

    for (int64_t ky = w->ky0; ky < w->ky1; ky++)
        for (int64_t kx = w->kx0; kx < w->kx1; kx++) {
            float *to = dx + (ky * p->dh * p->iw + kx * p->dw) * p->c;
            f32v part = f32_equal(where, f32_set((float)(ky * p->kw + kx)), d);

            passes_store(to, f32_add(passes_load(to, n), part), n);
        }
}

F32_TARGET static void passes_max_pool_back(
    const struct max_pool *p, const uint8_t *tap, const float *dy, float *dx) {
    for (int64_t i = 0; i < p->n * p->oh; i++)
        for (int64_t ox = 0; ox < p->ow; ox++, dy += p->c, tap += p->c_tap) {
            struct max_window w;
            float *to = dx + (i / p->oh * p->ih * p->iw + passes_window(p, i % p->oh, ox, &w)) * p->c;
            int64_t c = 0;

            for (; c + F32_LANES <= p->c; c += F32_LANES)
                passes_max_back(p, &w, tap + c, dy + c, F32_LANES, to + c);
            if (c < p->c)
                passes_max_back(p, &w, tap + c, dy + c, p->c - c, to + c);
        }
}
