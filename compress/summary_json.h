/* A model's summary as the JSON that `bonsai-worker check` prints and the API shows. */
#ifndef COMPRESS_SUMMARY_JSON_H
#define COMPRESS_SUMMARY_JSON_H

#include <jansson.h>

#include "engine/summary.h"

/* NULL: out of memory. */
json_t *summary_json(const struct summary *s);

#endif
