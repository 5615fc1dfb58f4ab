/* What the rows of the weight tables share; private to weight*.c and pass_weights.c. */
#ifndef ENGINE_WEIGHT_ROWS_H
#define ENGINE_WEIGHT_ROWS_H

#include "engine/weight.h"

extern const struct weight_structure weight_structure_dense, weight_structure_sparse, weight_structure_block,
    weight_structure_nm;
extern const struct weight_code weight_code_f32, weight_code_f16, weight_code_bf16, weight_code_s8,
    weight_code_u8, weight_code_s4, weight_code_bit, weight_code_trit, weight_code_product;
extern const struct weight_code weight_code_lut1, weight_code_lut2, weight_code_lut3, weight_code_lut4,
    weight_code_lut5, weight_code_lut6, weight_code_lut7, weight_code_lut8, weight_code_books,
    weight_code_residual;
extern const struct weight_scales weight_scales_layer, weight_scales_channel, weight_scales_group;

/* Fills axis, rows, cols, transposed from w->shape; -EINVAL: no such axis, free dimension or overflow. */
int weight_set_rows(struct weight *w, int axis);

/* Products of the dimensions before and behind the axis: element = (o * rows + row) * inner + i. */
void weight_strides(const struct weight *w, int64_t *ret_outer, int64_t *ret_inner);

/* ---- reading codes ---- */

/* Elements first … first + n - 1 of a tensor of integers of up to 64 bits, `bits` each (0: the type's own),
 * low bits first where several share a byte. */
void weight_read(const struct tensor *t, unsigned bits, int64_t first, int64_t n, int64_t *ret);

/* As many are read at a time. */
#define WEIGHT_CHUNK 4096

/* Words of a book, and elements that a word has. */
int64_t weight_count_words(const struct weight *w);
int64_t weight_word_size(const struct weight *w);

/* What a code of an index can be: an integer, no bool. */
bool weight_is_index_type(enum dtype t);

/* Stages whose sum a residual form is: the first is the form itself. */
#define WEIGHT_MAX_STAGES 8

bool weight_codes_are_integers(const struct weight *w);

/* One stored element to its place, both arrays of elements of `size` bytes (2 or 4). */
static inline void weight_put(void *ret, int64_t at, const void *stored, int64_t i, size_t size) {
    if (size == sizeof(int16_t))
        ((int16_t *)ret)[at] = ((const int16_t *)stored)[i];
    else
        ((float *)ret)[at] = ((const float *)stored)[i];
}

/* ---- patterns in a graph ---- */

/* The node that makes value v, if it is one of the ONNX operators `op_type` with one output; NULL: not. */
const struct node *weight_producer(const struct graph *g, int v, const char *op_type);

/* The constant behind input i of a node; NULL: none, or computed. */
const struct tensor *weight_input(const struct graph *g, const struct node *n, int i);

/* A Reshape with a constant target: its input, and the shape (one -1 is resolved from `count` elements;
 * false where that is not possible). -1: no such node. */
int weight_match_reshape(const struct graph *g, int v, struct shape *ret);

/* Takes a -1 out of a shape of `count` elements; false: there is none that fits. */
bool weight_resolve(struct shape *s, int64_t count);

/* Cast of a constant, or the constant itself: its value id, or -1. `to`: the type it becomes (DT_NONE: as it
 * is). */
int weight_match_cast(const struct graph *g, int v, enum dtype *ret_to);

/* Nothing but bytes that are zero. */
bool weight_is_zeros(const struct tensor *t);

/* Zeros of any shape: ConstantOfShape, or an initialiser. */
bool weight_match_zeros(const struct graph *g, int v, struct shape *ret);

/* Where a pattern's nodes are written. All return ids or negative errno. */
struct weight_writer {
    struct graph *g;
    size_t before; /* moves on with each node */
    const char *name;
};

int weight_write_init(struct weight_writer *to, const char *suffix, const struct tensor *t);
int weight_write_ints(struct weight_writer *to, const char *suffix, const int64_t *v, int n);
/* One node of `n_in` inputs; returns the id of its output. The node is the last before to->before. */
int weight_write_node(struct weight_writer *to, const char *op_type, const char *suffix, const int *in,
    int n_in, enum dtype dtype, const struct shape *shape);
/* An attribute of the node just written; 0 or -ENOMEM. */
int weight_write_attr(struct weight_writer *to, const char *name, int64_t v);
int weight_write_attr_ints(struct weight_writer *to, const char *name, const int64_t *v, size_t n);
int weight_write_cast(
    struct weight_writer *to, const char *suffix, int value, enum dtype t, const struct shape *s);
int weight_write_reshape(
    struct weight_writer *to, const char *suffix, int value, enum dtype t, const struct shape *s);
int weight_write_zeros(struct weight_writer *to, const char *suffix, enum dtype t, const struct shape *s);

/* Looked-up integers packed in bytes: table [256][8 / bits] of what a byte stands for. */
int weight_write_unpack(struct weight_writer *to, const char *suffix, const struct tensor *codes,
    unsigned bits, const struct tensor *book, const struct shape *shape);
/* Is `table` that table? Then the first 2^bits words of its book are at column 0. */
bool weight_is_unpack_table(const struct tensor *table, unsigned *ret_bits);

#endif
