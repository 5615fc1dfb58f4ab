/* AdaRound: each weight of a quantised layer is rounded up or down as the layer's outputs want it, not to the
 * nearest (Nagel et al. 2020, "Up or down? Adaptive rounding for post-training quantization"). Without
 * labels.
 *
 * Layer by layer in order, with the inputs that the network quantised so far gives (equation 25, without the
 * activation function):
 *
 *     minimise  E |W x - W~ x^|² + lambda sum (1 - |2 h(V) - 1|^beta)     over V,
 *     W~ = s clip(floor(W / s) + h(V)),  h(V) = clip(1.2 sigmoid(V) - 0.1, 0, 1)      (equations 21 to 24)
 *
 * beta falls from 20 to 2. The expectation is over output pixels of the samples and enters by its second
 * moments, so that each step of Adam is one over all of them. At the end single weights are turned round as
 * long as that lowers the first term. A row whose error is no smaller then keeps the nearest integers. */
#ifndef COMPRESS_ADAROUND_H
#define COMPRESS_ADAROUND_H

#include "compress/quantize.h"

struct adaround {
    const struct layers *layers;
    const struct graph *parent;        /* float, folded: has the layers' weights and what they should give */
    struct quantized_weights *weights; /* [layers->n], as they stand in the graph; q changes */
    bool is_centred; /* means of outputs are restored in the bias: they are no part of the error */
};

/* Changes the codes of selected layers in work->graph, and biases if is_centred. `report` gets "adaround":
 * [{"id", "error_nearest", "error", "reason" of none}], errors relative to the outputs' variance. */
int adaround(struct work *work, const struct adaround *a, json_t *report, struct error *err);

/* ---- one group of a layer, by itself ---- */

struct adaround_problem {
    int64_t rows, k;
    int least, most;    /* codes */
    const float *w, *s; /* [rows][k] weights and their scales */
    const float *g;     /* [k][k] second moments of the inputs, symmetric */
    const float *c; /* [rows][k] of outputs wanted with inputs: row r of W g, were the inputs the parent's */
    int iterations;
};

/* q: [rows][k], the nearest codes; becomes better ones. *ret_before, *ret_after: sum over rows of w~ g w~ - 2
 * w~ c, to which only the outputs' own second moment is missing. */
int adaround_solve(
    const struct adaround_problem *p, int8_t *q, double *ret_before, double *ret_after, struct error *err);

#endif
