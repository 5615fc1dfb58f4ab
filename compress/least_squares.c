#include "compress/least_squares.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "compress/linalg.h"

int least_squares_init(struct least_squares *s, int64_t k, int64_t n, struct error *err) {
    *s = (struct least_squares){.k = k, .n = n};
    if (k < 1 || n < 1 || k > LEAST_SQUARES_MAX || n > INT32_MAX)
        return error_set(err, -EFBIG, "least squares of %lld unknowns", (long long)k);
    s->xx = calloc((size_t)(k * k), sizeof(*s->xx));
    s->xe = calloc((size_t)(k * n), sizeof(*s->xe));
    return s->xx && s->xe ? 0 : error_oom(err);
}

void least_squares_done(struct least_squares *s) {
    free(s->xx);
    free(s->xe);
    *s = (struct least_squares){0};
}

void least_squares_add(struct least_squares *s, int64_t rows, const double *x, const double *e) {
    linalg_add_gram(rows, s->k, x, s->xx);
    linalg_add_product(rows, s->k, s->n, x, e, s->xe);
}

static double added(const struct least_squares *s, double ridge) {
    double sum = 0;

    for (int64_t i = 0; i < s->k; i++)
        sum += s->xx[i * s->k + i];
    return ridge * sum / (double)s->k;
}

/* The rows and columns of X'X in `at`, factored and solved for b, [n][columns]. */
static int solve(const struct least_squares *s, double add, const int64_t *at, int64_t n, double *b,
    int64_t columns, struct error *err) {
    _cleanup_(freep) double *a = malloc((size_t)(n * n) * sizeof(*a));

    if (!a)
        return error_oom(err);
    for (int64_t i = 0; i < n; i++)
        for (int64_t j = 0; j <= i; j++)
            a[i * n + j] = s->xx[at[i] * s->k + at[j]] + (i == j ? add : 0);
    return linalg_solve_columns(n, a, columns, b, err);
}

static int solve_column(const struct least_squares *s, double add, const bool *keeps, int64_t column,
    int64_t *at, double *b, double *ret, struct error *err) {
    int64_t n = 0;
    int r;

    for (int64_t i = 0; i < s->k; i++)
        if (keeps[i * s->n + column]) {
            b[n] = s->xe[i * s->n + column];
            at[n++] = i;
        }
    r = n > 0 ? solve(s, add, at, n, b, 1, err) : 0;
    for (int64_t i = 0; i < s->k; i++)
        ret[i * s->n + column] = 0;
    for (int64_t i = 0; r == 0 && i < n; i++)
        ret[at[i] * s->n + column] = b[i];
    return r;
}

int least_squares_solve(
    const struct least_squares *s, double ridge, const bool *keeps, double *ret, struct error *err) {
    _cleanup_(freep) int64_t *at = malloc((size_t)s->k * sizeof(*at));
    _cleanup_(freep) double *b = malloc((size_t)s->k * sizeof(*b));
    double add = added(s, ridge);
    int r = 0;

    if (!at || !b)
        return error_oom(err);
    if (keeps) {
        for (int64_t c = 0; r == 0 && c < s->n; c++)
            r = solve_column(s, add, keeps, c, at, b, ret, err);
        return r;
    }
    for (int64_t i = 0; i < s->k; i++)
        at[i] = i;
    memcpy(ret, s->xe, (size_t)(s->k * s->n) * sizeof(*ret));
    return solve(s, add, at, s->k, ret, s->n, err);
}
