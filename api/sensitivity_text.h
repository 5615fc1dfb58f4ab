/* The table of a sensitivity job as text. */
#ifndef API_SENSITIVITY_TEXT_H
#define API_SENSITIVITY_TEXT_H

#include <jansson.h>

#include "base/buf.h"

/* `result`: of such a job that has succeeded. 0; -EFBIG, -ENOMEM. */
int sensitivity_text(const json_t *result, struct buf *ret);

#endif
