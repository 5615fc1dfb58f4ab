/* What codes mean: as numbers, for kernels of floats, and as integers, for those of integers. */
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "engine/ops/element.h"
#include "engine/weight_rows.h"

/* A code outside the book, which weight_check refuses, is its last word. */
static const void *word_at(const struct weight *w, int64_t code, size_t word) {
    int64_t n = w->book->shape.dim[0];

    return (const char *)w->book->data + (size_t)(code < 0 ? 0 : code >= n ? n - 1 : code) * word;
}

static void take_integers(const struct weight *w, const int64_t *codes, int64_t n, int16_t *ret) {
    int64_t dim = weight_word_size(w);

    for (int64_t i = 0; !w->book && i < n; i++)
        ret[i] = (int16_t)codes[i];
    for (int64_t i = 0; w->book && i < n; i++) {
        const int8_t *word = word_at(w, codes[i], (size_t)dim);

        for (int64_t k = 0; k < dim; k++)
            *ret++ = word[k];
    }
}

/* Codes that share a byte, the lowest bits first, by a table of what each byte stands for. Packed codes of s4
 * are of no type that knows a sign. */
static void unpack(const struct weight *w, int64_t n, int16_t *ret) {
    const uint8_t *p = w->codes->data;
    int64_t per = 8 / w->stored_bits, whole = n / per;
    int16_t what[256][8] = {0};

    for (int byte = 0; byte < 256; byte++)
        for (int64_t k = 0; k < per; k++) {
            int64_t code = byte >> k * w->stored_bits & ((1 << w->stored_bits) - 1);

            if (w->code == &weight_code_s4)
                code = code < 8 ? code : code - 16;
            take_integers(w, &code, 1, &what[byte][k]);
        }
    for (int64_t i = 0; i < whole; i++)
        memcpy(ret + i * per, what[p[i]], (size_t)per * sizeof(*ret));
    for (int64_t i = whole * per; i < n; i++)
        ret[i] = what[p[whole]][i - whole * per];
}

/* The word of element i, of its channel's book. */
static size_t place_in_books(const struct weight *w, int64_t i, int64_t n, int64_t code) {
    bool is_first = w->books == WEIGHT_BOOKS_FIRST;
    int64_t channels = w->book->shape.dim[!is_first], words = weight_count_words(w);
    int64_t channel = is_first ? i / (n / channels) : i % channels;

    code = code < 0 ? 0 : code >= words ? words - 1 : code;
    return (size_t)(is_first ? channel * words + code : code * channels + channel);
}

/* `ret_integers` or `ret_floats`, whichever the books hold. */
static void read_books(const struct weight *w, int16_t *ret_integers, float *ret_floats) {
    int64_t n = weight_count_stored(w), codes[WEIGHT_CHUNK];

    for (int64_t i = 0; i < n; i++) {
        size_t at;

        if (i % WEIGHT_CHUNK == 0)
            weight_read(w->codes, w->stored_bits, i, n - i < WEIGHT_CHUNK ? n - i : WEIGHT_CHUNK, codes);
        at = place_in_books(w, i, n, codes[i % WEIGHT_CHUNK]);
        if (ret_integers)
            ret_integers[i] = ((const int8_t *)w->book->data)[at];
        else
            memcpy(&ret_floats[i], (const char *)w->book->data + at * sizeof(float), sizeof(float));
    }
}

/* The stored elements, as many as there are, of the first stage alone. */
static void read_stage(const struct weight *w, int16_t *ret) {
    int64_t dim = weight_word_size(w), n = weight_count_stored(w) / dim, codes[WEIGHT_CHUNK];

    if (w->books) {
        read_books(w, ret, NULL);
        return;
    }
    if (dim == 1 && w->codes->dtype == DT_U8 && w->stored_bits && 8 % w->stored_bits == 0) {
        unpack(w, n, ret);
        return;
    }
    if (!w->book && w->codes->dtype == DT_S8) {
        for (int64_t i = 0; i < n; i++)
            ret[i] = ((const int8_t *)w->codes->data)[i];
        return;
    }
    for (int64_t i = 0; i < n; i += WEIGHT_CHUNK) {
        int64_t chunk = n - i < WEIGHT_CHUNK ? n - i : WEIGHT_CHUNK;

        weight_read(w->codes, w->stored_bits, i, chunk, codes);
        take_integers(w, codes, chunk, ret + i * dim);
    }
}

