/* Which values of a network travel as int8, and which of them share a scale.
 *
 *   Conv ─ Relu ─● MaxPool ─● Conv ─● Add ─ Relu ─● GlobalAveragePool ─● Flatten ─● Gemm ─ logits (float)
 *                ╰── one scale ──╯                                     ╰─ one scale ─╯
 * ● is a quantised value (QuantizeLinear, DequantizeLinear in the file). Rules:
 *   - inputs and outputs of selected layers are quantised; an output only behind the clamp that follows it
 * (Relu, Relu6 vanish in the requantisation), and never on the way from the last layer to a graph output
 * (logits stay float);
 *   - an operator that can run in int8 (op->quant) carries on: all inputs quantised, so is its output;
 *   - operators that keep a scale (MaxPool, Concat, Flatten, …) force one scale on all they touch: one class;
 *   - a chain of elementwise operators over one value and scalars (hard-swish spelled out) is one unary
 * function of it: quantised at both ends, float inside (the engine makes a 256-entry table of it). */
#ifndef COMPRESS_QREGION_H
#define COMPRESS_QREGION_H

#include "compress/layers.h"

struct qregion {
    size_t n_values;
    int *class_of; /* [value]: class, -1: float */
    int n_classes;
};

int qregion_find(const struct graph *g, const struct layers *layers, struct qregion *ret, struct error *err);
void qregion_done(struct qregion *q);

#endif
