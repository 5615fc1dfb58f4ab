/* Codebooks of numbers by k-means (Lloyd 1982, "Least squares quantization in PCM"), as weights share them
 * (Han et al. 2016, "Deep compression", section 3.1): words w_1 … w_n that minimise sum weight (v -
 * word(v))².
 *
 * The values are seen through fine bins, which remember the weight, sum and squares of what fell into them: a
 * round of Lloyd's is then n searches in running sums, however many values there are, and means are exact.
 * Deterministic; what is drawn depends on the seed alone. */
#ifndef COMPRESS_CODEBOOK_H
#define COMPRESS_CODEBOOK_H

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"

#define CODEBOOK_MAX 256

/* How the words begin (Han 2016, section 3.2). */
enum codebook_start {
    START_LINEAR,   /* evenly between the smallest and the largest value: large weights keep a word */
    START_DENSITY,  /* evenly among the values in their order */
    START_RANDOM,   /* some of the values (Forgy 1965) */
    START_PLUSPLUS, /* some, each far from those before (Arthur and Vassilvitskii 2007) */
};

struct codebook_bins {
    int n;
    double low, step;              /* bin i is around low + i step */
    double *weight, *sum, *square; /* [n]: sum of weights, of weight v, of weight v² */
};

/* Bins from `low` to `high`, the outer ones around these. Errors: -ENOMEM. */
int codebook_bins_init(struct codebook_bins *b, int n, double low, double high, struct error *err);
void codebook_bins_done(struct codebook_bins *b);
void codebook_bins_clear(struct codebook_bins *b);

/* What lies outside counts for the outermost bin. */
void codebook_bins_add(struct codebook_bins *b, double v, double weight);

struct codebook_options {
    enum codebook_start init;
    uint64_t seed;
    bool keeps_zero; /* one word is 0 and stays it */
    bool goes_on;    /* `words` hold a codebook already (sorted): from there instead of `init` */
};

/* words [n], sorted, 1 <= n <= CODEBOOK_MAX; with fewer different values than words some are the same. Empty
 * bins give zeros. *ret_inertia (may be NULL): what is minimised. Errors: -ENOMEM. */
int codebook_find(const struct codebook_bins *b, const struct codebook_options *o, float *words, int n,
    double *ret_inertia, struct error *err);

/* Index of the nearest of sorted words; of two equally near the lower. */
int codebook_nearest(const float *words, int n, float v);

#endif
