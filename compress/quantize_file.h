/* Writing the int8 pattern into a graph. New nodes are appended; graph_finish sorts them in. */
#ifndef COMPRESS_QUANTIZE_FILE_H
#define COMPRESS_QUANTIZE_FILE_H

#include "compress/quantize.h"

/* Replaces weights (quantize_codes_emit) and bias of layer `node`. scale_x > 0: the layer's input is
 * quantised with it and the bias becomes int32 at scale_x * scale_w; else the bias stays float. `bias` has
 * rows entries. */
int quantize_file_layer(struct graph *g, int node, const struct weight_rows *rows,
    const struct quantized_weights *q, const float *bias, float scale_x, struct error *err);

/* The bias alone, for weights that are there already with these scales. */
int quantize_file_bias(struct graph *g, int node, const struct weight_rows *rows,
    const struct row_scales *scales, const float *bias, float scale_x, struct error *err);

/* QuantizeLinear, DequantizeLinear after every quantised value; graph outputs keep the float value itself. */
int quantize_file_values(struct graph *g, const struct qregion *region, const struct quant *quant,
    enum dtype t, struct error *err);

#endif
