/* Linear algebra on row-major matrices of doubles (OpenBLAS, LAPACK): what decompositions of weights need.
 * Sizes are checked: more than 2^31 elements are refused (-EFBIG), as is what has no numbers in it (-EDOM:
 * not a number, no convergence). */
#ifndef COMPRESS_LINALG_H
#define COMPRESS_LINALG_H

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"

/* Zeroed; NULL: out of memory, or more than 2^31 elements. free() it. */
double *linalg_new(int64_t rows, int64_t cols);

/* c[m][n] = op(a) op(b); op(a) is m x k. A matrix that is turned is stored as its transpose: a[k][m],
 * b[n][k]. */
void linalg_multiply(int64_t m, int64_t n, int64_t k, const double *a, bool a_is_turned, const double *b,
    bool b_is_turned, double *c);

/* The same of floats: c = alpha op(a) op(b) + beta c. */
void linalg_multiply_floats(int64_t m, int64_t n, int64_t k, float alpha, const float *a, bool a_is_turned,
    const float *b, bool b_is_turned, float beta, float *c);

/* ret[m][m] = a a', of a[m][n]; or ret[n][n] = a' a when turned. Both triangles. */
void linalg_gram(int64_t m, int64_t n, const double *a, bool is_turned, double *ret);

/* Sums over rows that come in blocks: ret[n][n] += x' x, of x[rows][n], lower triangle; ret[k][n] += x' e, of
 * x[rows][k] and e[rows][n]. */
void linalg_add_gram(int64_t rows, int64_t n, const double *x, double *ret);
void linalg_add_product(int64_t rows, int64_t k, int64_t n, const double *x, const double *e, double *ret);
/* The upper triangle becomes the lower one's mirror. */
void linalg_mirror(int64_t n, double *a);

/* Symmetric a[n][n] becomes its eigenvectors, row k that of values[k], largest first. */
int linalg_eigen(int64_t n, double *a, double *values, struct error *err);
/* values alone; a is destroyed */
int linalg_eigenvalues(int64_t n, double *a, double *values, struct error *err);

/* Thin: a[m][n] (destroyed) = u[m][k] diag(s[k]) vt[k][n], k = min(m, n). */
int linalg_svd(int64_t m, int64_t n, double *a, double *u, double *s, double *vt, struct error *err);

/* Roots of a symmetric, positive semidefinite c[n][n]: root root = c, and inverse of that, eigenvalues below
 * `floor` times the largest taken as that. */
int linalg_roots(int64_t n, const double *c, double floor, double *root, double *inverse, struct error *err);

/* Solves x a = b for x, in place of b[m][n]; a[n][n] symmetric, positive definite (destroyed). -EDOM: it is
 * not. */
int linalg_solve(int64_t n, double *a, int64_t m, double *b, struct error *err);
/* Solves a x = b for x, in place of b[n][m]; the lower triangle of a is read. */
int linalg_solve_columns(int64_t n, double *a, int64_t m, double *b, struct error *err);

#endif
