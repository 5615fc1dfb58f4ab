#include "engine/ops/element.h"

#include <math.h>
#include <string.h>

static unsigned bits_of(enum dtype t) {
    const struct dtype_info *i = dtype_info(t);

    return i ? i->bits : 0;
}

bool element_is_known(enum dtype t) {
    return bits_of(t) != 0;
}

bool element_is_float(enum dtype t) {
    const struct dtype_info *i = dtype_info(t);

    return i && i->is_float;
}

bool element_is_half(enum dtype t) {
    return t == DT_F16 || t == DT_BF16;
}

/* Sub-byte elements lie low bits first. */
static uint64_t load_bits(const struct tensor *t, unsigned bits, int64_t i) {
    const unsigned char *data = t->data;
    uint64_t v = 0;

    if (bits < 8)
        return (uint64_t)data[(uint64_t)i * bits / 8] >> ((uint64_t)i * bits % 8) & ((1u << bits) - 1);
    memcpy(&v, data + (uint64_t)i * (bits / 8), bits / 8);
    return v;
}

static void store_bits(struct tensor *t, unsigned bits, int64_t i, uint64_t v) {
    unsigned char *data = t->data;

    if (bits < 8) {
        unsigned char *at = data + (uint64_t)i * bits / 8;
        unsigned shift = (unsigned)((uint64_t)i * bits % 8), mask = (1u << bits) - 1;

        *at = (unsigned char)((*at & ~(mask << shift)) | (((unsigned)v & mask) << shift));
        return;
    }
    memcpy(data + (uint64_t)i * (bits / 8), &v, bits / 8);
}

static float float_of(uint32_t bits) {
    float f;

    memcpy(&f, &bits, sizeof(f));
    return f;
}

static uint32_t bits_of_float(float f) {
    uint32_t bits;

    memcpy(&bits, &f, sizeof(bits));
    return bits;
}

/* IEEE 754 binary16 */
static double half_get(uint64_t h) {
    double sign = h & 0x8000 ? -1 : 1;
    int exponent = (int)(h >> 10) & 31, fraction = (int)h & 1023;

    if (exponent == 31)
        return fraction ? (double)NAN : sign * HUGE_VAL;
    return exponent ? sign * ldexp(1024 + fraction, exponent - 25) : sign * ldexp(fraction, -24);
}

static uint64_t half_bits(double v) {
    uint64_t sign = signbit(v) ? 0x8000 : 0;
    double a = fabs(v);
    int e;

    if (a != a)
        return 0x7e00;
    if (a >= 65520) /* halfway between the largest half and the next power of two */
        return sign | 0x7c00;
    if (a < 0x1p-14)
        return sign | (uint64_t)nearbyint(ldexp(a, 24));
    (void)frexp(a, &e);
    /* a rounding up to the next power carries into the exponent */
    return sign | (((uint64_t)(e + 14) << 10) + (uint64_t)nearbyint(ldexp(a, 11 - e)) - 1024);
}

static uint64_t bfloat_bits(float v) {
    uint32_t b = bits_of_float(v);

    return v != v ? 0x7fc0 : (b + 0x7fff + (b >> 16 & 1)) >> 16;
}

static double float_get(enum dtype type, uint64_t v) {
    double d;

    if (type == DT_F32)
        return (double)float_of((uint32_t)v);
    if (type == DT_F16)
        return half_get(v);
    if (type == DT_BF16)
        return (double)float_of((uint32_t)v << 16);
    memcpy(&d, &v, sizeof(d));
    return d;
}

/* As half_get, without a branch, so that loops over it become vectors: the exponent is moved from bias 15 to
 * 127 by a product with 2^-112, of numbers below 2^-14 by a difference of two floats (M. Dukhan's FP16). */
static float half_to_float(uint16_t h) {
    uint32_t sign = (uint32_t)(h & 0x8000) << 16, twice = (uint32_t)h << 17;
    float normal = float_of((twice >> 4) + 0x70000000) * 0x1p-112f,
          tiny = float_of(twice >> 17 | 0x3f000000) - 0.5f;

    return float_of(sign | bits_of_float(twice < 0x08000000 ? tiny : normal));
}

/* As half_bits: the sum with a power of two, 13 bits above the number's or 2^-14's, rounds to nearest even;
 * what is too large is pushed to infinity before. */
