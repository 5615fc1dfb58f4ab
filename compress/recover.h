/* Recovery after a step (methods.md): `recover.calibrate` without training, then `recover.finetune` and
 * `recover.distill`, which are one training: by labels, by the parent's answers, or by both.
 *
 * Calibration.  * Layer by layer, in order, the channels of each changed layer's pre-activations are brought
 * back to the parent's mean and, when asked, deviation on the calibration samples: y' = m y + a, folded into
 * the layer's weights (their scales when quantised) and bias. Re-estimation of batch norm for networks whose
 * batch norm is folded (Nagel et al. 2019, section 4.2; Finkelstein et al. 2019, "Fighting quantization bias
 * with bias"). */
#ifndef COMPRESS_RECOVER_H
#define COMPRESS_RECOVER_H

#include "compress/distil.h"
#include "compress/method.h"

struct recover_calibrate {
    bool is_wanted;
    int samples;
    bool bias, variance, least_squares;
};

struct recover {
    struct recover_calibrate calibrate;
    bool has_finetune, has_distill;
    struct learn_options finetune; /* also of a distillation */
    struct distil_options distill;
};

extern const struct param_table recover_table;

/* Does the recovery train the network? */
bool recover_trains(const struct recover *r);

/* Whatever of it is wanted, in order; fills "finetune" of the report. `before`: the graph as the step found
 * it, from whose float weights encoded layers learn. */
int recover_run(struct work *work, const struct graph *before, const struct recover *o, json_t *report,
    struct error *err);

/* The channels of the parent's that a layer still has, in order. */
struct recover_kept {
    const char *id;
    int64_t n;
    const int *channel; /* [n] */
};

/* `parent` folded (fold.h), its value `parent_value` what the layer's output should be. A layer that is not
 * dense float, of one group and at most LEAST_SQUARES_MAX inputs, or has not one row a sample, stays as it
 * is. `kept` NULL: it has all channels of the value. */
int recover_squares(struct work *work, const struct graph *parent, int node, int parent_value,
    const struct recover_kept *kept, const struct samples *samples, struct error *err);

/* `parent` is the job's `from`, in any form; layers are matched by id. */
int recover_calibrate(
    struct work *work, const struct graph *parent, const struct recover_calibrate *o, struct error *err);

/* The same after channels were removed: kept[n_kept], layers that are not in it have all of theirs. */
int recover_calibrate_kept(struct work *work, const struct graph *parent, const struct recover_calibrate *o,
    const struct recover_kept *kept, size_t n_kept, struct error *err);

#endif
