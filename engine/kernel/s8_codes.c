#include "engine/kernel/s8_codes.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"

/* The file has the integers themselves, row by row. */
static bool are_plain_bytes(const struct weight *w) {
    return weight_structure_find("dense") == w->structure && w->code->dtype == DT_S8 &&
           w->codes->dtype == DT_S8 && !w->book && !w->stored_bits && !w->zero && !w->transposed;
}

/* `code` NULL: they are read where they lie. */
static void place(const struct weight *w, const struct s8_shape *sh, int16_t *code, struct s8_codes *ret) {
    /* rows are channels, but of a matrix [in][out] with one scale they are its inputs */
    bool is_turned = sh->is_kn && w->axis == 0;

    *ret = (struct s8_codes){.bytes = code ? NULL : w->codes->data,
        .code = code,
        .oc_stride = is_turned ? 1 : w->cols,
        .k_stride = is_turned ? w->cols : 1};
}

int s8_codes_read(
    const struct weight *w, const struct s8_shape *sh, struct s8_codes *ret, struct error *err) {
    _cleanup_(freep) int16_t *code = NULL;
    size_t n;
    int r;

    if (are_plain_bytes(w)) {
        place(w, sh, NULL, ret);
        return 0;
    }
    if (__builtin_mul_overflow((size_t)w->rows, (size_t)w->cols, &n) || n > SIZE_MAX / sizeof(*code) - 1)
        return error_set(err, -EFBIG, "weights are too large");
    code = malloc((n + 1) * sizeof(*code));
    if (!code)
        return error_oom(err);
    r = weight_get_codes(w, code, err);
    if (r < 0)
        return r;
    place(w, sh, TAKE(code), ret);
    return 0;
}

/* What the form says without a look at the codes: 1 they are, 0 they are not, -1 it does not say. */
static int bytes_by_type(const struct weight *w) {
    if (w->book)
        return w->book->dtype == DT_S8 && !w->zero ? 1 : -1;
    if (!w->codes)
        return -1;
    if (w->codes->dtype == DT_S8)
        return w->zero ? -1 : 1;
    if (w->codes->dtype != DT_U8)
        return -1;
    for (int64_t i = 0; i < w->scales->n(w); i++)
        if (weight_zero_at(w, i) != 128)
            return -1;
    return 1;
}

bool s8_codes_are_bytes(const struct weight *w) {
    _cleanup_(freep) int16_t *code = NULL;
    struct error err = {0};
    int known = bytes_by_type(w);
    size_t n;

    if (known >= 0)
        return known;
    if (__builtin_mul_overflow((size_t)w->rows, (size_t)w->cols, &n) || n > SIZE_MAX / sizeof(*code) - 1)
        return false;
    code = malloc((n + 1) * sizeof(*code));
    if (!code || weight_get_codes(w, code, &err) < 0)
        return false;
    for (size_t i = 0; i < n; i++)
        if (code[i] < INT8_MIN || code[i] > INT8_MAX)
            return false;
    return true;
}

/* Most layers have all values soon: they are not looked through to the end. */
#define LOOK_AT_ONCE 4096

/* False: a value is no byte, or there are more than a table holds. */
static bool mark_values(const struct s8_codes *c, int64_t first, int64_t end, bool occurs[256]) {
    int count = 0;

    for (int64_t i = first; c->bytes && i < end; i++)
        occurs[c->bytes[i] + 128] = true;
    for (int64_t i = first; !c->bytes && i < end; i++) {
        if (c->code[i] < INT8_MIN || c->code[i] > INT8_MAX)
            return false;
        occurs[c->code[i] + 128] = true;
    }
    for (int v = 0; v < 256; v++)
        count += occurs[v];
    return count <= S8_TABLE;
}

int s8_codes_table(const struct s8_codes *c, const struct weight *w, bool needs_zero, int8_t table[S8_TABLE],
    uint8_t place[256]) {
    bool occurs[256] = {false};
    int n = 0, bits = 1;

    occurs[128] = needs_zero;
    for (int64_t at = 0; at < w->rows * w->cols; at += LOOK_AT_ONCE) {
        int64_t end = at + LOOK_AT_ONCE < w->rows * w->cols ? at + LOOK_AT_ONCE : w->rows * w->cols;

        if (!mark_values(c, at, end, occurs))
            return 8;
    }
    for (int v = 0; v < 256; v++) {
        if (!occurs[v])
            continue;
        if (n == S8_TABLE)
            return 8;
        place[v] = (uint8_t)n;
        table[n++] = (int8_t)(v - 128);
    }
    while (1 << bits < n)
        bits++;
    /* codes behind the last value do not occur */
    memset(table + n, 0, (size_t)((1 << bits) - n));
    for (int i = 1 << bits; i < S8_TABLE; i++)
        table[i] = table[i - (1 << bits)];
    return bits;
}

const struct s8_loader *s8_loader_find(const struct s8_isa *isa, const struct cpu *cpu, int bits) {
    for (const struct s8_loader *const *l = isa->loaders; *l; l++)
        if ((*l)->bits >= bits && (*l)->has(cpu))
            return *l;
    return NULL;
}
