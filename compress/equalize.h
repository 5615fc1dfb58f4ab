/* Cross-layer equalisation (Nagel et al. 2019, "Data-free quantization through weight equalization and bias
 * correction", section 4.1): the range of a layer's output channel and that of the next layer's weights on it
 * are made equal by a factor that the activation between them lets through.
 *
 *     W1[i] /= s_i,  b1[i] /= s_i,  W2[:, i] *= s_i,   s_i = sqrt(r1_i r2_i) / r2_i        (equation 11)
 *
 * Pairs go through Relu, LeakyRelu, PRelu, pools and Flatten, and over depthwise convolutions, which are the
 * second of one pair and the first of the next; all pairs in turn until nothing moves. Relu6 lets no factor
 * through: where it clips nothing on the samples it becomes Relu first, else the pair is left alone. */
#ifndef COMPRESS_EQUALIZE_H
#define COMPRESS_EQUALIZE_H

#include <jansson.h>

#include "compress/samples.h"
#include "engine/graph.h"

/* Folded float graph (fold.h); computes the same afterwards, up to rounding. `samples` NULL: Relu6 stays.
 * `report` gets "equalized": [[first, second], …]. */
int equalize(struct graph *g, const struct samples *samples, json_t *report, struct error *err);

#endif
