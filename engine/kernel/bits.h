/* LAYOUT_BITS: values that are all +1 or -1, channels last, a bit each (1: +1), a pixel's channels in whole
 * 64-bit words, the first channel in the lowest bit and zeros behind the last. */
#ifndef ENGINE_KERNEL_BITS_H
#define ENGINE_KERNEL_BITS_H

#include "engine/kernel/kernel.h"

/* Words of a pixel. */
static inline int64_t bits_words(int64_t channels) {
    return (channels + 63) / 64;
}

/* Floats whose channels lie together in runs of 16: channels last, or nChw16c. */
struct bits_source {
    const float *x;
    int64_t pixel, run; /* floats between pixels, and between runs of 16 channels */
};

/* Bits of `n_pixels` pixels of `c` channels: is x, its sign flipped, at or above the limit? `flip` and
 * `limit` have (c + 15) / 16 * 16 entries. */
typedef void bits_pack_fn(const struct bits_source *s, int64_t n_pixels, int64_t c, const uint32_t *flip,
    const float *limit, uint64_t *y);

bits_pack_fn *bits_pack_for(const struct cpu *cpu);

/* The source of image `n` in `l` (LAYOUT_NHWC or LAYOUT_nChw16c). */
struct bits_source bits_source_of(const float *x, enum layout l, int64_t n, int64_t c, int64_t pixels);

#endif
