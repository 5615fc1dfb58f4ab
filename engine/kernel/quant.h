/* Codes and numbers: real = scale * (code - zero); code = saturate(round_half_even(real / scale) + zero), as
 * QuantizeLinear says. */
#ifndef ENGINE_KERNEL_QUANT_H
#define ENGINE_KERNEL_QUANT_H

#include "engine/graph.h"

/* t: DT_U8 or DT_S8 */
void quant_decode(const void *codes, enum dtype t, struct quant q, int64_t n, float *ret);
void quant_encode(const float *x, int64_t n, struct quant q, enum dtype t, void *ret);

#endif
