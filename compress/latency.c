#include "compress/latency.h"

#include <math.h>
#include <stdlib.h>

static int compare(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;

    return (x > y) - (x < y);
}

/* Nearest rank: the smallest value that at least the share `p` of all does not exceed. */
static double percentile(const double *sorted, size_t n, double p) {
    size_t rank = (size_t)ceil(p * (double)n);

    return sorted[rank ? rank - 1 : 0];
}

struct latency latency_of(double *us, size_t n) {
    qsort(us, n, sizeof(*us), compare);
    return (struct latency){
        .min = us[0],
        .p50 = percentile(us, n, 0.50),
        .p95 = percentile(us, n, 0.95),
        .p99 = percentile(us, n, 0.99),
    };
}
