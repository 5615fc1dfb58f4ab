/* The clocks. Durations are taken between two readings of the monotonic one. */
#ifndef BASE_CLOCK_H
#define BASE_CLOCK_H

#include <stdint.h>
#include <time.h>

static inline uint64_t clock_now_ns(void) {
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static inline double clock_now_us(void) {
    return (double)clock_now_ns() / 1e3;
}

static inline double clock_now_s(void) {
    return (double)clock_now_ns() / 1e9;
}

/* Since 1970, UTC; can jump. */
static inline uint64_t clock_unix_ms(void) {
    struct timespec t;

    clock_gettime(CLOCK_REALTIME, &t);
    return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

#endif
