/* Writing a variant: metadata that says what was done, then the file, complete or not there. */
#ifndef COMPRESS_VARIANT_FILE_H
#define COMPRESS_VARIANT_FILE_H

#include <jansson.h>

#include "engine/graph.h"

/* Records recipe, parent's digest and the layers' forms in the model's metadata (props bonsai.*). */
int variant_describe(struct graph *g, const json_t *steps, const char *parent_digest, struct error *err);

/* A temporary file beside `path`, fsynced, then renamed: a kill leaves the old state or the new one. */
int variant_write(const struct graph *g, const char *path, struct error *err);

/* [{"id","form"}] of every layer with recognised weights. New reference. */
json_t *variant_layers(struct graph *g, struct error *err);

#endif
