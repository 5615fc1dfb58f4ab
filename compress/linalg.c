#include "compress/linalg.h"

#include <cblas.h>
#include <errno.h>
#include <lapacke.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"

#define MAX_ELEMENTS ((int64_t)1 << 31)

double *linalg_new(int64_t rows, int64_t cols) {
    if (rows < 0 || cols < 0 || (rows > 0 && cols > MAX_ELEMENTS / rows))
        return NULL;
    return calloc((size_t)(rows * cols) + 1, sizeof(double));
}

void linalg_multiply(int64_t m, int64_t n, int64_t k, const double *a, bool a_is_turned, const double *b,
    bool b_is_turned, double *c) {
    if (m < 1 || n < 1)
        return;
    if (k < 1) {
        memset(c, 0, (size_t)(m * n) * sizeof(*c));
        return;
    }
    cblas_dgemm(CblasRowMajor, a_is_turned ? CblasTrans : CblasNoTrans,
        b_is_turned ? CblasTrans : CblasNoTrans, (int)m, (int)n, (int)k, 1, a, (int)(a_is_turned ? m : k), b,
        (int)(b_is_turned ? k : n), 0, c, (int)n);
}

void linalg_multiply_floats(int64_t m, int64_t n, int64_t k, float alpha, const float *a, bool a_is_turned,
    const float *b, bool b_is_turned, float beta, float *c) {
    cblas_sgemm(CblasRowMajor, a_is_turned ? CblasTrans : CblasNoTrans,
        b_is_turned ? CblasTrans : CblasNoTrans, (int)m, (int)n, (int)k, alpha, a, (int)(a_is_turned ? m : k),
        b, (int)(b_is_turned ? k : n), beta, c, (int)n);
}

void linalg_gram(int64_t m, int64_t n, const double *a, bool is_turned, double *ret) {
    int64_t side = is_turned ? n : m, inner = is_turned ? m : n;

    cblas_dsyrk(CblasRowMajor, CblasLower, is_turned ? CblasTrans : CblasNoTrans, (int)side, (int)inner, 1, a,
        (int)n, 0, ret, (int)side);
    linalg_mirror(side, ret);
}

void linalg_mirror(int64_t n, double *a) {
    for (int64_t i = 0; i < n; i++)
        for (int64_t j = i + 1; j < n; j++)
            a[i * n + j] = a[j * n + i];
}

void linalg_add_gram(int64_t rows, int64_t n, const double *x, double *ret) {
    cblas_dsyrk(CblasRowMajor, CblasLower, CblasTrans, (int)n, (int)rows, 1, x, (int)n, 1, ret, (int)n);
}

void linalg_add_product(int64_t rows, int64_t k, int64_t n, const double *x, const double *e, double *ret) {
    cblas_dgemm(CblasRowMajor, CblasTrans, CblasNoTrans, (int)k, (int)n, (int)rows, 1, x, (int)k, e, (int)n,
        1, ret, (int)n);
}

/* LAPACK knows columns only. A symmetric matrix is its own transpose, and its eigenvectors, which come as
 * columns, are rows to us; the smallest comes first. */
static int eigen(int64_t n, double *a, double *values, bool has_vectors, struct error *err) {
    for (int64_t i = 0; i < n * n; i++)
        if (!isfinite(a[i]))
            return error_set(err, -EDOM, "there are weights or activations that are no finite numbers");
    if (LAPACKE_dsyevd(LAPACK_COL_MAJOR, has_vectors ? 'V' : 'N', 'U', (int)n, a, (int)n, values) != 0)
        return error_set(err, -EDOM, "the eigenvalues of a matrix of %lld rows were not found", (long long)n);
    return 0;
}

static void swap(double *a, double *b, int64_t n) {
    for (int64_t i = 0; i < n; i++) {
        double t = a[i];

        a[i] = b[i];
        b[i] = t;
    }
}

int linalg_eigen(int64_t n, double *a, double *values, struct error *err) {
    int r = eigen(n, a, values, true, err);

    for (int64_t i = 0; r == 0 && i < n / 2; i++) {
        swap(values + i, values + n - 1 - i, 1);
        swap(a + i * n, a + (n - 1 - i) * n, n);
    }
    return r;
}

int linalg_eigenvalues(int64_t n, double *a, double *values, struct error *err) {
    int r = eigen(n, a, values, false, err);

    for (int64_t i = 0; r == 0 && i < n / 2; i++)
        swap(values + i, values + n - 1 - i, 1);
    return r;
}

int linalg_svd(int64_t m, int64_t n, double *a, double *u, double *s, double *vt, struct error *err) {
    int64_t k = m < n ? m : n;

    for (int64_t i = 0; i < m * n; i++)
        if (!isfinite(a[i]))
            return error_set(err, -EDOM, "there are weights or activations that are no finite numbers");
    /* read by columns, a is its transpose, v s u' */
    if (LAPACKE_dgesdd(LAPACK_COL_MAJOR, 'S', (int)n, (int)m, a, (int)n, s, vt, (int)n, u, (int)k) != 0)
        return error_set(err, -EDOM, "the singular values of a matrix were not found");
    return 0;
}

int linalg_roots(int64_t n, const double *c, double floor, double *root, double *inverse, struct error *err) {
    _cleanup_(freep) double *v = linalg_new(n, n), *scaled = linalg_new(n, n), *values = linalg_new(n, 1);
    int r;

    if (!v || !scaled || !values)
        return error_oom(err);
    memcpy(v, c, (size_t)(n * n) * sizeof(*v));
    r = linalg_eigen(n, v, values, err);
    if (r < 0)
        return r;
    for (int turn = 0; turn < 2; turn++) {
        for (int64_t k = 0; k < n; k++) {
            double e = fmax(values[k], fmax(floor * values[0], 1e-300));

            for (int64_t i = 0; i < n; i++)
                scaled[k * n + i] = v[k * n + i] * (turn ? 1 / sqrt(e) : sqrt(e));
        }
        linalg_multiply(n, n, n, v, true, scaled, false, turn ? inverse : root);
    }
    return 0;
}

int linalg_solve(int64_t n, double *a, int64_t m, double *b, struct error *err) {
    /* a x' = b', and b' by columns is b */
    if (LAPACKE_dposv(LAPACK_COL_MAJOR, 'U', (int)n, (int)m, a, (int)n, b, (int)n) != 0)
        return error_set(err, -EDOM, "a system of %lld equations has no one solution", (long long)n);
    return 0;
}

int linalg_solve_columns(int64_t n, double *a, int64_t m, double *b, struct error *err) {
    if (LAPACKE_dposv(LAPACK_ROW_MAJOR, 'L', (int)n, (int)m, a, (int)n, b, (int)m) != 0)
        return error_set(err, -EDOM, "a system of %lld equations has no one solution", (long long)n);
    return 0;
}
