#define F32_LANES 16
#define F32_BF16
#include "engine/kernel/f32_vector.h"

#include "engine/train/norm_rows.h"

#define NORM_BF16
#include "engine/train/norm_rows_body.h"

const struct norm_rows norm_rows_avx512bf16 = {norm_sum, norm_apply, norm_sum_back, norm_spread};
