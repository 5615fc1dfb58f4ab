/* Interval and test statistics of proportions. */
#ifndef BASE_STATS_H
#define BASE_STATS_H

#include <stdint.h>

struct interval {
    double low, high;
};

/* Wilson score interval of k successes in n trials, 95% (Wilson 1927; Brown, Cai, DasGupta 2001, eq. 4).
 * n = 0 gives [0, 1]. */
struct interval stats_wilson95(uint64_t k, uint64_t n);

/* Exact two-sided McNemar test (binomial with p = 1/2 over the discordant pairs). Returns p in (0, 1]. */
double stats_mcnemar(uint64_t n01, uint64_t n10);

/* 95% interval of the paired difference of two proportions, (n10 - n01) / n (Agresti and Min 2005: Wald with
 * half a pseudo-observation in each of the four cells). */
struct interval stats_paired_difference95(uint64_t n01, uint64_t n10, uint64_t n);

#endif
