/* conv_first_f32.h on vectors; after f32_vector.h, f32_rows.h and post_f32_body.h. */
#include <string.h>

/* Pixels ox to ox + F32_ROWS - 1 of an output row, `cols` vectors of channels. `x`: the first tap of pixel 0
 * of the row in the band's first plane; `y`: pixel ox at the first channel. */
F32_INLINE void conv_first_tile(int cols, const struct conv_first *c, const float *x, const float *w,
    int64_t oc, float *out, const void *const *residual, int64_t at) {
    const struct conv_geometry *g = &c->g;
    int64_t s = g->sw * (int64_t)sizeof(float), s3 = 3 * s, s5 = 5 * s, seven = 7 * g->sw;
    int64_t plane = c->band_h * c->band_w;
    f32v sum[F32_ROWS][2], bias[2];

    bias[0] = f32_load(c->bias + oc);
    bias[1] = cols > 1 ? f32_load(c->bias + oc + F32_LANES) : bias[0];
    __asm__ volatile("" : "+r"(s3), "+r"(s5) : : "memory");
#pragma GCC unroll 14
    for (int r = 0; r < F32_ROWS; r++) {
        sum[r][0] = bias[0];
        sum[r][1] = bias[1];
    }
    for (int64_t k = 0, ky = 0; k < g->c * g->kh; k++) {
        const float *p = x, *q = x + seven;

        x += c->band_w;
        if (++ky == g->kh) {
            x += plane - g->kh * c->band_w;
            ky = 0;
        }
        for (int64_t kx = 0; kx < g->kw; kx++) {
            f32v w0 = f32_load(w), w1 = cols > 1 ? f32_load(w + F32_LANES) : w0;

#pragma GCC unroll 14
            for (int r = 0; r < F32_ROWS; r++) {
                f32v a = r < 7 ? f32_row(r, p, s, s3, s5) : f32_row(r - 7, q, s, s3, s5);

                sum[r][0] = f32_fma(a, w0, sum[r][0]);
                if (cols > 1)
                    sum[r][1] = f32_fma(a, w1, sum[r][1]);
            }
            p++;
            q++;
            w += cols * F32_LANES;
        }
    }
    if (c->post.is_clamp) {
        f32v low = f32_set(c->post.low), high = f32_set(c->post.high);

#pragma GCC unroll 14
        for (int r = 0; r < F32_ROWS; r++) {
            f32_store(out + at + r * g->oc, f32_min(high, f32_max(low, sum[r][0])));
            if (cols > 1)
                f32_store(out + at + r * g->oc + F32_LANES, f32_min(high, f32_max(low, sum[r][1])));
        }
        return;
    }
#pragma GCC unroll 14
    for (int r = 0; r < F32_ROWS; r++) {
        f32_store(out + at + r * g->oc, sum[r][0]);
        if (cols > 1)
            f32_store(out + at + r * g->oc + F32_LANES, sum[r][1]);
    }
    for (int r = 0; r < F32_ROWS; r++)
        for (int64_t here = at + r * g->oc; here < at + r * g->oc + cols * F32_LANES; here += F32_LANES)
            f32_store(out + here, post_f32_apply(&c->post, residual, here, F32_LANES, f32_load(out + here)));
}

/* Input rows iy to iy + band_h - 1 of an image, as far as they are in it. */
static void conv_first_fill(const struct conv_first *c, const float *x, int64_t iy, float *band) {
    const struct conv_geometry *g = &c->g;

    for (int64_t k = 0; k < g->c * c->band_h; k++) {
        int64_t row = iy + k % c->band_h, n = c->band_w - g->pl < g->w ? c->band_w - g->pl : g->w;
        float *to = band + k * c->band_w;

        if (row < 0 || row >= g->h) {
            memset(to, 0, (size_t)c->band_w * sizeof(float));
            continue;
        }
        memset(to, 0, (size_t)g->pl * sizeof(float));
        memcpy(to + g->pl, x + (k / c->band_h * g->h + row) * g->w, (size_t)n * sizeof(float));
        memset(to + g->pl + n, 0, (size_t)(c->band_w - g->pl - n) * sizeof(float));
    }
}

/* The last tile of a row ends with the row and does some pixels again. */
F32_TARGET static void conv_first_row(
    const struct conv_first *c, const struct conv_first_job *j, int64_t row, const float *band) {
    const struct conv_geometry *g = &c->g;
    int64_t step = g->c * g->kh * g->kw;

    for (int64_t i = 0; i < g->ow; i += F32_ROWS) {
        int64_t ox = i + F32_ROWS <= g->ow ? i : g->ow - F32_ROWS, at = (row * g->ow + ox) * g->oc;

        for (int64_t oc = 0; oc < g->oc; oc += F32_PANEL) {
            if (g->oc - oc > F32_LANES)
                conv_first_tile(2, c, band + ox * g->sw, c->w + oc * step, oc, j->y, j->residual, at + oc);
            else
                conv_first_tile(1, c, band + ox * g->sw, c->w + oc * step, oc, j->y, j->residual, at + oc);
        }
    }
}

static void conv_first_rows(const struct conv_first *c, const struct conv_first_job *j) {
    const struct conv_geometry *g = &c->g;
    int64_t n, i;

    for (int64_t row = j->first; row < j->last; row += n) {
        int64_t oy = row % g->oh;

        /* to the end of the band, of the image, of the job */
        n = g->oh - oy < CONV_FIRST_BAND ? g->oh - oy : CONV_FIRST_BAND;
        n = j->last - row < n ? j->last - row : n;
        conv_first_fill(c, j->x + row / g->oh * g->c * g->h * g->w, oy * g->sh - g->pt, j->band);
        for (i = 0; i < n; i++)
            conv_first_row(c, j, row + i, j->band + i * g->sh * c->band_w);
    }
}
