/* What a pattern's numbers must be: seen once, when a plan is made. */
#include <errno.h>
#include <math.h>

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
    int64_t n, words = w->book->shape.dim[0], codes[WEIGHT_CHUNK];
    int64_t dim = w->book->shape.rank == 2 ? w->book->shape.dim[1] : 1;

    n = weight_count_stored(w) / dim;
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

int weight_check(const struct weight *w, struct error *err) {
    int r = check_scales(w, err);

    if (r == 0 && w->book)
        r = check_indices(w, err);
    return r < 0 ? r : w->structure->check(w, err);
}
