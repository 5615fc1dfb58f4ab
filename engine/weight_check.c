/* What a pattern's numbers must be: seen once, when a plan is made. */
#include <errno.h>
#include <math.h>
#include <stdlib.h>

#include "base/cleanup.h"
#include "engine/constant.h"
#include "engine/weight_rows.h"

static int check_scales(const struct weight *w, struct error *err) {
    for (int64_t i = 0; w->scale && i < w->scales->n(w); i++) {
        float v = constant_f32(w->scale, i);

        if (!isfinite(v))
            return error_code(err, -EBADMSG, "invalid_model",
                "scale %lld of its weights is not a finite number", (long long)i);
        if (v == 0)
            return error_code(
                err, -EBADMSG, "invalid_model", "scale %lld of its weights is zero", (long long)i);
    }
    return 0;
}

/* Every index has a word. */
static int check_indices(const struct weight *w, struct error *err) {
    int64_t n = weight_count_stored(w) / weight_word_size(w), words = weight_count_words(w);
    int64_t codes[WEIGHT_CHUNK];

    if (w->stored_bits && words >= 1 << w->stored_bits)
        return 0; /* as many words as a code can say */
    for (int64_t i = 0; i < n; i++) {
        int64_t at = i % WEIGHT_CHUNK;

        if (at == 0)
            weight_read(w->codes, w->stored_bits, i, n - i < WEIGHT_CHUNK ? n - i : WEIGHT_CHUNK, codes);
        if (codes[at] < 0 || codes[at] >= words)
            return error_code(err, -EBADMSG, "invalid_model",
                "index %lld of its weights is %lld, outside of a codebook of %lld words", (long long)i,
                (long long)codes[at], (long long)words);
    }
    return 0;
}

static void word_ends(const struct tensor *book, int64_t *ret_least, int64_t *ret_most) {
    const int8_t *p = book->data;
    int64_t n = 0;

    *ret_least = *ret_most = p[0];
    (void)shape_count(&book->shape, &n);
    for (int64_t i = 1; i < n; i++) {
        *ret_least = p[i] < *ret_least ? p[i] : *ret_least;
        *ret_most = p[i] > *ret_most ? p[i] : *ret_most;
    }
}

/* A sum of stages that leaves int8 would come round at the other end: looked for where the words could. */
static int check_sums(const struct weight *w, struct error *err) {
    int64_t n = w->rows * w->cols, low = 0, high = 0;
    _cleanup_(freep) int16_t *codes = NULL;
    int r;

    for (const struct weight *stage = w; stage; stage = stage->more) {
        int64_t least, most;

        word_ends(stage->book, &least, &most);
        low += least;
        high += most;
    }
    if (low >= INT8_MIN && high <= INT8_MAX)
        return 0;
    codes = malloc((size_t)n * sizeof(*codes) + 1);
    if (!codes)
        return error_oom(err);
    r = weight_get_codes(w, codes, err);
    for (int64_t i = 0; r == 0 && i < n; i++)
        if (codes[i] < INT8_MIN || codes[i] > INT8_MAX)
            r = error_code(err, -EBADMSG, "invalid_model",
                "the stages of a weight add up to %d, which is no int8", codes[i]);
    return r;
}

int weight_check(const struct weight *w, struct error *err) {
    int r = check_scales(w, err);

    for (const struct weight *stage = w; r == 0 && stage; stage = stage->more)
        if (stage->book)
            r = check_indices(stage, err);
    if (r == 0 && w->more)
        r = check_sums(w, err);
    return r < 0 ? r : w->structure->check(w, err);
}
