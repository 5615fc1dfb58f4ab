#include "compress/calibration_check.h"

#include <errno.h>
#include <stdlib.h>

#include "base/cleanup.h"

#define LOOKED_AT 64 /* samples, evenly from all */

/* Is each channel of the sample one value? Channels are dimension 1 where there are pixels behind it. */
static bool is_flat(const float *x, const struct shape *item, int64_t n) {
    int64_t channels = item->rank > 2 && item->dim[1] > 0 ? item->dim[1] : 1, pixels = n / channels;

    for (int64_t c = 0; c < channels; c++)
        for (int64_t i = 1; i < pixels; i++)
            if (x[c * pixels + i] < x[c * pixels] || x[c * pixels + i] > x[c * pixels])
                return false;
    return true;
}

static int are_flat(const struct samples *s, bool *ret, struct error *err) {
    int64_t n = 0, step = s->n / LOOKED_AT > 0 ? s->n / LOOKED_AT : 1;
    _cleanup_(freep) float *x = NULL;
    int r = 0;

    *ret = false;
    /* vectors of numbers have no colour */
    if (!shape_count(&s->item, &n) || n < 2 || s->item.rank < 3 || s->n < 1)
        return 0;
    x = malloc((size_t)n * sizeof(*x));
    if (!x)
        return error_oom(err);
    *ret = true;
    for (int64_t i = 0; r == 0 && *ret && i < s->n; i += step) {
        r = s->read(s->ctx, i, 1, x, err);
        *ret = r == 0 && is_flat(x, &s->item, n);
    }
    return r;
}

static bool is_free(const struct graph *g) {
    const struct shape *s = &g->values[g->inputs[0]].shape;

    for (int i = 1; i < s->rank; i++)
        if (s->dim[i] < 0)
            return true;
    return false;
}

int calibration_check(
    const struct graph *g, const struct samples *samples, json_t *report, struct error *err) {
    json_t *list = json_object_get(report, "warnings");
    bool flat;
    int r = are_flat(samples, &flat, err);

    if (r < 0)
        return r;
    if (!list) {
        list = json_array();
        json_object_set_new(report, "warnings", list);
    }
    if (flat)
        json_array_append_new(list, json_string("calibrated_on_one_colour"));
    if (is_free(g))
        json_array_append_new(list, json_string("other_sizes_not_calibrated"));
    return 0;
}
