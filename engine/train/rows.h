#ifndef ENGINE_TRAIN_ROWS_H
#define ENGINE_TRAIN_ROWS_H

#include "engine/train/kernel.h"

extern const struct train_kernel train_activation, train_add, train_batch_norm, train_clamp, train_concat,
    train_conv, train_conv_widened, train_gemm, train_global_average, train_max_pool, train_reference,
    train_view;

#endif
