/* Sparse layers: convolution and fully connected layers most of whose weights are zero.
 *
 * A panel is a run of output pixels. Its input is gathered into scratch with the channels outside, the pixels
 * inside, border and stride resolved; a weight that is not zero then costs one broadcast and a product with
 * consecutive pixels in registers, wherever it stands. Images stay NHWC: the gathering transposes tiles on
 * the way in, the storing on the way out, with bias, posts or requantisation done in between.
 *
 *     NHWC pixels ──gather──> panel[k][pixel] ──multiply──> sums[output][pixel] ──store──> NHWC pixels
 *                             k = (tap, dword)
 *
 * Everything moves in dwords: one float, or the codes of four neighbouring channels. So the same tiles serve
 * floats with single weights and int8 with blocks of 1 output x 4 inputs.
 *
 * k is cut into slices of 16 dwords of one tap, 8 slices are a chunk: 64 pixels of it stay in the first-level
 * cache while the outputs of a block go over it, and an index within it is a byte. */
#ifndef ENGINE_KERNEL_SPARSE_H
#define ENGINE_KERNEL_SPARSE_H

#include "engine/kernel/s8.h"

#define SPARSE_SLICE      16
#define SPARSE_CHUNK      8
#define SPARSE_STEP       2  /* nonzeros of a row in a chunk are a multiple of it */
#define SPARSE_OUTPUTS    64 /* of a block */
#define SPARSE_MAX_VECS   8  /* vectors of pixels in a panel */
#define SPARSE_MAX_PIXELS (16 * SPARSE_MAX_VECS)

/* ---- packed weights ---- */

/* An output's nonzeros in a chunk. Those of equal count follow each other: their loops end predictably. */
struct sparse_row {
    uint8_t output, count; /* output: in its block */
};

/* Where the rows and the nonzeros of a block's chunk begin; they end where the next begins. */
struct sparse_span {
    uint32_t row, nonzero;
};

/* Blocks of 64 outputs, group after group. */
struct sparse_weights {
    int64_t n_blocks, n_chunks;     /* of a group */
    const struct sparse_span *span; /* [groups * n_blocks * n_chunks + 1] */
    const struct sparse_row *row;
    const uint32_t *value; /* a float, or four codes */
    const uint8_t *at;     /* k in its chunk */
    const uint32_t
        *bias;          /* [groups * n_blocks * 64]: floats, or int32 with the input's zero point folded in */
    const float *scale; /* the same; int8 only */
};

/* ---- what an instruction set does ---- */

struct sparse_gather {
    const uint8_t *const *pixel; /* n_vecs vectors of them, each with n_dwords of one tap */
    int64_t n_dwords;
    int n_vecs;
    uint32_t *panel; /* [n_dwords, rounded up to slices][pixel] */
};

struct sparse_multiply {
    const struct sparse_row *row, *row_end;
    const uint32_t *value;
    const uint8_t *at;
    const uint32_t *panel; /* of the chunk */
    uint32_t *sums;        /* [output][pixel] */
    const uint32_t *bias;  /* of the block, in its first chunk; NULL: add to what is there */
    int n_vecs;
};

enum sparse_post_kind {
    SPARSE_POST_ADD,
    SPARSE_POST_RELU, /* alpha: slope below 0 */
    SPARSE_POST_CLIP,
    SPARSE_POST_HARD_SIGMOID,
    SPARSE_POST_HARD_SWISH,
    SPARSE_POST_FORWARD, /* the operator's own, a tile at a time */
};

struct sparse_post {
    enum sparse_post_kind kind;
    float alpha, beta;
    const struct post *post; /* FORWARD */
    int residual;            /* ADD: of run_io.post_in; -1: lies in the output */
};

struct sparse_store {
    uint32_t *sums; /* [64 outputs][pixel], may be overwritten */
    int n_vecs, n_pixels;
    int n_outputs; /* of the block that exist */
    uint8_t *y;    /* the tensor */
    size_t at;     /* the panel's first pixel and the block's first channel in it, bytes */
    size_t y_pixel;
    const void *const *residual;
    int n_posts;
    const struct sparse_post *post;
    const float *scale; /* of the block */
    const struct s8_output *out;
};

struct sparse_isa {
    const char *name;
    int lanes;
    bool (*has)(const struct cpu *cpu);
    void (*gather)(const struct sparse_gather *g);
    void (*multiply_f32)(const struct sparse_multiply *m);
    void (*multiply_s8)(const struct sparse_multiply *m);
    void (*store_f32)(const struct sparse_store *s);
    void (*store_s8)(const struct sparse_store *s); /* codes, or floats */
};

extern const struct sparse_isa sparse_isa_avx512, sparse_isa_avx2, sparse_isa_plain;

/* x[n] = op(x[n]) by the operator's forward; n at most 256, x aligned to 64 bytes. */
void sparse_post_forward(const struct post *p, float *x, int n);

#endif
