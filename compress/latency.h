/* Latency of runs: nearest-rank percentiles. */
#ifndef COMPRESS_LATENCY_H
#define COMPRESS_LATENCY_H

#include <stddef.h>

struct latency {
    double min, p50, p95, p99; /* microseconds */
};

/* Sorts us[0..n-1]; n >= 1. */
struct latency latency_of(double *us, size_t n);

#endif
