#include "engine/kernel/kernel.h"

#include "engine/kernel/rows.h"

const struct kernel *const kernel_table[] = {
    /* best first for each operator */
    &kernel_batch_norm_f32,
    &kernel_binary_f32,
    &kernel_concat_copy,
    &kernel_conv_first_f32,
    &kernel_conv_sparse_f32_avx512,
    &kernel_conv_sparse_f32_avx2,
    &kernel_conv_sparse_f32_plain,
    &kernel_depthwise_f32,
    &kernel_conv_f32_onednn,
    &kernel_conv_f32_winograd4, /* by name or the tuner: they round otherwise */
    &kernel_conv_f32_winograd2,
    &kernel_conv_transpose_f32_onednn,
    &kernel_eltwise_f32_onednn,
    &kernel_erf_f32,
    &kernel_gemm_sparse_f32_avx512,
    &kernel_gemm_sparse_f32_avx2,
    &kernel_gemm_sparse_f32_plain,
    &kernel_gemm_f32_onednn,
    &kernel_lrn_f32_onednn,
    &kernel_pool_f32,
    &kernel_pool_f32_onednn,
    &kernel_concat_s8,
    &kernel_depthwise_s8_avx512vnni,
    &kernel_depthwise_s8,
    &kernel_conv_sparse_s8_avx512,
    &kernel_conv_sparse_s8_avx2,
    &kernel_conv_sparse_s8_plain,
    &kernel_conv_s8_avx512vnni,
    &kernel_conv_s8_avx2,
    &kernel_conv_s8_plain,
    &kernel_gemm_sparse_s8_avx512,
    &kernel_gemm_sparse_s8_avx2,
    &kernel_gemm_sparse_s8_plain,
    &kernel_gemm_s8_avx512vnni,
    &kernel_gemm_s8_avx2,
    &kernel_gemm_s8_plain,
    &kernel_join_s8,
    &kernel_lookup_s8,
    &kernel_move_s8,
    &kernel_pool_s8,
    &kernel_resize_s8,
    &kernel_quantize_s8,
    &kernel_dequantize_s8,
    &kernel_resize_f32,
    &kernel_softmax_f32_onednn,
    &kernel_transpose_copy,
    &kernel_reference,
};
const size_t kernel_table_size = sizeof(kernel_table) / sizeof(*kernel_table);

const struct kernel *const kernel_convert_table[] = {
    &kernel_convert_any,
};
const size_t kernel_convert_table_size = sizeof(kernel_convert_table) / sizeof(*kernel_convert_table);
