#include "engine/weight.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "engine/weight_rows.h"

#define COUNT(a) (sizeof(a) / sizeof((a)[0]))

/* in the order they are tried: `dense` takes what the others do not */
const struct weight_structure *const weight_structures[] = {
    &weight_structure_block,
    &weight_structure_nm,
    &weight_structure_sparse,
    &weight_structure_dense,
};
const size_t n_weight_structures = COUNT(weight_structures);

/* sorted by name */
const struct weight_code *const weight_codes[] = {
    &weight_code_bf16,
    &weight_code_bit,
    &weight_code_books,
    &weight_code_f16,
    &weight_code_f32,
    &weight_code_lut1,
    &weight_code_lut2,
    &weight_code_lut3,
    &weight_code_lut4,
    &weight_code_lut5,
    &weight_code_lut6,
    &weight_code_lut7,
    &weight_code_lut8,
    &weight_code_product,
    &weight_code_residual,
    &weight_code_s4,
    &weight_code_s8,
    &weight_code_trit,
    &weight_code_u8,
};
const size_t n_weight_codes = COUNT(weight_codes);

/* in the order they are tried: one number is the layer's */
const struct weight_scales *const weight_scales_kinds[] = {
    &weight_scales_layer,
    &weight_scales_channel,
    &weight_scales_group,
};
const size_t n_weight_scales_kinds = COUNT(weight_scales_kinds);

/* sorted by name; of several rows of a name the usual one first */
const struct weight_form weight_forms[] = {
    {"bf16", &weight_structure_dense, &weight_code_bf16},
    {"binary", &weight_structure_dense, &weight_code_bit},
    {"block", &weight_structure_block, NULL},
    {"codebook", &weight_structure_dense, &weight_code_lut4},
    {"codebook", &weight_structure_dense, &weight_code_lut1},
    {"codebook", &weight_structure_dense, &weight_code_lut2},
    {"codebook", &weight_structure_dense, &weight_code_lut3},
    {"codebook", &weight_structure_dense, &weight_code_lut5},
    {"codebook", &weight_structure_dense, &weight_code_lut6},
    {"codebook", &weight_structure_dense, &weight_code_lut7},
    {"codebook", &weight_structure_dense, &weight_code_lut8},
    {"codebook", &weight_structure_dense, &weight_code_books},
    {"dense", &weight_structure_dense, &weight_code_f32},
    {"f16", &weight_structure_dense, &weight_code_f16},
    {"int4", &weight_structure_dense, &weight_code_s4},
    {"int8", &weight_structure_dense, &weight_code_s8},
    {"nm", &weight_structure_nm, NULL},
    {"product", &weight_structure_dense, &weight_code_product},
    {"residual", &weight_structure_dense, &weight_code_residual},
    {"sparse", &weight_structure_sparse, NULL},
    {"ternary", &weight_structure_dense, &weight_code_trit},
    {"uint8", &weight_structure_dense, &weight_code_u8},
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
        if (strcmp(weight_forms[i].name, name) == 0)
            return &weight_forms[i];
    return NULL;
}

const char *weight_form_name(const struct weight *w) {
    for (size_t i = 0; i < n_weight_forms; i++)
        if (weight_forms[i].structure == w->structure &&
            (!weight_forms[i].code || weight_forms[i].code == w->code))
            return weight_forms[i].name;
    return "";
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

int64_t weight_count_stored(const struct weight *w) {
    return w->structure == &weight_structure_dense ? w->rows * w->cols : w->n_stored;
}

bool weight_codes_are_integers(const struct weight *w) {
    return w->code->dtype != DT_F32 && (!w->code->is_looked_up || w->book->dtype != DT_F32);
}

bool weight_is_integer(const struct weight *w) {
    return weight_codes_are_integers(w) && w->scales != &weight_scales_group;
}

bool weight_is_plain(const struct weight *w) {
    return w->structure == &weight_structure_dense && w->code == &weight_code_f32 && !w->scale;
}

bool weight_is_encoded(const struct weight *w) {
    return w->structure != &weight_structure_dense || w->code != &weight_code_f32;
}

bool weight_is_sparse_float(const struct weight *w) {
    return w->structure != &weight_structure_dense && w->code == &weight_code_f32;
}

int64_t weight_word_size(const struct weight *w) {
    return w->book && w->book->shape.rank == 2 && !w->books ? w->book->shape.dim[1] : 1;
}

int64_t weight_count_words(const struct weight *w) {
    return w->book->shape.dim[w->books == WEIGHT_BOOKS_FIRST];
}

size_t weight_bytes(const struct weight *w) {
    int64_t n = weight_count_stored(w) / weight_word_size(w);
    size_t book = 0, own = 0;

    if (w->book)
        (void)shape_bytes(&w->book->shape, w->book->dtype, &book);
    own = ((size_t)n * w->code->bits + 7) / 8 + book + w->structure->bytes(w) +
          (w->scale ? (size_t)w->scales->n(w) * sizeof(float) : 0);
    return w->more ? own + weight_bytes(w->more) : own;
}
