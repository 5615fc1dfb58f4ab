/* Recovery after a step without training: `recover.calibrate` (methods.md).
 *
 * Layer by layer, in order, the channels of each changed layer's pre-activations are brought back to the
 * parent's mean and, when asked, deviation on the calibration samples: y' = m y + a, folded into the layer's
 * weights (their scales when quantised) and bias. Re-estimation of batch norm for networks whose batch norm
 * is folded (Nagel et al. 2019, section 4.2; Finkelstein et al. 2019, "Fighting quantization bias with
 * bias"). */
#ifndef COMPRESS_RECOVER_H
#define COMPRESS_RECOVER_H

#include "compress/method.h"

struct recover_calibrate {
    bool is_wanted;
    int samples;
    bool bias, variance;
};

/* `parent` is the job's `from`, in any form; layers are matched by id. */
int recover_calibrate(
    struct work *work, const struct graph *parent, const struct recover_calibrate *o, struct error *err);

#endif
