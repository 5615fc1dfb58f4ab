/* How much each input channel of a layer counts: the mean square of what comes in, over calibration samples.
 * An error d in a weight of channel c changes the layer's output by d x[c], whose mean square is d² E[x[c]²]
 * (Stock et al. 2020, "And the bit goes down", equation 3, without correlations). */
#ifndef COMPRESS_INPUT_ENERGY_H
#define COMPRESS_INPUT_ENERGY_H

#include "compress/method.h"

struct input_energies {
    size_t n;
    struct input_energy {
        const char *id; /* of the layer, in the graph */
        float *channel; /* [n]: E[x²]; NULL: not seen */
        int64_t n;
    } * layer;
};

/* Of each selected layer; a graph of one input, types and ranks known (fold_infer_shapes). Free with
 * input_energies_done. */
int input_energies_find(
    struct work *work, const struct layers *layers, struct input_energies *ret, struct error *err);
void input_energies_done(struct input_energies *e);

/* NULL: of no such layer. */
const struct input_energy *input_energy_of(const struct input_energies *e, const char *id);

#endif
