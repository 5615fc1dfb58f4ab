#define F32_LANES 8
#include "engine/kernel/f32_vector.h"

#include "engine/kernel/pool_f32.h"
#include "engine/kernel/pool_f32_body.h"

void pool_f32_avx2(const struct pool_f32 *p, const float *x, float *y, int64_t first, int64_t last) {
    pool_run_rows(p, x, y, first, last);
}
