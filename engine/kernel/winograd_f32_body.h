/* The three steps of winograd_f32.h on vectors of channels; after f32_vector.h, gemm_f32_tile.h and
 * post_f32_body.h. */

#define WINOGRAD_MAX 6

/* y = B^T d of one row or column of four:
 *   1  0 -1  0
 *   0  1  1  0
 *   0 -1  1  0
 *   0  1  0 -1 */
F32_INLINE void winograd2_in(const f32v *d, f32v *y) {
    y[0] = f32_sub(d[0], d[2]);
    y[1] = f32_add(d[1], d[2]);
    y[2] = f32_sub(d[2], d[1]);
    y[3] = f32_sub(d[1], d[3]);
}

/* y = A^T m:
 *   1  1  1  0
 *   0  1 -1 -1 */
F32_INLINE void winograd2_out(const f32v *m, f32v *y) {
    y[0] = f32_add(m[0], f32_add(m[1], m[2]));
    y[1] = f32_sub(f32_sub(m[1], m[2]), m[3]);
}

/* Of six:
 *   4  0 -5  0  1  0
 *   0 -4 -4  1  1  0
 *   0  4 -4 -1  1  0
 *   0 -2 -1  2  1  0
 *   0  2 -1 -2  1  0
 *   0  4  0 -5  0  1 */
F32_INLINE void winograd4_in(const f32v *d, f32v *y) {
    const f32v two = f32_set(2), four = f32_set(4), five = f32_set(5);
    f32v a = f32_fnma(four, d[2], d[4]), b = f32_fnma(four, d[1], d[3]);
    f32v c = f32_sub(d[4], d[2]), e = f32_mul(two, f32_sub(d[3], d[1]));

    y[0] = f32_fnma(five, d[2], f32_fma(four, d[0], d[4]));
    y[1] = f32_add(a, b);
    y[2] = f32_sub(a, b);
    y[3] = f32_add(c, e);
    y[4] = f32_sub(c, e);
    y[5] = f32_fnma(five, d[3], f32_fma(four, d[1], d[5]));
}

/* Of six:
 *   1  1  1  1  1  0
 *   0  1 -1  2 -2  0
 *   0  1  1  4  4  0
 *   0  1 -1  8 -8  1 */
F32_INLINE void winograd4_out(const f32v *m, f32v *y) {
    f32v p = f32_add(m[1], m[2]), q = f32_sub(m[1], m[2]);
    f32v r = f32_add(m[3], m[4]), s = f32_sub(m[3], m[4]);

    y[0] = f32_add(m[0], f32_add(p, r));
    y[1] = f32_fma(f32_set(2), s, q);
    y[2] = f32_fma(f32_set(4), r, p);
    y[3] = f32_add(m[5], f32_fma(f32_set(8), s, q));
}

F32_INLINE void winograd_in(int m, const f32v *d, f32v *y) {
    if (m == 4)
        winograd4_in(d, y);
    else
        winograd2_in(d, y);
}

F32_INLINE void winograd_out(int m, const f32v *d, f32v *y) {
    if (m == 4)
        winograd4_out(d, y);
    else
        winograd2_out(d, y);
}

/* `m` is a constant from here on. */

struct winograd_tile {
    int64_t n, y, x; /* image and first output pixel */
};

static struct winograd_tile winograd_tile_at(const struct winograd *w, int64_t i) {
    int64_t in_image = w->tiles_y * w->tiles_x;

    return (struct winograd_tile){
        .n = i / in_image, .y = i % in_image / w->tiles_x * w->m, .x = i % w->tiles_x * w->m};
}

/* One vector of channels of a tile. `x`: the channels at the tile's first input pixel, which may lie outside
 * of the image: rows y0 to y1 - 1 and columns x0 to x1 - 1 of the tile are inside. */
F32_INLINE void winograd_in_vector(
    int m, const float *x, int64_t row, int64_t c, int y0, int y1, int x0, int x1, float *v, int64_t v_step) {
    const int n = m + 2;
    f32v t[WINOGRAD_MAX][WINOGRAD_MAX]; /* [column][row] */

#pragma GCC unroll 6
    for (int j = 0; j < n; j++) {
        f32v d[WINOGRAD_MAX];

#pragma GCC unroll 6
        for (int i = 0; i < n; i++)
            d[i] = i >= y0 && i < y1 && j >= x0 && j < x1 ? f32_load(x + i * row + j * c) : f32_set(0);
        winograd_in(m, d, t[j]);
    }
#pragma GCC unroll 6
    for (int i = 0; i < n; i++) {
        f32v d[WINOGRAD_MAX], y[WINOGRAD_MAX];

#pragma GCC unroll 6
        for (int j = 0; j < n; j++)
            d[j] = t[j][i];
        winograd_in(m, d, y);
#pragma GCC unroll 6
        for (int j = 0; j < n; j++)
            f32_store(v + (n * i + j) * v_step, y[j]);
    }
}

