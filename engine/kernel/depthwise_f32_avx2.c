#define F32_LANES 8
#include "engine/kernel/f32_vector.h"

#include "engine/kernel/depthwise_f32.h"
#include "engine/kernel/post_f32_body.h"

#include "engine/kernel/depthwise_f32_body.h"

void depthwise_f32_avx2(const struct depthwise_f32 *d, const struct depthwise_f32_job *j) {
    depthwise_run_rows(d, j);
}
