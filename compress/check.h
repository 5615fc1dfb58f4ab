/* The check of an upload: read, shapes inferred, summed up. What the daemon learns of a foreign file before
 * it opens it itself. */
#ifndef COMPRESS_CHECK_H
#define COMPRESS_CHECK_H

#include <jansson.h>

#include "base/error.h"

/* *ret: the summary as JSON (new reference). */
int check_model(const char *path, json_t **ret, struct error *err);

#endif
