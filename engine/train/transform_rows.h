#ifndef ENGINE_TRAIN_TRANSFORM_ROWS_H
#define ENGINE_TRAIN_TRANSFORM_ROWS_H

#include "engine/train/transform.h"

extern const struct transform transform_codebook_row, transform_fake_quantize_row, transform_low_rank_row,
    transform_mask_row, transform_scale_row, transform_sign_row, transform_ternary_row;

extern const struct activation activation_clip_quantize_row, activation_lsq_row, activation_pact_row,
    activation_sign_row;

/* A part of y = x; nothing to do where they are the same memory. */
void transform_copy_part(const struct transform_site *s, unsigned part, const float *x, float *y);

/* In order, from the first to the last. */
double transform_sum(const double *x, int64_t n);

#endif
