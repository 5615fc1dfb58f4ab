/* What the elementwise operators of two operands do with one pair of elements. */
#ifndef ENGINE_OPS_BINARY_FN_H
#define ENGINE_OPS_BINARY_FN_H

#include "engine/graph.h"

enum binary_types {
    TYPES_NUMBER, /* floats and integers */
    TYPES_ANY,    /* and bool */
    TYPES_FLOAT,  /* floats only */
    TYPES_BOOL,   /* bool only */
    TYPES_INT,    /* integers only */
    TYPES_UINT,   /* unsigned integers only */
};

struct binary_fn {
    const char *name;
    double (*f)(double a, double b);      /* floats; narrower ones are rounded once more, which for the four
                                             operations gives what the narrow operation gives */
    int64_t (*i)(int64_t a, int64_t b);   /* integers of up to 63 bits and int64 */
    int64_t (*u)(uint64_t a, uint64_t b); /* uint64 where it differs from int64; NULL: as `i` */
    enum binary_types types;
    bool gives_bool;
    bool by_channel; /* the second operand is a vector along dimension 1: PRelu before opset 7 */
};

/* NULL: no such operator. `name` is the operator's, or "Mod" and "BitShift" with their attribute behind it:
 * "Mod fmod", "BitShift LEFT", "BitShift RIGHT"; "PRelu 1" before opset 7. */
const struct binary_fn *binary_fn_find(const char *name);

static inline const struct binary_fn *binary_fn_of(const struct node *n) {
    return n->param;
}

/* The second operand's shape as one that broadcasts from the end: a slope a channel gets dimensions behind
 * it.
 */
struct shape binary_second_shape(const struct node *n, const struct shape *a, const struct shape *b);

/* The two that the reference runs as vector loops. */
double binary_fn_add(double a, double b);
double binary_fn_mul(double a, double b);

#endif
