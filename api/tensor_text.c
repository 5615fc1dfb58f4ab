/* Numbers to text.
 *
 * Floats: 9 significant digits always read back as the same float (their error, at most 0.5e-8 relative, is
 * below half an ulp, 2.98e-8); 6, 7 or 8 do when the digits, scaled back in double, round to the same float
 * and are not near a rounding boundary, where the double's own error could decide. */
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "api/tensor_json.h"

#define NUMBER_MAX 32 /* "-1.23456789e-38," and any 64-bit integer fit */

/* 10^e for |e| <= 60, within 2 ulp */
static double power_of_ten(int e) {
    static const double powers[] = {1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13,
        1e14, 1e15, 1e16, 1e17, 1e18, 1e19, 1e20, 1e21, 1e22};
    int n = e < 0 ? -e : e;
    double p = n <= 22 ? powers[n] : n <= 44 ? 1e22 * powers[n - 22] : 1e44 * powers[n - 44];

    return e < 0 ? 1 / p : p;
}

static char *put_uint(char *p, uint64_t v) {
    char digits[20];
    int n = 0;

    do
        digits[n++] = (char)('0' + v % 10);
    while (v /= 10);
    while (n)
        *p++ = digits[--n];
    return p;
}

static char *put_int(char *p, int64_t v) {
    if (v < 0)
        *p++ = '-';
    return put_uint(p, v < 0 ? 0 - (uint64_t)v : (uint64_t)v);
}

/* floor(log10(v)), v > 0 normal double: from the binary exponent (log10 2 = 0.30103), then corrected. */
static int decimal_exponent(double v) {
    int e2;
    int e;

    frexp(v, &e2);
    e = (int)floor((e2 - 1) * 0.30102999566398120);
    return v >= power_of_ten(e + 1) * (1 - 1e-15) ? e + 1 : e;
}

/* True when digits * 10^e surely reads back as f. */
static bool reads_back(uint64_t digits, int e, double f) {
    double v = e < 0 ? (double)digits / power_of_ten(-e) : (double)digits * power_of_ten(e);
    uint64_t bits;

    memcpy(&bits, &v, sizeof(bits));
    if (((bits & 0x1fffffff) - (0x10000000 - 16)) <= 32 || v < 0x1p-126)
        return false;
    return (double)(float)v == f;
}

static char *put_exponent(char *p, int e) {
    *p++ = 'e';
    *p++ = e < 0 ? '-' : '+';
    if (e > -10 && e < 10)
        *p++ = '0';
    return put_uint(p, (uint64_t)(e < 0 ? -e : e));
}

/* n digits (no trailing zeros) whose first stands at 10^e. */
static char *put_decimal(char *p, uint64_t digits, int n, int e) {
    char text[20];

    put_uint(text, digits);
    if (e < -5 || e > 15) {
        *p++ = text[0];
        if (n > 1) {
            *p++ = '.';
            memcpy(p, text + 1, (size_t)n - 1);
            p += n - 1;
        }
        return put_exponent(p, e);
    }
    if (e < 0) {
        memcpy(p, "0.00000", 7);
        p += 1 - e;
        memcpy(p, text, (size_t)n);
        return p + n;
    }
    for (int i = 0; i < n || i <= e; i++) {
        if (i == e + 1)
            *p++ = '.';
        *p++ = i < n ? text[i] : '0';
    }
    return p;
}

static char *put_f32(char *p, float f) {
    double v = (double)f;
    uint64_t digits = 0;
    int e, n;

    if (!isfinite(f)) {
        memcpy(p, "null", 4);
        return p + 4;
    }
    if (signbit(f))
        *p++ = '-';
    v = fabs(v);
    if (v == 0.0) {
        *p++ = '0';
        return p;
    }
    e = decimal_exponent(v);
    for (n = 6; n <= 9; n++) {
        int shift = n - 1 - e;

        digits = (uint64_t)llround(shift < 0 ? v / power_of_ten(-shift) : v * power_of_ten(shift));
        if (n == 9 || reads_back(digits, -shift, v))
            break;
    }
    if (digits >= (uint64_t)power_of_ten(n)) { /* rounded up to the next power */
        digits /= 10;
        e++;
    }
    while (digits % 10 == 0) {
        digits /= 10;
        n--;
    }
    return put_decimal(p, digits, n, e);
}

static char *put_f64(char *p, double d) {
    if (!isfinite(d)) {
        memcpy(p, "null", 4);
        return p + 4;
    }
    return p + snprintf(p, NUMBER_MAX - 1, "%.17g", d);
}

static char *put_value(char *p, enum dtype dtype, const void *data, size_t i) {
    switch ((int)dtype) {
    case DT_F32: return put_f32(p, ((const float *)data)[i]);
    case DT_F64: return put_f64(p, ((const double *)data)[i]);
    case DT_U8: return put_uint(p, ((const uint8_t *)data)[i]);
    case DT_U16: return put_uint(p, ((const uint16_t *)data)[i]);
    case DT_U32: return put_uint(p, ((const uint32_t *)data)[i]);
    case DT_U64: return put_uint(p, ((const uint64_t *)data)[i]);
    case DT_S8: return put_int(p, ((const int8_t *)data)[i]);
    case DT_S16: return put_int(p, ((const int16_t *)data)[i]);
    case DT_S32: return put_int(p, ((const int32_t *)data)[i]);
    case DT_S64: return put_int(p, ((const int64_t *)data)[i]);
    case DT_BOOL: {
        bool is_true = ((const uint8_t *)data)[i];

        memcpy(p, is_true ? "true" : "false", is_true ? 4 : 5);
        return p + (is_true ? 4 : 5);
    }
    default: return NULL;
    }
}

int tensor_json_write(struct buf *b, enum dtype dtype, const void *data, size_t n, struct error *err) {
    char block[4096], *p = block;
    int rc = 0;

    *p++ = '[';
    for (size_t i = 0; !rc && i < n; i++) {
        if (i)
            *p++ = ',';
        p = put_value(p, dtype, data, i);
        if (!p)
            return error_set(err, -EINVAL, "an output of type %s has no JSON form: ask for binary_data",
                dtype_info(dtype)->v2);
        if (p > block + sizeof(block) - NUMBER_MAX - 2) {
            rc = buf_append(b, block, (size_t)(p - block));
            p = block;
        }
    }
    *p++ = ']';
    if (!rc)
        rc = buf_append(b, block, (size_t)(p - block));
    if (rc)
        return error_set(err, rc, "the reply is larger than its limit");
    return 0;
}
