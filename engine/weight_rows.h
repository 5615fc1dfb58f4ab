/* What the rows of the weight tables share; private to weight*.c and pass_weights.c. */
#ifndef ENGINE_WEIGHT_ROWS_H
#define ENGINE_WEIGHT_ROWS_H

#include "engine/weight.h"

extern const struct weight_structure weight_structure_dense;
extern const struct weight_code weight_code_f32, weight_code_s8, weight_code_u8;
extern const struct weight_scales weight_scales_layer, weight_scales_channel;
extern const struct weight_form weight_form_dense, weight_form_int8, weight_form_uint8;

/* Fills axis, rows, cols, transposed from w->shape; -EINVAL: no such axis, free dimension or overflow. */
int weight_set_rows(struct weight *w, int axis);

/* Products of the dimensions before and behind the axis: element = (o * rows + row) * inner + i. */
void weight_strides(const struct weight *w, int64_t *ret_outer, int64_t *ret_inner);

#endif
