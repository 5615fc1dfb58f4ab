#define F32_LANES 8
#include "engine/kernel/f32_vector.h"

#include "engine/train/norm_rows.h"
#include "engine/train/norm_rows_body.h"

const struct norm_rows norm_rows_avx2 = {norm_sum, norm_apply, norm_sum_back, norm_spread};
