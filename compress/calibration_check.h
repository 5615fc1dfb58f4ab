/* What calibration data cannot tell, said in the report: "warnings" of a step become verdicts of the variant.
 *
 *   calibrated_on_one_colour     every picture has one value a channel: ranges inside the network mean
 * nothing other_sizes_not_calibrated   the network takes pictures of any size, and one size was seen */
#ifndef COMPRESS_CALIBRATION_CHECK_H
#define COMPRESS_CALIBRATION_CHECK_H

#include <jansson.h>

#include "compress/samples.h"
#include "engine/graph.h"

/* Adds to report["warnings"]. Errors: those of reading samples. */
int calibration_check(
    const struct graph *g, const struct samples *samples, json_t *report, struct error *err);

#endif
