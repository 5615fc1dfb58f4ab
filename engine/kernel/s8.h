/* int8 arithmetic every kernel shares, so that all processors give the same bytes (methods.md, The file):
 *
 *     code = clamp(round_half_even(float(sum) * scale)) + zero        sum: exact int32
 *
 * where scale = s_x * s_w / s_y, multiplied and divided in float in that order, as ONNX Runtime does, and the
 * clamp is to the type's range and the activation's, less the zero point. Activations are u8 (pass_qdq),
 * weights s8, or s9 in two bytes when a file's weights are unsigned. */
#ifndef ENGINE_KERNEL_S8_H
#define ENGINE_KERNEL_S8_H

#include "engine/kernel/kernel.h"

/* What a kernel does with its result: codes, or floats when the output is not quantised. */
struct s8_output {
    bool is_float;
    int32_t zero;
    float low, high; /* codes: bounds less the zero point; floats: bounds of the number itself */
    uint8_t low_code, high_code;
    bool is_tame; /* no scaled sum leaves int32: set where all scales are known to be at most 1 */
};

/* False: a post is not a clamp, or the output is neither u8 codes nor f32. */
bool s8_output_init(const struct layer *l, struct s8_output *ret);

/* Is input i u8 codes (quantised per tensor)? */
bool s8_is_codes(const struct vtype *t);

/* v is within ±2^22: the sum has no bits behind the point left, rounded half to even. */
static inline int32_t s8_round(float v) {
    return (int32_t)((v + 12582912.0f) - 12582912.0f);
}

static inline float s8_clamp(float v, const struct s8_output *o) {
    v = v > o->low ? v : o->low;
    return v < o->high ? v : o->high;
}

static inline uint8_t s8_encode(float v, const struct s8_output *o) {
    return (uint8_t)(s8_round(s8_clamp(v, o)) + o->zero);
}

/* ---- matrix product at the centre of convolution and fully connected layers ---- */

/* One block of work: rows of pixels, each with the same number of equally spaced pixels; a pixel's K inputs
 * lie in `n_seg` pieces of `seg_len` elements (a multiple of 4) at offsets from the pixel.
 *
 *     y[row][pixel][oc] = out(bias[oc] + sum over seg, k of a[row][pixel][seg][k] * w[oc][seg][k])  */
struct s8_job {
    const uint8_t *a;
    ptrdiff_t a_row, a_pixel; /* bytes */
    const int32_t *seg;       /* bytes */
    int n_seg, seg_len;
    int64_t n_rows, n_pixels;
    uint8_t *y;
    ptrdiff_t y_row, y_pixel; /* bytes */
    const uint8_t *w;         /* packed, blocks of isa->block channels */
    size_t w_block;           /* bytes of a block */
    int64_t block0, block1;   /* of these */
    int64_t n_channels;       /* in all; the last block may be part */
    const int32_t *bias;      /* [blocks * block], zero point of the input folded in */
    const float *scale;       /* [blocks * block] */
    struct s8_output out;
};

/* How an instruction set wants it. Packed weights: [block][seg][k / step][channel][k % step]. */
struct s8_isa {
    const char *name;
    size_t element; /* bytes of an activation in scratch and of a packed weight: 1 (u8, s8) or 2 (s16) */
    int step;       /* inputs multiplied together: 4 or 2 */
    int block;      /* channels */
    bool (*has)(const struct cpu *cpu);
    void (*run)(const struct s8_job *j);
};

extern const struct s8_isa s8_isa_avx512vnni, s8_isa_avx2, s8_isa_plain;

#endif
