#include "base/stats.h"

#include <math.h>

#define Z95 1.959963984540054

struct interval stats_wilson95(uint64_t k, uint64_t n) {
    double p, nn = (double)n, z2 = Z95 * Z95, mid, half;

    if (n == 0)
        return (struct interval){0, 1};
    p = (double)k / nn;
    mid = (p + z2 / (2 * nn)) / (1 + z2 / nn);
    half = Z95 * sqrt(p * (1 - p) / nn + z2 / (4 * nn * nn)) / (1 + z2 / nn);
    return (struct interval){fmax(0, mid - half), fmin(1, mid + half)};
}

double stats_mcnemar(uint64_t n01, uint64_t n10) {
    uint64_t n = n01 + n10, k = n01 < n10 ? n01 : n10;
    double log_half_n = -(double)n * M_LN2, sum = 0;

    if (n == 0)
        return 1;
    for (uint64_t i = 0; i <= k; i++)
        sum += exp(lgamma((double)n + 1) - lgamma((double)i + 1) - lgamma((double)(n - i) + 1) + log_half_n);
    return fmin(1, 2 * sum);
}

struct interval stats_paired_difference95(uint64_t n01, uint64_t n10, uint64_t n) {
    /* Agresti & Min 2005: half a pseudo-observation in each of the four cells */
    double b = (double)n01 + 0.5, c = (double)n10 + 0.5, nn = (double)n + 2;
    double d = (c - b) / nn, half = Z95 * sqrt(fmax(0, (b + c) - (c - b) * (c - b) / nn)) / nn;

    if (n == 0)
        return (struct interval){-1, 1};
    return (struct interval){fmax(-1, d - half), fmin(1, d + half)};
}
