/* Chance without a state: a number is a function of a key (what it is for) and a place (which number of it),
 * so that it comes out the same in any order and on any thread. Mixing is splitmix64's (Steele, Lea and
 * Flood 2014, Fast splittable pseudorandom number generators). */
#ifndef COMPRESS_CHANCE_H
#define COMPRESS_CHANCE_H

#include <stdint.h>

static inline uint64_t chance_mix(uint64_t x) {
    x += 0x9e3779b97f4a7c15u;
    x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9u;
    x = (x ^ x >> 27) * 0x94d049bb133111ebu;
    return x ^ x >> 31;
}

/* Of one item in one epoch. */
static inline uint64_t chance_key(uint64_t seed, uint64_t epoch, uint64_t item) {
    return chance_mix(chance_mix(seed * 1000003u + epoch) ^ item);
}

/* The number at `place`: [0, 1), [low, high), 0 .. n-1. */
static inline double chance_unit(uint64_t key, uint64_t place) {
    return (double)(chance_mix(key ^ chance_mix(place)) >> 11) * 0x1p-53;
}

static inline double chance_between(uint64_t key, uint64_t place, double low, double high) {
    return low + (high - low) * chance_unit(key, place);
}

static inline uint64_t chance_below(uint64_t key, uint64_t place, uint64_t n) {
    return (uint64_t)((__extension__(unsigned __int128) chance_mix(key ^ chance_mix(place)) * n) >> 64);
}

#endif