static int read_integers(const struct weight *w, int16_t *ret, struct error *err) {
    int64_t n = weight_count_stored(w);
    _cleanup_(freep) int16_t *stage = w->more ? malloc((size_t)n * sizeof(*stage) + 1) : NULL;

    if (w->more && !stage)
        return error_oom(err);
    read_stage(w, ret);
    for (const struct weight *more = w->more; more; more = more->more) {
        read_stage(more, stage);
        for (int64_t i = 0; i < n; i++)
            ret[i] = (int16_t)(ret[i] + stage[i]);
    }
    return 0;
}

static void read_looked_up(const struct weight *w, float *ret) {
    int64_t dim = weight_word_size(w), n = weight_count_stored(w) / dim, codes[WEIGHT_CHUNK];
    size_t word = (size_t)dim * sizeof(float);

    for (int64_t i = 0; i < n; i++) {
        int64_t at = i % WEIGHT_CHUNK;

        if (at == 0)
            weight_read(w->codes, w->stored_bits, i, n - i < WEIGHT_CHUNK ? n - i : WEIGHT_CHUNK, codes);
        memcpy(ret + i * dim, word_at(w, codes[at], word), word);
    }
}

static void read_floats(const struct weight *w, float *ret) {
    int64_t n = weight_count_stored(w);

    if (w->books)
        read_books(w, NULL, ret);
    else if (w->code->is_looked_up)
        read_looked_up(w, ret);
    else if (!element_read_floats(w->codes, 0, n, ret))
        for (int64_t i = 0; i < n; i++)
            ret[i] = (float)element_get(w->codes, i);
}

/* Stored elements of `size` bytes to the dense order of the shape. */
static int expand(const struct weight *w, size_t size, void *ret, struct error *err) {
    bool is_dense = w->structure == &weight_structure_dense;
    _cleanup_(freep) void *stored = is_dense ? NULL : calloc((size_t)w->n_stored + 1, size);
    void *to = is_dense ? ret : stored;
    int r = 0;

    if (!to)
        return error_oom(err);
    if (size == sizeof(float))
        read_floats(w, to);
    else
        r = read_integers(w, to, err);
    if (is_dense || r < 0)
        return r;
    memset(ret, 0, (size_t)(w->rows * w->cols) * size);
    w->structure->expand(w, stored, size, ret);
    return 0;
}

/* Integers are read as such, then become floats from the end on: both fit the same memory. */
int weight_decode(const struct weight *w, float *ret, struct error *err) {
    int r;

    if (weight_codes_are_integers(w)) {
        int64_t n = w->rows * w->cols;
        int16_t *codes = (int16_t *)ret + n;

        r = expand(w, sizeof(*codes), codes, err);
        for (int64_t i = 0; r == 0 && i < n; i++) {
            int16_t code;

            memcpy(&code, codes + i, sizeof(code));
            ret[i] = code;
        }
    } else {
        r = expand(w, sizeof(*ret), ret, err);
    }
    if (r == 0)
        w->scales->apply(w, ret);
    return r;
}

static void take_zeros_off(const struct weight *w, int16_t *ret) {
    for (int64_t row = 0; row < w->rows; row++) {
        int32_t zero = weight_zero_at(w, row);

        for (int64_t i = 0; i < w->cols; i++, ret++)
            *ret = (int16_t)(*ret - zero);
    }
}

int weight_get_codes(const struct weight *w, int16_t *ret, struct error *err) {
    int64_t n = w->rows * w->cols, outer, inner;
    _cleanup_(freep) int16_t *turned = w->transposed ? malloc((size_t)n * sizeof(*turned) + 1) : NULL;
    int r;

    if (w->transposed && !turned)
        return error_oom(err);
    r = expand(w, sizeof(*ret), w->transposed ? turned : ret, err);
    if (r < 0)
        return r;
    weight_strides(w, &outer, &inner);
    for (int64_t o = 0; turned && o < outer; o++)
        for (int64_t row = 0; row < w->rows; row++)
            memcpy(ret + row * w->cols + o * inner, turned + (o * w->rows + row) * inner,
                (size_t)inner * sizeof(*ret));
    if (w->zero)
        take_zeros_off(w, ret);
    return 0;
}
