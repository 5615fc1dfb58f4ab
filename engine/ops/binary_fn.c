#include "engine/ops/binary_fn.h"

#include <math.h>
#include <stddef.h>
#include <string.h>

double binary_fn_add(double a, double b) {
    return a + b;
}
static double f_sub(double a, double b) {
    return a - b;
}
double binary_fn_mul(double a, double b) {
    return a * b;
}
static double f_div(double a, double b) {
    return a / b;
}
static double f_max(double a, double b) {
    return a > b || a != a ? a : b;
}
static double f_min(double a, double b) {
    return a < b || a != a ? a : b;
}
static double f_equal(double a, double b) {
    return a == b;
}
static double f_greater(double a, double b) {
    return a > b;
}
static double f_greater_equal(double a, double b) {
    return a >= b;
}
static double f_less(double a, double b) {
    return a < b;
}
static double f_less_equal(double a, double b) {
    return a <= b;
}

/* PRelu: the second operand is the slope. */
static double f_prelu(double a, double b) {
    return a < 0 ? a * b : a;
}

/* Integers wrap as in two's complement, as NumPy's do. */
static int64_t i_add(int64_t a, int64_t b) {
    return (int64_t)((uint64_t)a + (uint64_t)b);
}
static int64_t i_sub(int64_t a, int64_t b) {
    return (int64_t)((uint64_t)a - (uint64_t)b);
}
static int64_t i_mul(int64_t a, int64_t b) {
    return (int64_t)((uint64_t)a * (uint64_t)b);
}
static int64_t i_div(int64_t a, int64_t b) {
    return b == 0 ? 0 : b == -1 ? i_sub(0, a) : a / b;
}
static int64_t u_div(uint64_t a, uint64_t b) {
    return b == 0 ? 0 : (int64_t)(a / b);
}
static int64_t i_max(int64_t a, int64_t b) {
    return a > b ? a : b;
}
static int64_t u_max(uint64_t a, uint64_t b) {
    return (int64_t)(a > b ? a : b);
}
static int64_t i_min(int64_t a, int64_t b) {
    return a < b ? a : b;
}
static int64_t u_min(uint64_t a, uint64_t b) {
    return (int64_t)(a < b ? a : b);
}
static int64_t i_prelu(int64_t a, int64_t b) {
    return a < 0 ? i_mul(a, b) : a;
}
static int64_t u_prelu(uint64_t a, uint64_t b) {
    (void)b;
    return (int64_t)a;
}
static int64_t i_equal(int64_t a, int64_t b) {
    return a == b;
}
static int64_t i_greater(int64_t a, int64_t b) {
    return a > b;
}
static int64_t u_greater(uint64_t a, uint64_t b) {
    return a > b;
}
static int64_t i_greater_equal(int64_t a, int64_t b) {
    return a >= b;
}
static int64_t u_greater_equal(uint64_t a, uint64_t b) {
    return a >= b;
}
static int64_t i_less(int64_t a, int64_t b) {
    return a < b;
}
static int64_t u_less(uint64_t a, uint64_t b) {
    return a < b;
}
static int64_t i_less_equal(int64_t a, int64_t b) {
    return a <= b;
}
static int64_t u_less_equal(uint64_t a, uint64_t b) {
    return a <= b;
}
static int64_t i_and(int64_t a, int64_t b) {
    return a & b;
}
static int64_t i_or(int64_t a, int64_t b) {
    return a | b;
}
static int64_t i_xor(int64_t a, int64_t b) {
    return a ^ b;
}

/* The divisor's sign, as Python's %; the remainder of nothing is 0. */
static int64_t i_mod(int64_t a, int64_t b) {
    int64_t r = b == 0 || b == -1 ? 0 : a % b;

    return r != 0 && (r < 0) != (b < 0) ? r + b : r;
}
static int64_t u_mod(uint64_t a, uint64_t b) {
    return b == 0 ? 0 : (int64_t)(a % b);
}
static double f_mod(double a, double b) {
    double r = fmod(a, b);

    return r != 0 && (r < 0) != (b < 0) ? r + b : r;
}
/* The dividend's sign, as C's %. */
static int64_t i_fmod(int64_t a, int64_t b) {
    return b == 0 || b == -1 ? 0 : a % b;
}