static int winograd_clip(int64_t v, int n) {
    return v < 0 ? 0 : v > n ? n : (int)v;
}

F32_INLINE void winograd_in_tile(
    int m, const struct winograd *w, const struct winograd_tile *t, const float *x, float *v) {
    const struct conv_geometry *g = &w->g;
    const int n = m + 2;
    int64_t iy = t->y - g->pt, ix = t->x - g->pl, row = g->w * g->c;
    int y0 = winograd_clip(-iy, n), y1 = winograd_clip(g->h - iy, n);
    int x0 = winograd_clip(-ix, n), x1 = winograd_clip(g->w - ix, n);

    x += (t->n * g->h + iy) * row + ix * g->c;
    if (y0 == 0 && y1 == n && x0 == 0 && x1 == n) {
        for (int64_t c = 0; c < g->c; c += F32_LANES)
            winograd_in_vector(m, x + c, row, g->c, 0, n, 0, n, v + c, w->v_step);
    } else {
        for (int64_t c = 0; c < g->c; c += F32_LANES)
            winograd_in_vector(m, x + c, row, g->c, y0, y1, x0, x1, v + c, w->v_step);
    }
}

F32_INLINE void winograd_out_tile(int m, const struct winograd *w, const struct winograd_job *j,
    const struct winograd_tile *t, const float *sums, int64_t oc) {
    const struct conv_geometry *g = &w->g;
    const int n = m + 2;
    int rows = (int)(g->oh - t->y < m ? g->oh - t->y : m), cols = (int)(g->ow - t->x < m ? g->ow - t->x : m);
    int64_t at = ((t->n * g->oh + t->y) * g->ow + t->x) * g->oc + oc;
    f32v s[WINOGRAD_MAX][4], bias = f32_load(w->bias + oc);

#pragma GCC unroll 6
    for (int k = 0; k < n; k++) {
        f32v d[WINOGRAD_MAX];

#pragma GCC unroll 6
        for (int i = 0; i < n; i++)
            d[i] = f32_load(sums + (n * i + k) * w->m_step);
        winograd_out(m, d, s[k]);
    }
#pragma GCC unroll 4
    for (int i = 0; i < m; i++) {
        f32v d[WINOGRAD_MAX], y[4];

        if (i >= rows)
            break;
#pragma GCC unroll 6
        for (int k = 0; k < n; k++)
            d[k] = s[k][i];
        winograd_out(m, d, y);
#pragma GCC unroll 4
        for (int k = 0; k < m; k++) {
            int64_t here = at + (i * g->ow + k) * g->oc;

            if (k >= cols)
                break;
            f32_store(
                j->y + here, post_f32_apply(&w->post, j->residual, here, F32_LANES, f32_add(y[k], bias)));
        }
    }
}

F32_INLINE void winograd_block(int m, const struct winograd *w, const struct winograd_job *j) {
    int64_t n = j->last - j->first, ic = w->g.c, oc = j->oc_end - j->oc;
    int64_t lda = ic + F32_LANES, ldm = oc + F32_LANES;

    for (int64_t i = 0; i < n; i++) {
        struct winograd_tile t = winograd_tile_at(w, j->first + i);

        winograd_in_tile(m, w, &t, j->x, j->v + i * lda);
    }
    for (int p = 0; p < (m + 2) * (m + 2); p++)
        f32_gemm(j->v + p * w->v_step, lda, w->u + p * w->u_step + j->oc * ic, j->m + p * w->m_step, ldm, n,
            oc, ic);
    for (int64_t i = 0; i < n; i++) {
        struct winograd_tile t = winograd_tile_at(w, j->first + i);

        for (int64_t c = 0; c < oc; c += F32_LANES)
            winograd_out_tile(m, w, j, &t, j->m + i * ldm + c, j->oc + c);
    }
}
