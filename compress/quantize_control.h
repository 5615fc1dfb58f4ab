/* accuracy_control: layers whose quantisation costs most go back to float, one after the other, until the
 * accuracy on held-out data (held_out.h) is no more than max_drop below what it was before the step. Which
 * layers cost most: with each one quantised alone, how far the network's outputs move on some samples. */
#ifndef COMPRESS_QUANTIZE_CONTROL_H
#define COMPRESS_QUANTIZE_CONTROL_H

#include "compress/quantize.h"

/* The scheme's apply under o->accuracy_control. `report` is the last apply's, with "accuracy_control":
 * {"before", "quantized", "accuracy", "max_drop", "reverted": [{"id", "damage"}]}. Errors: data_required
 * (no labels), method_not_applicable (not even one layer can stay; says how far below it is with one). */
int quantize_controlled(struct work *work, const struct quantize_scheme *s, const struct quantize_options *o,
    const struct scope *scope, json_t *report, struct error *err);

#endif
