#define F32_LANES 16
#include "engine/kernel/f32_vector.h"

#include "engine/kernel/gemm_f32_tile.h"
#include "engine/kernel/post_f32_body.h"
#include "engine/kernel/winograd_f32.h"
#include "engine/kernel/winograd_f32_body.h"

F32_TARGET void winograd_f32_avx512(const struct winograd *w, const struct winograd_job *j) {
    if (w->m == 4)
        winograd_block(4, w, j);
    else
        winograd_block(2, w, j);
}
