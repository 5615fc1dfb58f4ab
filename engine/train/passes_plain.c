#define F32_LANES 4
#include "engine/kernel/f32_vector.h"

#include "engine/train/passes.h"
#include "engine/train/passes_body.h"

const struct train_passes train_passes_plain = {
    .add = passes_add,
    .add_bf16 = passes_add_bf16,
    .widen = passes_widen,
    .narrow = passes_narrow,
    .clamp = passes_clamp,
    .clamp_back = passes_clamp_back,
    .max_pool = passes_max_pool,
    .max_pool_back = passes_max_pool_back,
};
