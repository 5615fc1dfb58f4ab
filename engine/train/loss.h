/* Losses, one row each. The network's outputs are logits o[0..n) of a sample, the targets y[0..n): class
 * probabilities (one 1 for a hard label), or the numbers to be met. */
#ifndef ENGINE_TRAIN_LOSS_H
#define ENGINE_TRAIN_LOSS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct loss_param {
    float smoothing; /* cross entropy: share of the target that goes to all classes alike (Szegedy 2016, 7) */
    float temperature; /* kl, distil: of both distributions (Hinton 2015); 0: 1 */
    float weight;      /* distil: share of the teacher's part */
};

struct loss_kind {
    const char *name;
    unsigned n_targets;  /* y holds so many times n numbers */
    bool is_elementwise; /* a sum over the outputs, whatever their shape */
    /* The loss of one sample; d[0..n) = scale times its gradient by the outputs. */
    double (*run)(
        const struct loss_param *p, const float *o, const float *y, int64_t n, float scale, float *d);
};

struct loss {
    const struct loss_kind *kind;
    struct loss_param param;
};

/* "bce", "cross_entropy", "distil" (y are the targets of cross entropy, then those of kl), "kl" (y are the
 * teacher's logits; the gradient is multiplied by T²), "l2" (half the squared distance). NULL: no such loss.
 */
const struct loss_kind *loss_find(const char *name);

#endif
