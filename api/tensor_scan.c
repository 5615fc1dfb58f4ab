/* Scanning: the text of a data array to numbers.
 *
 * Float method: up to 19 digits in a u64, scaled by one or two exact powers of ten in double. The double is
 * then within 2 ulp of the true value, so its rounding to float is right unless its low 29 bits lie within 8
 * of the float midpoint, or the result is subnormal or overflows: those go to strtof. */
#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "api/tensor_json.h"

/* ---- numbers ---- */

static const double powers[] = {1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13,
    1e14, 1e15, 1e16, 1e17, 1e18, 1e19, 1e20, 1e21, 1e22};

struct decimal {
    uint64_t digits;
    int exponent; /* value = digits * 10^exponent */
    bool is_negative, is_integer, is_cut;
};

static inline bool is_digit(char c) {
    return c >= '0' && c <= '9';
}

/* Up to eight digits at p as a number; returns how many, *kept: how many of them follow leading zeros. Which
 * bytes are no digits: those whose high bit a sum sets (none carries into the next). The digits, as 0 to 9,
 * move to the upper bytes, so that zeros lead; then three multiplications sum neighbours: ab cd ef gh -> abcd
 * efgh -> abcdefgh. */
static inline unsigned some_digits(const char *p, unsigned *kept, uint64_t *ret) {
    uint64_t v, others;
    unsigned n = 8;

    memcpy(&v, p, sizeof(v));
    v ^= 0x3030303030303030;
    others = (((v & 0x7f7f7f7f7f7f7f7f) + 0x7676767676767676) | v) & 0x8080808080808080;
    if (others) {
        n = (unsigned)__builtin_ctzll(others) / 8;
        v = n ? v << (64 - 8 * n) : 0;
    }
    *kept = v ? 8 - (unsigned)__builtin_ctzll(v) / 8 : 0;
    v = v * 10 + (v >> 8);
    *ret = ((v & 0x000000ff000000ff) * 0x000f424000000064 +
               ((v >> 16) & 0x000000ff000000ff) * 0x0000271000000001) >>
           32;
    return n;
}

/* Up to 19 digits are kept; the others only move the exponent. `step`: by how much one that is kept does. */
static inline __attribute__((always_inline)) const char *take_digits(
    const char *p, const char *end, struct decimal *d, unsigned *kept, int step) {
    static const uint64_t tens[] = {1, 10, 100, 1000, 10000, 100000, 1000000, 10000000, 100000000};

    while (*kept <= 11 && end - p >= 8) {
        uint64_t some;
        unsigned after_zeros, n = some_digits(p, &after_zeros, &some);

        *kept += d->digits ? n : after_zeros;
        d->digits = d->digits * tens[n] + some;
        d->exponent += (int)n * step;
        p += n;
        if (n < 8)
            return p;
    }
    for (; is_digit(*p); p++) {
        if (*kept < 19) {
            d->digits = d->digits * 10 + (uint64_t)(*p - '0');
            *kept += d->digits != 0;
            d->exponent += step;
        } else {
            d->is_cut |= *p != '0';
            d->exponent += step + 1;
        }
    }
    return p;
}

static const char *take_exponent(const char *p, struct decimal *d) {
    bool is_minus = *p == '-';
    int e = 0;

    p += *p == '-' || *p == '+';
    if (!is_digit(*p))
        return NULL;
    for (; is_digit(*p); p++)
        e = e < 100000 ? e * 10 + (*p - '0') : e;
    d->exponent += is_minus ? -e : e;
    return p;
}

/* A JSON number (RFC 8259, 6) at p, which a ']' follows at some distance: no bound is needed. NULL: none. */
static inline __attribute__((always_inline)) const char *take_decimal(
    const char *p, const char *end, struct decimal *d) {
    unsigned kept = 0;

    *d = (struct decimal){.is_integer = true};
    d->is_negative = *p == '-'; /* half of many inputs: no branch */
    p += d->is_negative;
    if (!is_digit(*p) || (*p == '0' && is_digit(p[1])))
        return NULL;
    if (is_digit(p[1])) {
        p = take_digits(p, end, d, &kept, 0);
    } else { /* as nearly all numbers begin */
        d->digits = (uint64_t)(*p++ - '0');
        kept = d->digits != 0;
    }
    if (*p == '.') {
        d->is_integer = false;
        if (!is_digit(p[1]))
            return NULL;
        p = take_digits(p + 1, end, d, &kept, -1);
    }
    if (*p == 'e' || *p == 'E') {
        d->is_integer = false;
        p = take_exponent(p + 1, d);
    }
    return p;
}

