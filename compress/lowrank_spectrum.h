/* Squared singular values of a layer's weights, and what they say of its rank. */
#ifndef COMPRESS_LOWRANK_SPECTRUM_H
#define COMPRESS_LOWRANK_SPECTRUM_H

#include "compress/lowrank.h"

/* Of the matrix that the decomposition cuts, or of two: tucker2 and cp have the inputs' unfolding [S][T k]
 * and the outputs' [T][S k]. */
struct lowrank_spectrum {
    int n_sides;
    int64_t n[2];             /* values */
    int64_t rows[2], cols[2]; /* of the matrix; n is the smaller */
    double *value[2], total;  /* squares, largest first; their sum */
};

int lowrank_spectrum_new(const struct lowrank_layer *l, int decomposition, const double *w,
    struct lowrank_spectrum *ret, struct error *err);
void lowrank_spectrum_done(struct lowrank_spectrum *s);

/* Share of the energy (the squares' sum) that is left at these ranks: of a matrix exactly, of two sides at
 * least so much (De Lathauwer et al. 2000, property 10). Of cp with one rank for both sides at most so much.
 */
double lowrank_energy(const struct lowrank_spectrum *s, const int64_t rank[2]);

/* The smallest rank of a side with at least this share of the energy. */
int64_t lowrank_rank_of_energy(const struct lowrank_spectrum *s, int side, double share);

/* The rank that stands out of the noise: the global analytic solution of empirical variational Bayesian
 * matrix factorisation with the noise's variance estimated (Nakajima et al. 2013, Global analytic solution of
 * fully-observed variational Bayesian matrix factorization, theorem 2 and corollary 1). `square`: n squared
 * singular values of a matrix n x cols, n <= cols, largest first. */
int64_t lowrank_evbmf(const double *square, int64_t n, int64_t cols);

#endif
