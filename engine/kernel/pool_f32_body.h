/* pool_f32.h on vectors; after f32_vector.h. */
#include <math.h>

/* Taps ky0 to ky1 - 1, kx0 to kx1 - 1 lie in the picture; `x` is the first of the window, perhaps outside. */
struct pool_window {
    const float *x;
    int64_t ky0, ky1, kx0, kx1;
};

F32_INLINE f32v pool_taps(
    const struct conv_geometry *g, bool is_max, const struct pool_window *w, int64_t c, int64_t n) {
    f32v v = f32_set(is_max ? -INFINITY : 0);

    for (int64_t ky = w->ky0; ky < w->ky1; ky++)
        for (int64_t kx = w->kx0; kx < w->kx1; kx++) {
            const float *p = w->x + (ky * g->dh * g->w + kx * g->dw) * g->c + c;
            f32v a = n == F32_LANES ? f32_load(p) : f32_load_some(p, n);

            v = is_max ? f32_max(v, a) : f32_add(v, a);
        }
    return v;
}

F32_INLINE void pool_pixel(const struct pool_f32 *p, bool is_max, const struct pool_window *w, float *y) {
    int64_t c = 0, n_taps = (w->ky1 - w->ky0) * (w->kx1 - w->kx0), left = p->g.c % F32_LANES;
    f32v factor = f32_set(is_max ? 1 : 1.0f / (float)(p->divisor ? p->divisor : n_taps));

    for (; c + F32_LANES <= p->g.c; c += F32_LANES) {
        f32v v = pool_taps(&p->g, is_max, w, c, F32_LANES);

        f32_store(y + c, is_max ? v : f32_mul(v, factor));
    }
    if (left) {
        f32v v = pool_taps(&p->g, is_max, w, c, left);

        f32_store_some(y + c, is_max ? v : f32_mul(v, factor), left);
    }
}

/* The first and the last tap in the picture of `size` pixels, of k taps d apart from `at` on. */
static void pool_clip(int64_t at, int64_t size, int64_t k, int64_t d, int64_t *first, int64_t *last) {
    *first = at < 0 ? (-at + d - 1) / d : 0;
    *last = at + (k - 1) * d >= size ? (size - at + d - 1) / d : k;
}

F32_INLINE void pool_rows(
    const struct pool_f32 *p, bool is_max, const float *x, float *y, int64_t first, int64_t last) {
    const struct conv_geometry *g = &p->g;

    for (int64_t r = first; r < last; r++) {
        int64_t iy = r % g->oh * g->sh - g->pt;
        const float *image = x + r / g->oh * g->h * g->w * g->c;
        struct pool_window w;

        pool_clip(iy, g->h, g->kh, g->dh, &w.ky0, &w.ky1);
        for (int64_t ox = 0; ox < g->ow; ox++) {
            int64_t ix = ox * g->sw - g->pl;

            pool_clip(ix, g->w, g->kw, g->dw, &w.kx0, &w.kx1);
            w.x = image + (iy * g->w + ix) * g->c;
            pool_pixel(p, is_max, &w, y + (r * g->ow + ox) * g->c);
        }
    }
}

F32_TARGET static void pool_run_rows(
    const struct pool_f32 *p, const float *x, float *y, int64_t first, int64_t last) {
    if (p->is_max)
        pool_rows(p, true, x, y, first, last);
    else
        pool_rows(p, false, x, y, first, last);
}
