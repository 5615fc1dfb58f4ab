#include "engine/weight.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "engine/weight_rows.h"

#define COUNT(a) (sizeof(a) / sizeof((a)[0]))

/* each sorted by name */
const struct weight_structure *const weight_structures[] = {
    &weight_structure_dense,
};
const size_t n_weight_structures = COUNT(weight_structures);

const struct weight_code *const weight_codes[] = {
    &weight_code_f32,
    &weight_code_s8,
    &weight_code_u8,
};
const size_t n_weight_codes = COUNT(weight_codes);

const struct weight_scales *const weight_scales_kinds[] = {
    &weight_scales_channel,
    &weight_scales_layer,
};
const size_t n_weight_scales_kinds = COUNT(weight_scales_kinds);

const struct weight_form *const weight_forms[] = {
    &weight_form_dense,
    &weight_form_int8,
    &weight_form_uint8,
};
const size_t n_weight_forms = COUNT(weight_forms);

const struct weight_structure *weight_structure_find(const char *name) {
    for (size_t i = 0; i < n_weight_structures; i++)
        if (strcmp(weight_structures[i]->name, name) == 0)
            return weight_structures[i];
    return NULL;
}

const struct weight_code *weight_code_find(const char *name) {
    for (size_t i = 0; i < n_weight_codes; i++)
        if (strcmp(weight_codes[i]->name, name) == 0)
            return weight_codes[i];
    return NULL;
}

const struct weight_scales *weight_scales_find(const char *name) {
    for (size_t i = 0; i < n_weight_scales_kinds; i++)
        if (strcmp(weight_scales_kinds[i]->name, name) == 0)
            return weight_scales_kinds[i];
    return NULL;
}

const struct weight_form *weight_form_find(const char *name) {
    for (size_t i = 0; i < n_weight_forms; i++)
        if (strcmp(weight_forms[i]->name, name) == 0)
            return weight_forms[i];
    return NULL;
}

int weight_set_rows(struct weight *w, int axis) {
    int64_t n;

    if (axis < 0 || (axis > 0 && axis >= w->shape.rank) || !shape_count(&w->shape, &n))
        return -EINVAL;
    w->axis = axis;
    w->rows = w->shape.rank ? w->shape.dim[axis] : 1;
    w->cols = w->rows ? n / w->rows : 0;
    w->transposed = axis != 0;
    return 0;
}

void weight_strides(const struct weight *w, int64_t *ret_outer, int64_t *ret_inner) {
    int64_t outer = 1, inner = 1;

    for (int i = 0; i < w->shape.rank; i++) {
        if (i < w->axis)
            outer *= w->shape.dim[i];
        if (i > w->axis)
            inner *= w->shape.dim[i];
    }
    *ret_outer = outer;
    *ret_inner = inner;
}

int weight_match(struct graph *g, int value, const struct weight **ret, int *ret_codes, struct error *err) {
    struct weight w = {0}, *kept;
    int codes = -1;

    for (size_t i = 0; i < n_weight_forms; i++) {
        int r = weight_forms[i]->match(g, value, &w, &codes);

        if (r < 0)
            return error_set(err, r, "weight '%s': reading its form failed", g->values[value].name);
        if (r == 0)
            continue;
        kept = graph_alloc(g, sizeof(*kept));
        if (!kept)
            return error_oom(err);
        *kept = w;
        *ret = kept;
        if (ret_codes)
            *ret_codes = codes;
        return 0;
    }
    *ret = NULL;
    return 0;
}

const char *weight_form_name(const struct weight *w) {
    for (size_t i = 0; i < n_weight_forms; i++)
        if (weight_forms[i]->structure == w->structure && weight_forms[i]->code == w->code)
            return weight_forms[i]->name;
    return "";
}

int weight_decode(const struct weight *w, float *ret, struct error *err) {
    int64_t n_stored = w->structure->n_stored(w);
    _cleanup_(freep) float *stored = calloc((size_t)n_stored + 1, sizeof(*stored));

    if (!stored)
        return error_oom(err);
    w->code->decode(w, stored);
    w->structure->expand(w, stored, ret);
    w->scales->apply(w, ret);
    return 0;
}

size_t weight_bytes(const struct weight *w) {
    return w->code->bytes(w) + (w->scale ? (size_t)w->scales->n(w) * sizeof(float) : 0);
}
