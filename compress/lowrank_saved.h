/* Measured times beside a job's checkpoints: a job that was killed goes on with those it had. */
#ifndef COMPRESS_LOWRANK_SAVED_H
#define COMPRESS_LOWRANK_SAVED_H

#include "compress/method.h"

/* *ret: a list (new reference), or NULL: there is none, or what there is cannot be read. */
int lowrank_saved_read(const struct work *work, json_t **ret, struct error *err);
int lowrank_saved_write(const struct work *work, const json_t *latencies, struct error *err);

#endif
