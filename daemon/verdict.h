/* What the software says of a variant by itself: slower or bigger than its parent, significantly less
 * accurate, judged on calibrated pictures, fed with default preprocessing. */
#ifndef DAEMON_VERDICT_H
#define DAEMON_VERDICT_H

#include <jansson.h>
#include <stdbool.h>

#include "base/error.h"
#include "daemon/store.h"

/* Sets variant["verdicts"]. `done`: the worker's result with its own verdicts, NULL: keeps the worker's
 * earlier ones. */
void verdict_set(json_t *variant, const json_t *parent, const json_t *done, const json_t *model);

/* The job's `require`; false: err says which, with the measured figure. */
bool verdict_meets(const json_t *variant, const json_t *parent, const json_t *requirement, struct error *err);

/* Has the data set's split labels of at least two classes? */
bool verdict_has_labels(struct store *s, const char *dataset, const char *split);

#endif