/* Within 2 ulp; exponents beyond +-44 are the caller's. */
static inline double scale(uint64_t digits, int exponent) {
    double v = (double)digits;

    if (exponent < -22)
        return v / 1e22 / powers[-22 - exponent];
    if (exponent < 0)
        return v / powers[-exponent];
    return exponent > 22 ? v * 1e22 * powers[exponent - 22] : v * powers[exponent];
}

enum scan_result { SCAN_OK, SCAN_GRAMMAR, SCAN_RANGE, SCAN_NOT_INTEGER };

static enum scan_result slow_float(const char *text, float *ret) {
    float f = strtof(text, NULL);

    *ret = f;
    return isinf(f) ? SCAN_RANGE : SCAN_OK;
}

static inline const char *scan_f32(
    const char *p, const char *end, void *ret, size_t i, enum scan_result *why) {
    struct decimal d;
    const char *next = take_decimal(p, end, &d);
    float *out = (float *)ret + i;
    uint64_t bits;
    double v;

    if (!next) {
        *why = SCAN_GRAMMAR;
        return NULL;
    }
    if (!d.digits) {
        *out = d.is_negative ? -0.0f : 0.0f;
        return next;
    }
    if (d.exponent < -44 || d.exponent > 44) {
        *why = slow_float(p, out);
        return *why == SCAN_OK ? next : NULL;
    }
    v = scale(d.digits, d.exponent);
    memcpy(&bits, &v, sizeof(bits));
    /* 29 bits of the double are cut off; the midpoint is their highest alone */
    if (((bits & 0x1fffffff) - (0x10000000 - 8)) <= 16 || v < 0x1p-126 || v > 0x1.fffffdp127) {
        *why = slow_float(p, out);
        return *why == SCAN_OK ? next : NULL;
    }
    *out = (float)(d.is_negative ? -v : v);
    return next;
}

static inline const char *scan_f64(
    const char *p, const char *end, void *ret, size_t i, enum scan_result *why) {
    struct decimal d;
    const char *next = take_decimal(p, end, &d);
    double v;

    if (!next) {
        *why = SCAN_GRAMMAR;
        return NULL;
    }
    if (d.digits < (1ull << 53) && d.exponent >= -22 && d.exponent <= 22) {
        /* exact times exact: rounded once */
        v = scale(d.digits, d.exponent);
        v = d.is_negative ? -v : v;
    } else {
        v = strtod(p, NULL);
    }
    if (isinf(v)) {
        *why = SCAN_RANGE;
        return NULL;
    }
    ((double *)ret)[i] = v;
    return next;
}

/* An integer of at most `max` above and `min` below zero (as magnitudes). */
static inline const char *scan_integer(
    const char *p, uint64_t min, uint64_t max, uint64_t *ret, enum scan_result *why) {
    bool is_negative = *p == '-';
    const char *digits = p + is_negative;
    uint64_t v = 0;

    *why = SCAN_GRAMMAR;
    if (!is_digit(*digits) || (*digits == '0' && is_digit(digits[1])))
        return NULL;
    for (p = digits; is_digit(*p); p++)
        if (__builtin_mul_overflow(v, 10, &v) || __builtin_add_overflow(v, (uint64_t)(*p - '0'), &v))
            v = UINT64_MAX, *why = SCAN_RANGE;
    if (*p == '.' || *p == 'e' || *p == 'E')
        *why = SCAN_NOT_INTEGER;
    else if (*why == SCAN_RANGE || v > (is_negative ? min : max))
        *why = SCAN_RANGE;
    else
        *why = SCAN_OK;
    *ret = is_negative ? 0 - v : v;
    return *why == SCAN_OK ? p : NULL;
}

#define DEFINE_SCAN_INTEGER(fn, type, below, above)                                                          \
    static inline const char *fn(                                                                            \
        const char *p, const char *end, void *ret, size_t i, enum scan_result *why) {                        \
        uint64_t v;                                                                                          \
        const char *next = scan_integer(p, below, above, &v, why);                                           \
                                                                                                             \
        (void)end;                                                                                           \
        if (next)                                                                                            \
            ((type *)ret)[i] = (type)v;                                                                      \
        return next;                                                                                         \
    }

