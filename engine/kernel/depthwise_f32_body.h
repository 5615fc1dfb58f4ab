/* depthwise_f32.h on vectors; after f32_vector.h and post_f32_body.h. Kernel size k, stride s and the number
 * of rows are constants where the functions are called. */

#define DEPTHWISE_MAX_K    5
#define DEPTHWISE_MAX_ROWS 7 /* of the input: two output rows of 5x5 at stride 2 */

/* A pair of output rows (or the last one alone). */
struct depthwise_pair {
    const float *in[DEPTHWISE_MAX_ROWS]; /* rows, at channel c and column 0 of the picture */
    int64_t y;                           /* first output element at channel c, column 0 */
    int64_t n;                           /* channels from c on that there are: F32_LANES or fewer */
    const float *w;
    f32v bias;
};

F32_INLINE f32v depthwise_load(const float *p, int64_t n) {
    return n >= F32_LANES ? f32_load(p) : f32_load_some(p, n);
}

F32_INLINE void depthwise_store(const struct depthwise_f32 *d, const struct depthwise_f32_job *j,
    const struct depthwise_pair *p, int64_t at, f32v v) {
    v = post_f32_apply(&d->post, j->residual, at, p->n, v);
    if (p->n >= F32_LANES)
        f32_store(j->y + at, v);
    else
        f32_store_some(j->y + at, v, p->n);
}

/* Output columns first to last - 1, all of whose taps lie in the picture. What the next pair of rows will
 * read first comes closer. */
F32_INLINE void depthwise_inside(const struct depthwise_f32 *d, const struct depthwise_f32_job *j,
    const struct depthwise_pair *p, int k, int s, int rows, int64_t first, int64_t last) {
    const int n_in = (rows - 1) * s + k;
    const int64_t c = d->g.c, step = s * c;
    const f32v low = f32_set(d->post.low), high = f32_set(d->post.high), bias = p->bias;
    float *y0 = j->y + p->y + first * c, *y1 = y0 + d->g.ow * c;
    const float *in[DEPTHWISE_MAX_ROWS];
    f32v w[DEPTHWISE_MAX_K * DEPTHWISE_MAX_K];

#pragma GCC unroll 25
    for (int t = 0; t < k * k; t++)
        w[t] = f32_load(p->w + t * d->c_pack);
#pragma GCC unroll 7
    for (int i = 0; i < n_in; i++)
        in[i] = p->in[i] + (first * s - d->g.pl) * c;
    for (int64_t n = last - first, x = 0; n > 0; n--, x += step) {
        f32v sum[2] = {bias, bias};

#pragma GCC unroll 7
        for (int i = 0; i < n_in; i++) {
#pragma GCC unroll 5
            for (int kx = 0; kx < k; kx++) {
                f32v a = f32_load(in[i] + x + kx * c);

                if (i < k)
                    sum[0] = f32_fma(a, w[i * k + kx], sum[0]);
                if (rows > 1 && i >= s)
                    sum[1] = f32_fma(a, w[(i - s) * k + kx], sum[1]);
            }
        }
        f32_store(y0, f32_min(high, f32_max(low, sum[0])));
        y0 += c;
        if (rows > 1) {
            f32_store(y1, f32_min(high, f32_max(low, sum[1])));
            y1 += c;
        }
    }
}

/* Any output column: the taps that lie in the picture. `is_whole`, a constant: a whole vector of channels and
 * no posts but a clamp. */
F32_INLINE void depthwise_column(const struct depthwise_f32 *d, const struct depthwise_f32_job *j,
    const struct depthwise_pair *p, int k, int s, int rows, bool is_whole, int64_t ox) {
    const int64_t c = d->g.c, w_step = d->c_pack;
    int64_t ix = ox * s - d->g.pl, from = ix < 0 ? -ix : 0, to = d->g.w - ix < k ? d->g.w - ix : k;

    for (int r = 0; r < rows; r++) {
        int64_t at = p->y + (r * d->g.ow + ox) * c;
        f32v sum = p->bias;

        for (int64_t kx = from; kx < to; kx++) {
            const float *w = p->w + kx * w_step;

#pragma GCC unroll 5
            for (int ky = 0; ky < k; ky++) {
                const float *x = p->in[r * s + ky] + (ix + kx) * c;

                sum = f32_fma(is_whole ? f32_load(x) : depthwise_load(x, p->n), f32_load(w), sum);
                w += k * w_step;
            }
        }
        if (is_whole)
            f32_store(j->y + at, f32_min(f32_set(d->post.high), f32_max(f32_set(d->post.low), sum)));
        else
            depthwise_store(d, j, p, at, sum);
    }
}

