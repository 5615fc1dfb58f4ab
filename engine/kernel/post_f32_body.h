/* post_f32.h on a vector; after f32_vector.h. */
#ifndef ENGINE_KERNEL_POST_F32_BODY_H
#define ENGINE_KERNEL_POST_F32_BODY_H

#include "engine/kernel/post_f32.h"

F32_INLINE f32v post_f32_unary(enum post_f32_kind kind, f32v a, f32v b, f32v v) {
    const f32v zero = f32_set(0), one = f32_set(1);

    switch (kind) {
    case POST_F32_CLAMP: return f32_min(b, f32_max(a, v));
    case POST_F32_LEAKY: return f32_fma(a, f32_min(zero, v), f32_max(zero, v));
    case POST_F32_HARD_SIGMOID: return f32_min(one, f32_max(zero, f32_fma(a, v, b)));
    case POST_F32_HARD_SWISH:
        return f32_mul(v, f32_min(one, f32_max(zero, f32_fma(v, f32_set(1 / 6.0f), f32_set(0.5f)))));
    case POST_F32_ADD: break;
    }
    return v;
}

/* `v`: n results (F32_LANES or fewer), `at` elements into the output; residual[i] of post i lies as it does.
 */
F32_INLINE f32v post_f32_apply(
    const struct post_f32 *p, const void *const *residual, int64_t at, int64_t n, f32v v) {
    if (p->is_clamp)
        return f32_min(f32_set(p->high), f32_max(f32_set(p->low), v));
    for (int i = 0; i < p->n; i++) {
        if (p->step[i].kind == POST_F32_ADD) {
            const float *r = (const float *)residual[i] + at;

            v = f32_add(v, n >= F32_LANES ? f32_load(r) : f32_load_some(r, n));
        } else {
            v = post_f32_unary(p->step[i].kind, f32_set(p->step[i].a), f32_set(p->step[i].b), v);
        }
    }
    return v;
}

#endif