DEFINE_SCAN_INTEGER(scan_u8, uint8_t, 0, UINT8_MAX)
DEFINE_SCAN_INTEGER(scan_u16, uint16_t, 0, UINT16_MAX)
DEFINE_SCAN_INTEGER(scan_u32, uint32_t, 0, UINT32_MAX)
DEFINE_SCAN_INTEGER(scan_u64, uint64_t, 0, UINT64_MAX)
DEFINE_SCAN_INTEGER(scan_s8, int8_t, 128, INT8_MAX)
DEFINE_SCAN_INTEGER(scan_s16, int16_t, 32768, INT16_MAX)
DEFINE_SCAN_INTEGER(scan_s32, int32_t, 1ull << 31, INT32_MAX)
DEFINE_SCAN_INTEGER(scan_s64, int64_t, 1ull << 63, INT64_MAX)

static inline const char *scan_bool(
    const char *p, const char *end, void *ret, size_t i, enum scan_result *why) {
    bool is_true = end - p > 4 && !memcmp(p, "true", 4);

    if (!is_true && (end - p <= 5 || memcmp(p, "false", 5) != 0)) {
        *why = SCAN_GRAMMAR;
        return NULL;
    }
    ((uint8_t *)ret)[i] = is_true;
    return p + (is_true ? 4 : 5);
}

/* ---- arrays ---- */

static bool is_space(char c) {
    return c == ' ' || c == '\n' || c == '\t' || c == '\r';
}

struct scanner {
    const struct shape *shape;
    size_t want;                       /* values */
    size_t n;                          /* values so far */
    int depth;                         /* of open brackets */
    int leaf;                          /* depth at which values stand; 0: none seen yet */
    int64_t count[SHAPE_MAX_RANK + 1]; /* members of the open array at each depth */
    const char *start;
};

typedef const char *scan_fn(const char *p, const char *end, void *ret, size_t i, enum scan_result *why);

static int scan_error(
    const struct scanner *s, const char *p, enum scan_result why, enum dtype dtype, struct error *err) {
    size_t at = (size_t)(p - s->start);
    const char *type = dtype_info(dtype)->v2;

    switch (why) {
    case SCAN_RANGE:
        return error_set(
            err, -EINVAL, "value %zu (byte %zu of data) is out of the range of %s", s->n, at, type);
    case SCAN_NOT_INTEGER:
        return error_set(
            err, -EINVAL, "value %zu (byte %zu of data) is not an integer, %s needs one", s->n, at, type);
    case SCAN_OK:
    case SCAN_GRAMMAR: break;
    }
    if (*p == 'N' || *p == 'I' || (*p == '-' && p[1] == 'I'))
        return error_set(err, -EINVAL,
            "value %zu (byte %zu of data) is not a number: JSON has no NaN or infinity", s->n, at);
    return error_set(err, -EINVAL, "byte %zu of data is not a %s value", at, type);
}

static int count_error(const struct scanner *s, struct error *err) {
    return error_set(err, -EINVAL, "data has %s%zu values, the shape wants %zu",
        s->n > s->want ? "at least " : "", s->n, s->want);
}

static int open_array(struct scanner *s, const char *p, struct error *err) {
    if (s->depth && s->depth == s->leaf)
        return error_set(err, -EINVAL, "byte %zu of data: an array beside values", (size_t)(p - s->start));
    if (s->depth == (s->shape->rank > 1 ? s->shape->rank : 1))
        return error_set(
            err, -EINVAL, "byte %zu of data: nested deeper than the shape", (size_t)(p - s->start));
    s->count[s->depth]++;
    s->count[++s->depth] = 0;
    return 0;
}

/* A nested array must have the shape's form at every level; a flat one only its number of values. */
static int close_array(struct scanner *s, const char *p, struct error *err) {
    int d = s->depth--;

    if (!s->leaf)
        s->leaf = d;
    if (s->leaf == 1 || s->count[d] == s->shape->dim[d - 1])
        return 0;
    return error_set(err, -EINVAL,
        "byte %zu of data: an array of %" PRId64 " where dimension %d of the shape is %" PRId64,
        (size_t)(p - s->start), s->count[d], d - 1, s->shape->dim[d - 1]);
}

static int begin_leaf(struct scanner *s, const char *p, struct error *err) {
    if (!s->leaf && (s->depth == 1 || s->depth == s->shape->rank))
        s->leaf = s->depth;
    if (s->leaf != s->depth)
        return error_set(err, -EINVAL,
            "byte %zu of data: a value at nesting %d: neither flat nor as the shape", (size_t)(p - s->start),
            s->depth);
    return 0;
}

