/* A factor a channel (seen = w s[c]) and a pair of factors (seen = A B). */
#include <errno.h>
#include <string.h>

#include "engine/train/transform_rows.h"

/* ---- scale ---- */

static int scale_prepare(
    const struct transform_site *site, const void *param, struct transform_needs *ret, struct error *err) {
    const struct transform_scale *p = param;

    (void)err;
    ret->n_own = 1;
    ret->own[0].name = "scale";
    ret->own[0].n = site->channels;
    ret->n_sums = (size_t)site->channels;
    ret->replaces = p->only_scale;
    return 0;
}

static void scale_start(const struct transform_site *site, const void *param, float *const *own) {
    (void)param;
    for (int64_t c = 0; c < site->channels; c++)
        own[0][c] = 1;
}

static void scale_forward(const struct transform_io *io, int phase, unsigned part) {
    const struct transform_site *site = io->site;

    (void)phase;
    for (int64_t o = 0; o < site->outer; o++)
        for (int64_t c = transform_first_channel(site, part); c < transform_first_channel(site, part + 1);
             c++) {
            int64_t first = transform_at(site, o, c);

            for (int64_t i = first; i < first + site->inner; i++)
                io->y[i] = io->x[i] * io->own[0][c];
        }
}

static void scale_backward(const struct transform_io *io, int phase, unsigned part) {
    const struct transform_site *site = io->site;
    int64_t c0 = transform_first_channel(site, part), c1 = transform_first_channel(site, part + 1);

    (void)phase;
    for (int64_t c = c0; c < c1; c++)
        io->sums[c] = 0;
    for (int64_t o = 0; o < site->outer; o++)
        for (int64_t c = c0; c < c1; c++) {
            int64_t first = transform_at(site, o, c);

            for (int64_t i = first; i < first + site->inner; i++) {
                float dy = io->dy[i];

                io->sums[c] += (double)dy * (double)io->x[i];
                if (io->dx)
                    io->dx[i] = dy * io->own[0][c];
            }
        }
    for (int64_t c = c0; c < c1; c++)
        io->d_own[0][c] = (float)io->sums[c];
}

const struct transform transform_scale_row = {
    .name = "scale",
    .n_forward = 1,
    .n_backward = 1,
    .prepare = scale_prepare,
    .start = scale_start,
    .forward = scale_forward,
    .backward = scale_backward,
};

/* ---- low rank ---- */

static int low_rank_prepare(
    const struct transform_site *site, const void *param, struct transform_needs *ret, struct error *err) {
    const struct transform_low_rank *p = param;

    if (p->rows < 1 || p->rank < 1 || site->n % p->rows || !p->a || !p->b || p->rank > site->n)
        return error_set(err, -EINVAL,
            "parameter '%s': %lld elements are no matrix of %lld rows and rank %lld", site->name,
            (long long)site->n, (long long)p->rows, (long long)p->rank);
    *ret = (struct transform_needs){.n_own = 2, .replaces = true};
    ret->own[0].name = "a";
    ret->own[0].n = p->rows * p->rank;
    ret->own[1].name = "b";
    ret->own[1].n = site->n / p->rows * p->rank;
    ret->own[0].decays = ret->own[1].decays = true;
    return 0;
}

static void low_rank_start(const struct transform_site *site, const void *param, float *const *own) {
    const struct transform_low_rank *p = param;

    memcpy(own[0], p->a, (size_t)(p->rows * p->rank) * sizeof(**own));
    memcpy(own[1], p->b, (size_t)(site->n / p->rows * p->rank) * sizeof(**own));
}

/* The part's share of `n` rows or columns. */
static int64_t share(const struct transform_site *s, int64_t n, unsigned part) {
    return n * part / s->n_parts;
}

static void low_rank_forward(const struct transform_io *io, int phase, unsigned part) {
    const struct transform_low_rank *p = io->param;
    int64_t cols = io->site->n / p->rows;

    (void)phase;
    for (int64_t i = share(io->site, p->rows, part); i < share(io->site, p->rows, part + 1); i++) {
        float *y = io->y + i * cols;

        memset(y, 0, (size_t)cols * sizeof(*y));
        for (int64_t r = 0; r < p->rank; r++) {
            const float *b = io->own[1] + r * cols;
            float a = io->own[0][i * p->rank + r];

            for (int64_t k = 0; k < cols; k++)
                y[k] += a * b[k];
        }
    }
}

/* In sixteen sums that run side by side. */
static float dot(const float *x, const float *y, int64_t n) {
    float part[16] = {0}, sum = 0;
    int64_t whole = n / 16 * 16;

    for (int64_t i = 0; i < whole; i += 16)
        for (int k = 0; k < 16; k++)
            part[k] += x[i + k] * y[i + k];
    for (int k = 0; k < 16; k++)
        sum += part[k];
    for (int64_t i = whole; i < n; i++)
        sum += x[i] * y[i];
    return sum;
}

/* dA = dW B^T by rows, dB = A^T dW by columns. */
static void low_rank_backward(const struct transform_io *io, int phase, unsigned part) {
    const struct transform_low_rank *p = io->param;
    int64_t cols = io->site->n / p->rows, k0 = share(io->site, cols, part),
            k1 = share(io->site, cols, part + 1);

    (void)phase;
    for (int64_t i = share(io->site, p->rows, part); i < share(io->site, p->rows, part + 1); i++)
        for (int64_t r = 0; r < p->rank; r++)
            io->d_own[0][i * p->rank + r] = dot(io->dy + i * cols, io->own[1] + r * cols, cols);
    for (int64_t r = 0; r < p->rank; r++) {
        float *db = io->d_own[1] + r * cols;

        memset(db + k0, 0, (size_t)(k1 - k0) * sizeof(*db));
        for (int64_t i = 0; i < p->rows; i++) {
            const float *dy = io->dy + i * cols;
            float a = io->own[0][i * p->rank + r];

            for (int64_t k = k0; k < k1; k++)
                db[k] += a * dy[k];
        }
    }
}

const struct transform transform_low_rank_row = {
    .name = "low_rank",
    .n_forward = 1,
    .n_backward = 1,
    .prepare = low_rank_prepare,
    .start = low_rank_start,
    .forward = low_rank_forward,
    .backward = low_rank_backward,
};
