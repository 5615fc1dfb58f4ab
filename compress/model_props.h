/* What a model file says of its own use, in its metadata: `bonsai.labels` (JSON list, one name a class) and
 * `bonsai.preprocess` (api.md's object). Written by training; read from every upload, so that a model taken
 * from one daemon to another, or judged offline, needs no card beside it. What does not fit the network is
 * ignored: metadata is foreign text. */
#ifndef COMPRESS_MODEL_PROPS_H
#define COMPRESS_MODEL_PROPS_H

#include <jansson.h>

#include "engine/graph.h"

/* Either may be NULL or null: not set. */
int model_props_set(struct graph *g, const json_t *labels, const json_t *preprocess, struct error *err);

/* New references, or NULL where there is none, or none that fits the (one) input and the number of classes of
 * the first output. */
void model_props_read(const struct graph *g, json_t **ret_labels, json_t **ret_preprocess);

#endif
