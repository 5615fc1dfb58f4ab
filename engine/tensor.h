/* Types, shapes and tensor views.
 *
 * Shapes are always written in ONNX order (N C H W, weights O I kH kW), whatever the memory layout is: a
 * layout says how the elements of that logical shape lie in memory. A tensor is a view and owns nothing. */
#ifndef ENGINE_TENSOR_H
#define ENGINE_TENSOR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

/* The numbers are TensorProto.DataType's. */
enum dtype {
    DT_NONE = 0,
    DT_F32 = 1,
    DT_U8 = 2,
    DT_S8 = 3,
    DT_U16 = 4,
    DT_S16 = 5,
    DT_S32 = 6,
    DT_S64 = 7,
    DT_STRING = 8,
    DT_BOOL = 9,
    DT_F16 = 10,
    DT_F64 = 11,
    DT_U32 = 12,
    DT_U64 = 13,
    DT_BF16 = 16,
    DT_U4 = 21,
    DT_S4 = 22,
    DT_U2 = 25,
    DT_S2 = 26,
};

struct dtype_info {
    enum dtype dtype;
    const char *name; /* as ONNX writes it: "float", "uint8" */
    const char *v2;   /* as the inference protocol writes it: "FP32"; NULL: not in the protocol */
    unsigned bits;    /* an element's; sub-byte types are packed two or four a byte, low bits first */
    bool is_float, is_signed;
};

/* NULL: not a type the engine can hold (strings included). */
const struct dtype_info *dtype_info(enum dtype t);
const struct dtype_info *dtype_by_v2(const char *v2);

#define SHAPE_MAX_RANK 8

struct shape {
    int rank;
    int64_t dim[SHAPE_MAX_RANK]; /* -1: free; only in the declared shape of a value, never in a plan */
};

bool shape_equal(const struct shape *a, const struct shape *b);

/* No value of a plan is larger: sums and products of a few sizes then fit int64. */
#define SHAPE_MAX_COUNT ((int64_t)1 << 31)

/* Number of elements; false on overflow of int64 or a free dimension. A scalar has one. The dimensions beside
 * a 0 are held to SHAPE_MAX_COUNT: an operator may walk them though there is nothing in them. */
bool shape_count(const struct shape *s, int64_t *ret);

/* Bytes of a dense tensor, sub-byte types rounded up; false on overflow. */
bool shape_bytes(const struct shape *s, enum dtype t, size_t *ret);

/* "[1,3,224,224]", "?" for a free dimension; returns `buf`. */
#define SHAPE_TEXT_MAX 192
const char *shape_text(const struct shape *s, char buf[static SHAPE_TEXT_MAX]);

/* How a logical N C spatial… shape lies in memory. Tensors of rank < 3 know PLAIN only. */
enum layout {
    LAYOUT_PLAIN,   /* row-major in ONNX order: NCHW, OIHW, anything */
    LAYOUT_NHWC,    /* channels last */
    LAYOUT_nChw16c, /* blocks of 16 channels, zero-padded */
    LAYOUT_BITS,    /* channels last, one bit a value */
    LAYOUT_COUNT,
};

const char *layout_name(enum layout l);

struct tensor {
    enum dtype dtype;
    struct shape shape;
    enum layout layout;
    void *data; /* NULL: value not known (shape inference). Initialisers point into the mapped file: const and
                   unaligned */
};

/* A plain view of bytes that must not be written (the mapped file). */
struct tensor tensor_view(enum dtype t, const struct shape *shape, const void *data);

#endif
