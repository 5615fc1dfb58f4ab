/* How many weights are not zero, counted in the codes. */
#include <stdlib.h>

#include "base/cleanup.h"
#include "engine/ops/element.h"
#include "engine/weight_rows.h"

/* The zero point, where all rows have the same. */
static bool one_zero(const struct weight *w, int64_t *ret) {
    int64_t n, v;

    *ret = 0;
    if (!w->zero)
        return true;
    if (!shape_count(&w->zero->shape, &n) || n < 1)
        return false;
    weight_read(w->zero, 0, 0, 1, ret);
    for (int64_t i = 1; i < n; i++) {
        weight_read(w->zero, 0, i, 1, &v);
        if (v != *ret)
            return false;
    }
    return true;
}

/* Of the `dim` numbers of a word; a code outside the book has none. */
static int64_t count_word(const struct weight *w, int64_t code, int64_t dim, int64_t zero) {
    int64_t count = 0;

    if (code < 0 || code >= w->book->shape.dim[0])
        return 0;
    for (int64_t k = code * dim; k < (code + 1) * dim; k++)
        count += element_get(w->book, k) != (double)zero;
    return count;
}

static int64_t count_floats(const struct weight *w) {
    int64_t n = weight_count_stored(w), count = 0;

    for (int64_t i = 0; i < n; i++)
        count += element_get(w->codes, i) != 0;
    return count;
}

/* Sums of stages and books of channels: in what they mean. */
static int64_t count_decoded(const struct weight *w) {
    int64_t n = w->rows * w->cols, count = 0;
    _cleanup_(freep) float *v = malloc((size_t)n * sizeof(*v) + 1);
    struct error err = {0};

    if (!v || weight_decode(w, v, &err) < 0)
        return -1;
    for (int64_t i = 0; i < n; i++)
        count += v[i] != 0;
    return count;
}

int64_t weight_count_nonzero(const struct weight *w) {
    bool is_packed_s4 = w->code == &weight_code_s4 && w->codes->dtype == DT_U8;
    int64_t dim = weight_word_size(w);
    int64_t n = weight_count_stored(w) / dim, codes[WEIGHT_CHUNK], zero, count = 0;

    /* elements that are not stored are 0 before the zero point is taken off */
    if (w->more || w->books)
        return count_decoded(w);
    if (!one_zero(w, &zero) || (zero && w->structure != &weight_structure_dense))
        return -1;
    if (!w->book && w->code->dtype == DT_F32)
        return count_floats(w);
    for (int64_t i = 0; i < n; i += WEIGHT_CHUNK) {
        int64_t chunk = n - i < WEIGHT_CHUNK ? n - i : WEIGHT_CHUNK;

        weight_read(w->codes, w->stored_bits, i, chunk, codes);
        for (int64_t k = 0; k < chunk; k++) {
            if (is_packed_s4)
                codes[k] = codes[k] < 8 ? codes[k] : codes[k] - 16;
            count += w->book ? count_word(w, codes[k], dim, zero) : codes[k] != zero;
        }
    }
    return count;
}