/* Shifted out altogether: 0. Narrow types lose their high bits when stored. */
static int64_t u_left(uint64_t a, uint64_t b) {
    return b < 64 ? (int64_t)(a << b) : 0;
}
static int64_t u_right(uint64_t a, uint64_t b) {
    return b < 64 ? (int64_t)(a >> b) : 0;
}
static int64_t i_left(int64_t a, int64_t b) {
    return u_left((uint64_t)a, (uint64_t)b);
}
static int64_t i_right(int64_t a, int64_t b) {
    return u_right((uint64_t)a, (uint64_t)b);
}

/* By squaring, wrapping; a negative exponent leaves 0 of all but 1 and -1. */
static int64_t i_pow(int64_t a, int64_t b) {
    int64_t y = 1;

    if (b < 0)
        return a == 1 ? 1 : a == -1 ? (b % 2 ? -1 : 1) : 0;
    for (; b; b >>= 1, a = i_mul(a, a))
        if (b & 1)
            y = i_mul(y, a);
    return y;
}

static const struct binary_fn functions[] = {
    {"Add", binary_fn_add, i_add, NULL, TYPES_NUMBER, false, false},
    {"And", NULL, i_and, NULL, TYPES_BOOL, true, false},
    {"BitShift LEFT", NULL, i_left, u_left, TYPES_UINT, false, false},
    {"BitShift RIGHT", NULL, i_right, u_right, TYPES_UINT, false, false},
    {"BitwiseAnd", NULL, i_and, NULL, TYPES_INT, false, false},
    {"BitwiseOr", NULL, i_or, NULL, TYPES_INT, false, false},
    {"BitwiseXor", NULL, i_xor, NULL, TYPES_INT, false, false},
    {"Div", f_div, i_div, u_div, TYPES_NUMBER, false, false},
    {"Equal", f_equal, i_equal, NULL, TYPES_ANY, true, false},
    {"Greater", f_greater, i_greater, u_greater, TYPES_NUMBER, true, false},
    {"GreaterOrEqual", f_greater_equal, i_greater_equal, u_greater_equal, TYPES_NUMBER, true, false},
    {"Less", f_less, i_less, u_less, TYPES_NUMBER, true, false},
    {"LessOrEqual", f_less_equal, i_less_equal, u_less_equal, TYPES_NUMBER, true, false},
    {"Max", f_max, i_max, u_max, TYPES_NUMBER, false, false},
    {"Mean", binary_fn_add, NULL, NULL, TYPES_FLOAT, false, false},
    {"Min", f_min, i_min, u_min, TYPES_NUMBER, false, false},
    {"Mod", f_mod, i_mod, u_mod, TYPES_NUMBER, false, false},
    {"Mod fmod", fmod, i_fmod, u_mod, TYPES_NUMBER, false, false},
    {"Mul", binary_fn_mul, i_mul, NULL, TYPES_NUMBER, false, false},
    {"Or", NULL, i_or, NULL, TYPES_BOOL, true, false},
    {"PRelu", f_prelu, i_prelu, u_prelu, TYPES_NUMBER, false, false},
    {"PRelu 1", f_prelu, i_prelu, u_prelu, TYPES_NUMBER, false, true},
    {"Pow", pow, i_pow, NULL, TYPES_NUMBER, false, false},
    {"Sub", f_sub, i_sub, NULL, TYPES_NUMBER, false, false},
    {"Sum", binary_fn_add, NULL, NULL, TYPES_FLOAT, false, false},
    {"Xor", NULL, i_xor, NULL, TYPES_BOOL, true, false},
};

const struct binary_fn *binary_fn_find(const char *name) {
    for (size_t i = 0; i < sizeof(functions) / sizeof(functions[0]); i++)
        if (!strcmp(functions[i].name, name))
            return &functions[i];
    return NULL;
}

struct shape binary_second_shape(const struct node *n, const struct shape *a, const struct shape *b) {
    struct shape s = *b;

    if (binary_fn_of(n)->by_channel && b->rank == 1 && a->rank > 1 && b->dim[0] != 1)
        for (s.rank = 1; s.rank < a->rank - 1; s.rank++)
            s.dim[s.rank] = 1;
    return s;
}
