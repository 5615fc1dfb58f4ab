/* Least squares over rows that come in blocks: D that minimises |E - X D|² + ridge |D|², by the normal
 * equations (X'X + ridge I) D = X'E and Cholesky's factor (linalg.h). */
#ifndef COMPRESS_LEAST_SQUARES_H
#define COMPRESS_LEAST_SQUARES_H

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"

/* Above it the matrix alone takes 512 MiB. */
#define LEAST_SQUARES_MAX 8192

struct least_squares {
    int64_t k, n; /* columns of X and E */
    double *xx;   /* [k][k], lower triangle */
    double *xe;   /* [k][n] */
};

/* Errors: -ENOMEM, -EFBIG beyond LEAST_SQUARES_MAX columns. */
int least_squares_init(struct least_squares *s, int64_t k, int64_t n, struct error *err);
void least_squares_done(struct least_squares *s);

/* x: [rows][k], e: [rows][n]. */
void least_squares_add(struct least_squares *s, int64_t rows, const double *x, const double *e);

/* ret: [k][n]. ridge: a share of the mean of X'X's diagonal. `keeps` (may be NULL): [k][n], false where D is
 * to be 0, each column of E then having a system of its own. Errors: -ENOMEM; -EDOM: singular. */
int least_squares_solve(
    const struct least_squares *s, double ridge, const bool *keeps, double *ret, struct error *err);

#endif