F32_INLINE void depthwise_vector(const struct depthwise_f32 *d, const struct depthwise_f32_job *j,
    const struct depthwise_pair *p, int k, int s, int rows, int64_t first, int64_t last) {
    int64_t left = d->left < last ? d->left : last, right = d->right < last ? d->right : last;
    bool is_whole = p->n >= F32_LANES && d->post.is_clamp;

    if (!is_whole) {
        for (int64_t ox = first; ox < last; ox++)
            depthwise_column(d, j, p, k, s, rows, false, ox);
        return;
    }
    for (; first < left; first++)
        depthwise_column(d, j, p, k, s, rows, true, first);
    if (first < right)
        depthwise_inside(d, j, p, k, s, rows, first, right);
    for (first = first < right ? right : first; first < last; first++)
        depthwise_column(d, j, p, k, s, rows, true, first);
}

/* Columns that go together: neighbouring memory is read, and a filter is loaded once for all of them. */
#define DEPTHWISE_COLUMNS 28

F32_INLINE void depthwise_pair_of_rows(const struct depthwise_f32 *d, const struct depthwise_f32_job *j,
    int k, int s, int rows, int64_t image, int64_t oy) {
    const struct conv_geometry *g = &d->g;
    const float *in[DEPTHWISE_MAX_ROWS];

    for (int i = 0; i < (rows - 1) * s + k; i++) {
        int64_t iy = oy * s - g->pt + i;

        in[i] = iy < 0 || iy >= g->h ? j->zeros : j->x + (image * g->h + iy) * g->w * g->c;
    }
    for (int64_t first = 0; first < g->ow; first += DEPTHWISE_COLUMNS) {
        int64_t last = first + DEPTHWISE_COLUMNS < g->ow ? first + DEPTHWISE_COLUMNS : g->ow;

        for (int64_t c = 0; c < g->c; c += F32_LANES) {
            struct depthwise_pair p = {.y = (image * g->oh + oy) * g->ow * g->c + c,
                .n = g->c - c < F32_LANES ? g->c - c : F32_LANES,
                .w = d->w + c,
                .bias = f32_load(d->bias + c)};

            for (int i = 0; i < (rows - 1) * s + k; i++)
                p.in[i] = in[i] + c;
            depthwise_vector(d, j, &p, k, s, rows, first, last);
        }
    }
}

F32_INLINE void depthwise_rows(
    const struct depthwise_f32 *d, const struct depthwise_f32_job *j, int k, int s) {
    int64_t in_image = (d->g.oh + 1) / 2;

    for (int64_t i = j->first; i < j->last; i++) {
        int64_t oy = i % in_image * 2;

        if (oy + 1 < d->g.oh)
            depthwise_pair_of_rows(d, j, k, s, 2, i / in_image, oy);
        else
            depthwise_pair_of_rows(d, j, k, s, 1, i / in_image, oy);
    }
}

F32_TARGET static void depthwise_3x3_1(const struct depthwise_f32 *d, const struct depthwise_f32_job *j) {
    depthwise_rows(d, j, 3, 1);
}

F32_TARGET static void depthwise_3x3_2(const struct depthwise_f32 *d, const struct depthwise_f32_job *j) {
    depthwise_rows(d, j, 3, 2);
}

F32_TARGET static void depthwise_5x5_1(const struct depthwise_f32 *d, const struct depthwise_f32_job *j) {
    depthwise_rows(d, j, 5, 1);
}

F32_TARGET static void depthwise_5x5_2(const struct depthwise_f32 *d, const struct depthwise_f32_job *j) {
    depthwise_rows(d, j, 5, 2);
}

static void depthwise_run_rows(const struct depthwise_f32 *d, const struct depthwise_f32_job *j) {
    if (d->g.kh == 3 && d->g.sh == 1)
        depthwise_3x3_1(d, j);
    else if (d->g.kh == 3)
        depthwise_3x3_2(d, j);
    else if (d->g.sh == 1)
        depthwise_5x5_1(d, j);
    else
        depthwise_5x5_2(d, j);
}