/* Runs of "value , value , value": the loop that everything costs. Ends before a bracket. */
static inline __attribute__((always_inline)) const char *scan_run(
    struct scanner *s, const char *p, const char *end, void *ret, scan_fn *scan, enum scan_result *why) {
    int64_t *count = &s->count[s->depth];
    const char *comma;

    for (;;) {
        const char *next;

        if (s->n == s->want) { /* one too many */
            s->n++;
            return p;
        }
        next = scan(p, end, ret, s->n, why);
        if (!next) {
            if (*why == SCAN_OK)
                *why = SCAN_GRAMMAR;
            return p;
        }
        s->n++;
        ++*count;
        p = next;
        while (is_space(*p))
            p++;
        if (*p != ',')
            return p;
        comma = p;
        do
            p++;
        while (is_space(*p));
        if (*p == '[' || *p == ']')
            return comma; /* not a run's: judged by the caller */
    }
}

/* A value may start here: after '[' or ',' and inside one. */
static inline bool may_start(const struct scanner *s, bool wants_member, char c) {
    return wants_member && s->depth && c != ']';
}

/* The grammar around the runs. The span ends with the ']' of its '[', so that p cannot run over. */
static inline __attribute__((always_inline)) int scan_array(const struct tensor_span *span, struct scanner *s,
    enum dtype dtype, void *ret, scan_fn *scan, struct error *err) {
    const char *p = span->text, *end = span->text + span->size;
    bool wants_member = true; /* after '[' or ',' */
    bool is_first = true;     /* ']' may follow at once */
    int rc = 0;

    while (!rc && p < end) {
        enum scan_result why = SCAN_OK;

        if (is_space(*p)) {
            p++;
        } else if (*p == '[' && wants_member) {
            rc = open_array(s, p++, err);
            is_first = true;
        } else if (*p == ']' && s->depth && (!wants_member || is_first)) {
            rc = close_array(s, p++, err);
            wants_member = is_first = false;
        } else if (*p == ',' && !wants_member && s->depth) {
            wants_member = true;
            is_first = false;
            p++;
        } else if (may_start(s, wants_member, *p)) {
            rc = begin_leaf(s, p, err);
            if (rc)
                return rc;
            p = scan_run(s, p, end, ret, scan, &why);
            if (why != SCAN_OK)
                return scan_error(s, p, why, dtype, err);
            if (s->n > s->want)
                return count_error(s, err);
            wants_member = is_first = false;
        } else {
            return scan_error(s, p, SCAN_GRAMMAR, dtype, err);
        }
    }
    if (!rc && s->n != s->want)
        rc = count_error(s, err);
    return rc;
}

static int scan_by_type(
    const struct tensor_span *span, struct scanner *s, enum dtype dtype, void *ret, struct error *err) {
    switch ((int)dtype) {
    case DT_F32: return scan_array(span, s, dtype, ret, scan_f32, err);
    case DT_F64: return scan_array(span, s, dtype, ret, scan_f64, err);
    case DT_U8: return scan_array(span, s, dtype, ret, scan_u8, err);
    case DT_U16: return scan_array(span, s, dtype, ret, scan_u16, err);
    case DT_U32: return scan_array(span, s, dtype, ret, scan_u32, err);
    case DT_U64: return scan_array(span, s, dtype, ret, scan_u64, err);
    case DT_S8: return scan_array(span, s, dtype, ret, scan_s8, err);
    case DT_S16: return scan_array(span, s, dtype, ret, scan_s16, err);
    case DT_S32: return scan_array(span, s, dtype, ret, scan_s32, err);
    case DT_S64: return scan_array(span, s, dtype, ret, scan_s64, err);
    case DT_BOOL: return scan_array(span, s, dtype, ret, scan_bool, err);
    default: break;
    }
    return error_set(
        err, -EINVAL, "this datatype has no JSON form: send it as binary data (binary_data_size)");
}

int tensor_json_scan(const struct tensor_span *span, enum dtype dtype, const struct shape *shape, void *ret,
    struct error *err) {
    struct scanner s = {.shape = shape, .start = span->text};
    int64_t want;

    if (!shape_count(shape, &want) || want < 0)
        return error_set(err, -EINVAL, "the shape has too many values");
    s.want = (size_t)want;
    return scan_by_type(span, &s, dtype, ret, err);
}
