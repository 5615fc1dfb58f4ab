#define F32_LANES 16
#include "engine/kernel/f32_vector.h"

#include "engine/kernel/conv_first_f32.h"
#include "engine/kernel/f32_rows.h"
#include "engine/kernel/post_f32_body.h"

#include "engine/kernel/conv_first_f32_body.h"

void conv_first_f32_avx512(const struct conv_first *c, const struct conv_first_job *j) {
    conv_first_rows(c, j);
}
