/* int8 arithmetic every kernel shares, so that all processors give the same bytes (methods.md, The file):
 *
 *     code = clamp(round_half_even(float(sum) * scale)) + zero        sum: exact int32
 *
 * where scale = s_x * s_w / s_y, multiplied and divided in float in that order, as ONNX Runtime does, and the
 * clamp is to the type's range and the activation's, less the zero point. Activations are u8 (pass_qdq),
 * weights s8, or s9 in two bytes when a file's weights are unsigned. */
#ifndef ENGINE_KERNEL_S8_H
#define ENGINE_KERNEL_S8_H

#include "engine/kernel/ranges.h"

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

/* Bounds of a clamp: y = min(max(x, *low), *high); false: another operator. */
bool s8_clamp_bounds(const struct post *p, float *low, float *high);

/* Is input i u8 codes (quantised per tensor)? */
bool s8_is_codes(const struct vtype *t);

/* fn(s, io, part, first, end) over [0, n) in parts for the threads of io->pool. Ranges begin at multiples of
 * `step`; less than S8_PART bytes, of `bytes` in all, are not worth another thread. */
#define S8_PART ((int64_t)32 << 10)

void s8_run_ranges(const struct kernel_state *s, const struct run_io *io, range_fn *fn, int64_t n,
    int64_t step, int64_t bytes);

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
    ptrdiff_t y_row, y_pixel;       /* bytes */
    const uint8_t *w;               /* packed, blocks of isa->block channels */
    const struct s8_loader *loader; /* NULL: w holds the numbers themselves */
    const int8_t *table;            /* what the loader's codes stand for, [S8_TABLE] */
    uint8_t *panel;                 /* room for one block as numbers, where there is a loader */
    size_t w_block;                 /* bytes of a block */
    int64_t block0, block1;         /* of these */
    int64_t n_channels;             /* in all; the last block may be part */
    const int32_t *bias;            /* [blocks * block], zero point of the input folded in */
    const float *scale;             /* [blocks * block] */
    struct s8_output out;
};

/* ---- weights of few different values: codes of 1 to 7 bits and a table of what they stand for ----
 *
 * A block's numbers are cut into units of isa->unit numbers, and eight units share `bits` vectors of `unit`
 * bytes. The bits of a code lie in planes of 4, 2 and 1 bits, those that make up `bits`, the low ones first:
 *
 *     5 bits:  ┌ 4 vectors, two units each ┐┌ 1 vector, eight units ┐
 *              │ byte i: code i of unit 0, 1│  2, 3 …││ bit u of byte i: of unit u │
 *
 * so that a byte shuffle through the table gives a unit after a shift, whatever the number of bits. */

#define S8_TABLE      128 /* entries; a shorter table is repeated */
#define S8_GROUP      8   /* units */
#define S8_MAX_LOADER 7   /* bits */

struct s8_loader {
    int bits;
    bool (*has)(const struct cpu *cpu);
    /* `n_groups` groups to numbers of the isa's element */
    void (*expand)(const uint8_t *codes, const int8_t *table, size_t n_groups, uint8_t *to);
    /* The whole job, decoding in registers instead: one segment, one row of at most `max_few` pixels, where
     * the weights are read once and the time is the memory's. NULL: none. */
    void (*run_few)(const struct s8_job *j);
    int64_t max_few;
};

/* How an instruction set wants it. Packed weights: [block][seg][k / step][channel][k % step]. */
struct s8_isa {
    const char *name;
    size_t element; /* bytes of an activation in scratch and of a packed weight: 1 (u8, s8) or 2 (s16) */
    int step;       /* inputs multiplied together: 4 or 2 */
    int block;      /* channels */
    int unit;       /* weights of a loader's vector */
    const struct s8_loader *const *loaders; /* first that the processor has; NULL at the end */
    bool (*has)(const struct cpu *cpu);
    void (*run)(const struct s8_job *j);
};

extern const struct s8_isa s8_isa_avx512vnni, s8_isa_avx2, s8_isa_plain;
extern const struct s8_loader *const s8_loaders_avx512vnni[], *const s8_loaders_avx2[],
                                                                  *const s8_loaders_plain[];

static inline size_t s8_div_up(size_t a, size_t b) {
    return (a + b - 1) / b;
}

/* Block `b` as numbers, `n_units` of them: where it lies, or expanded into the panel. */
static inline const uint8_t *s8_block(const struct s8_job *j, int64_t b, size_t n_units) {
    const uint8_t *w = j->w + (size_t)b * j->w_block;

    if (!j->loader)
        return w;
    j->loader->expand(w, j->table, s8_div_up(n_units, S8_GROUP), j->panel);
    return j->panel;
}

static inline bool s8_is_few(const struct s8_job *j) {
    return j->loader && j->loader->run_few && j->n_seg == 1 && j->n_rows == 1 &&
           j->n_pixels <= j->loader->max_few;
}

#endif
