/* Products of signs. With a bit a sign, a sum of K products is
 *
 *     S = K - 2 popcount(x ^ w)
 *
 * Words are counted two at a time. `ones` holds the parity of each bit's count so far; with
 *
 *     p = ones ^ x0 ^ w0,  q = p ^ x1 ^ w1
 *
 * the parity fell from 1 to 0 on the way ones, p, q where p ? ~q : ones, and each fall stands for two: it
 * alone is counted, and what `ones` holds at the end. That is five operations of three operands for two words
 * in place of six; counting the falls once more by parity would cost as much as it saves.
 *
 * Padding of a convolution is 0, which a bit cannot say: taps on padding are left out. Windows whose taps lie
 * in the picture alike are neighbours, so rows and columns are cut into runs of them, and each pair of runs
 * has a list of the words its windows count. */
#ifndef ENGINE_KERNEL_XNOR_H
#define ENGINE_KERNEL_XNOR_H

#include "engine/kernel/kernel.h"

#define XNOR_BLOCK 16 /* output channels counted together, in two vectors (xnor_lane) */
#define XNOR_TILE  5  /* pixels that share weights in registers */

struct xnor_output {
    const float *scale, *bias; /* [padded] */
    /* floats: y = clamp2(clamp(S * scale + bias) + residual) */
    float low, high, low2, high2;
    bool has_residual;
    /* bits: (S ^ flip) - flip >= limit */
    bool is_bits;
    const int32_t *limit, *flip; /* [padded], flip 0 or -1 */
};

/* A word that is counted: behind the window's first, and in its block of weights. */
struct xnor_word {
    int32_t x, w;
};

/* Neighbouring windows along an axis. */
struct xnor_run {
    int64_t first, n;
    int64_t x; /* words from the picture's begin to the first word of the first window */
};

/* What windows of a pair of runs count. */
struct xnor_window {
    const struct xnor_word *word;
    int32_t n_words, products;
};

/* One image, some blocks of channels. */
struct xnor_job {
    const uint64_t *x;
    int64_t row, pixel; /* words between neighbouring windows */
    const struct xnor_run *rows, *cols;
    int n_rows, n_cols;                /* runs */
    const struct xnor_window *windows; /* [n_rows][n_cols] */
    int64_t n_pixels;                  /* of an output row */
    const uint64_t *w;                 /* [block][word][XNOR_BLOCK] */
    int64_t w_block;                   /* words */
    int64_t block0, block1, n_channels;
    const float *residual; /* as y */
    void *y;               /* floats [row][pixel][channel], or words of bits */
    int64_t y_pixel;       /* bytes */
    struct xnor_output out;
};

/* Where channel c lies in its block: even ones in one vector of words, odd ones in another, so that counts of
 * both side by side are in the channels' order. */
static inline int64_t xnor_lane(int64_t c) {
    return c % 2 * (XNOR_BLOCK / 2) + c % XNOR_BLOCK / 2;
}

struct xnor_isa {
    bool (*has)(const struct cpu *cpu);
    void (*run)(const struct xnor_job *j);
};

extern const struct xnor_isa xnor_isa_avx512vpopcntdq, xnor_isa_avx2, xnor_isa_plain;

#endif
