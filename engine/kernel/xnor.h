/* Products of signs. With a bit a sign, a sum of K products is
 *
 *     S = K - 2 popcount(x ^ w)
 *
 * Words are counted three at a time, through a full adder: its sum is counted once, its carry twice. The sum
 * of three words of x ^ w is (x0^x1^x2) ^ (w0^w1^w2), both made beforehand: one operation in place of three,
 * and x2 ^ w2 itself, which the carry needs, is what the sum and the other two leave. So packed weights keep
 * w0, w1 and w0^w1^w2, and beside the picture lies the plane of its own triple sums.
 *
 * Padding of a convolution is 0, which a bit cannot say: the picture's border has zeros in it as if it were
 * -1, and what the border's taps then count is known for each position of the window and channel (`fix`). */
#ifndef ENGINE_KERNEL_XNOR_H
#define ENGINE_KERNEL_XNOR_H

#include "engine/kernel/kernel.h"

#define XNOR_BLOCK 8 /* output channels counted together: the lanes of a vector, a byte of bits */
#define XNOR_TILE  8 /* pixels that share weights in registers */

struct xnor_output {
    const float *scale, *bias; /* [padded] */
    /* floats: y = clamp2(clamp(S * scale + bias) + residual) */
    float low, high, low2, high2;
    bool has_residual;
    /* bits: (S ^ flip) - flip >= limit */
    bool is_bits;
    const int32_t *limit, *flip; /* [padded], flip 0 or -1 */
};

/* What a window's position in the border changes: classes of rows and columns. */
struct xnor_border {
    const uint16_t *row, *col; /* [oh], [ow]: classes */
    int n_col;
    const int32_t *taken; /* [n_row * n_col]: products that are not with padding */
    const int16_t *fix;   /* [n_row * n_col][padded]: counts of the padding */
};

/* One image, some blocks of channels. */
struct xnor_job {
    const uint64_t *x;    /* the picture with its border */
    ptrdiff_t sums;       /* words from x to the plane of triple sums */
    ptrdiff_t row, pixel; /* words between neighbouring windows */
    const int32_t *seg;   /* words: pieces of a window, seg_len each */
    int n_seg, seg_len;
    int64_t n_rows, n_pixels;
    const uint64_t *w;      /* [block][seg][word][XNOR_BLOCK], of each three words w0, w1, w0^w1^w2 */
    int64_t block0, block1; /* of these */
    int64_t n_channels, padded;
    struct xnor_border border;
    const float *residual; /* as y */
    void *y;               /* floats [row][pixel][channel], or words of bits */
    int64_t y_pixel;       /* bytes */
    struct xnor_output out;
};

struct xnor_isa {
    bool (*has)(const struct cpu *cpu);
    void (*run)(const struct xnor_job *j);
    void (*add_triples)(const uint64_t *x, uint64_t *sums, int64_t n); /* sums[i] = x[i]^x[i+1]^x[i+2] */
};

extern const struct xnor_isa xnor_isa_avx512vpopcntdq, xnor_isa_avx2, xnor_isa_plain;

#endif
