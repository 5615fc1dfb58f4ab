/* Which element is stored where, and in what code: for who writes a form again with other numbers. */
#include <errno.h>
#include <stdlib.h>

#include "base/cleanup.h"
#include "engine/weight_rows.h"

/* A structure spreads numbers without looking at them: those that count from 1 come out where they stand. */
int weight_get_places(const struct weight *w, uint32_t *ret, struct error *err) {
    int64_t n = weight_count_stored(w), count = w->rows * w->cols;
    _cleanup_(freep) uint32_t *stored = malloc((size_t)n * sizeof(*stored) + 1);
    _cleanup_(freep) uint32_t *dense = calloc((size_t)count + 1, sizeof(*dense));

    if (!stored || !dense)
        return error_oom(err);
    if (w->structure == &weight_structure_dense) {
        for (int64_t i = 0; i < n; i++)
            ret[i] = (uint32_t)i;
        return 0;
    }
    for (int64_t i = 0; i < n; i++)
        stored[i] = (uint32_t)i + 1;
    w->structure->expand(w, stored, sizeof(*stored), dense);
    for (int64_t i = 0; i < count; i++)
        if (dense[i])
            ret[dense[i] - 1] = (uint32_t)i;
    return 0;
}

int weight_get_indices(const struct weight *w, uint8_t *ret, struct error *err) {
    int64_t n = weight_count_stored(w), codes[WEIGHT_CHUNK];
    _cleanup_(freep) uint32_t *place = malloc((size_t)n * sizeof(*place) + 1);
    int r;

    if (!place)
        return error_oom(err);
    r = weight_get_places(w, place, err);
    if (r < 0)
        return r;
    for (int64_t i = 0; i < w->rows * w->cols; i++)
        ret[i] = 0;
    for (int64_t i = 0; i < n; i += WEIGHT_CHUNK) {
        int64_t chunk = n - i < WEIGHT_CHUNK ? n - i : WEIGHT_CHUNK;

        weight_read(w->codes, w->stored_bits, i, chunk, codes);
        for (int64_t k = 0; k < chunk; k++)
            ret[place[i + k]] = (uint8_t)codes[k];
    }
    return 0;
}