static uint16_t float_to_half(float f) {
    uint32_t bits = bits_of_float(f), twice = bits << 1, sign = bits >> 16 & 0x8000, top = twice & 0xff000000,
             sum;
    float base = (float_of(bits & 0x7fffffff) * 0x1p112f) * 0x1p-110f;

    top = top < 0x71000000 ? 0x71000000 : top;
    sum = bits_of_float(float_of((top >> 1) + 0x07800000) + base);
    return (uint16_t)(sign | (twice > 0xff000000 ? 0x7e00 : (sum >> 13 & 0x7c00) + (sum & 0xfff)));
}

bool element_read_floats(const struct tensor *t, int64_t first, int64_t n, float *ret) {
    const uint8_t *p = t->data; /* unaligned */
    uint16_t v;

    if (t->dtype == DT_F32)
        memcpy(ret, p + first * 4, (size_t)n * sizeof(*ret));
    for (int64_t i = 0; t->dtype == DT_F16 && i < n; i++) {
        memcpy(&v, p + 2 * (first + i), sizeof(v));
        ret[i] = half_to_float(v);
    }
    for (int64_t i = 0; t->dtype == DT_BF16 && i < n; i++) {
        memcpy(&v, p + 2 * (first + i), sizeof(v));
        ret[i] = float_of((uint32_t)v << 16);
    }
    return t->dtype == DT_F32 || element_is_half(t->dtype);
}

bool element_write_floats(struct tensor *t, int64_t first, int64_t n, const float *x) {
    uint8_t *p = t->data;
    uint16_t v;

    if (t->dtype == DT_F32)
        memcpy(p + first * 4, x, (size_t)n * sizeof(*x));
    for (int64_t i = 0; t->dtype == DT_F16 && i < n; i++) {
        v = float_to_half(x[i]);
        memcpy(p + 2 * (first + i), &v, sizeof(v));
    }
    for (int64_t i = 0; t->dtype == DT_BF16 && i < n; i++) {
        v = (uint16_t)bfloat_bits(x[i]);
        memcpy(p + 2 * (first + i), &v, sizeof(v));
    }
    return t->dtype == DT_F32 || element_is_half(t->dtype);
}

/* What C leaves undefined: saturate, NaN is 0. */
static int64_t cut(double v) {
    return v != v ? 0 : v >= 0x1p63 ? INT64_MAX : v <= -0x1p63 ? INT64_MIN : (int64_t)v;
}

int64_t element_get_int(const struct tensor *t, int64_t i) {
    const struct dtype_info *info = dtype_info(t->dtype);
    uint64_t v = load_bits(t, info->bits, i);

    if (info->is_float)
        return cut(float_get(t->dtype, v));
    if (info->is_signed && info->bits < 64 && v >> (info->bits - 1))
        v |= ~(uint64_t)0 << info->bits;
    return (int64_t)v;
}

double element_get(const struct tensor *t, int64_t i) {
    const struct dtype_info *info = dtype_info(t->dtype);

    if (info->is_float)
        return float_get(t->dtype, load_bits(t, info->bits, i));
    if (t->dtype == DT_U64)
        return (double)(uint64_t)element_get_int(t, i);
    return (double)element_get_int(t, i);
}

void element_set(struct tensor *t, int64_t i, double v) {
    uint64_t bits;

    if (t->dtype == DT_F32) {
        store_bits(t, 32, i, bits_of_float((float)v));
    } else if (t->dtype == DT_F16) {
        store_bits(t, 16, i, half_bits(v));
    } else if (t->dtype == DT_BF16) {
        store_bits(t, 16, i, bfloat_bits((float)v));
    } else if (t->dtype == DT_F64) {
        memcpy(&bits, &v, sizeof(bits));
        store_bits(t, 64, i, bits);
    } else if (t->dtype == DT_BOOL) {
        store_bits(t, 8, i, v != 0);
    } else if (t->dtype == DT_U64 && v >= 0x1p63) {
        store_bits(t, 64, i, v >= 0x1p64 ? UINT64_MAX : (uint64_t)v);
    } else {
        store_bits(t, bits_of(t->dtype), i, (uint64_t)cut(v));
    }
}

void element_set_int(struct tensor *t, int64_t i, int64_t v) {
    if (element_is_float(t->dtype))
        element_set(t, i, (double)v);
    else
        store_bits(t, bits_of(t->dtype), i, t->dtype == DT_BOOL ? v != 0 : (uint64_t)v);
}
