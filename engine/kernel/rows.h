/* The kernels' rows, for the table of kernel.c alone. */
#ifndef ENGINE_KERNEL_ROWS_H
#define ENGINE_KERNEL_ROWS_H

#include "engine/kernel/kernel.h"

extern const struct kernel kernel_batch_norm_f32;
extern const struct kernel kernel_binary_f32;
extern const struct kernel kernel_concat_copy;
extern const struct kernel kernel_conv_f32_onednn;
extern const struct kernel kernel_conv_first_f32;
extern const struct kernel kernel_depthwise_f32;
extern const struct kernel kernel_conv_f32_winograd2, kernel_conv_f32_winograd4;
extern const struct kernel kernel_conv_transpose_f32_onednn;
extern const struct kernel kernel_convert_any;
extern const struct kernel kernel_counted;
extern const struct kernel kernel_eltwise_f32_onednn;
extern const struct kernel kernel_erf_f32;
extern const struct kernel kernel_gemm_f32_onednn;
extern const struct kernel kernel_lrn_f32_onednn;
extern const struct kernel kernel_pool_f32;
extern const struct kernel kernel_pool_f32_onednn;
extern const struct kernel kernel_reference;
extern const struct kernel kernel_resize_f32;
extern const struct kernel kernel_softmax_f32_onednn;
extern const struct kernel kernel_transpose_copy;

/* on codes */
extern const struct kernel kernel_concat_s8, kernel_join_s8, kernel_lookup_s8, kernel_move_s8, kernel_pool_s8,
    kernel_resize_s8;
extern const struct kernel kernel_quantize_s8, kernel_dequantize_s8;
extern const struct kernel kernel_depthwise_s8_avx512vnni, kernel_depthwise_s8;
extern const struct kernel kernel_conv_s8_avx512vnni, kernel_conv_s8_avx2, kernel_conv_s8_plain;
extern const struct kernel kernel_gemm_s8_avx512vnni, kernel_gemm_s8_avx2, kernel_gemm_s8_plain;

extern const struct kernel kernel_conv_sparse_f32_avx512, kernel_conv_sparse_f32_avx2,
    kernel_conv_sparse_f32_plain;
extern const struct kernel kernel_gemm_sparse_f32_avx512, kernel_gemm_sparse_f32_avx2,
    kernel_gemm_sparse_f32_plain;
extern const struct kernel kernel_conv_sparse_s8_avx512, kernel_conv_sparse_s8_avx2,
    kernel_conv_sparse_s8_plain;
extern const struct kernel kernel_gemm_sparse_s8_avx512, kernel_gemm_sparse_s8_avx2,
    kernel_gemm_sparse_s8_plain;

/* on signs */
extern const struct kernel kernel_binarize_f32, kernel_convert_bits, kernel_pad_bits;
extern const struct kernel kernel_conv_xnor_avx512vpopcntdq, kernel_conv_xnor_avx2, kernel_conv_xnor_plain;
extern const struct kernel kernel_conv_xnor_bits_avx512vpopcntdq, kernel_conv_xnor_bits_avx2,
    kernel_conv_xnor_bits_plain;
extern const struct kernel kernel_gemm_xnor_avx512vpopcntdq, kernel_gemm_xnor_avx2, kernel_gemm_xnor_plain;

#endif
