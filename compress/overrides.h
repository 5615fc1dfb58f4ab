/* A step's options for single layers: {"conv3*": {"sparsity": 0.7}} (methods.md, Common). Only keys whose row
 * says `per_layer` may stand there; the other options are the step's. Of the globs that match a layer the
 * last one wins. */
#ifndef COMPRESS_OVERRIDES_H
#define COMPRESS_OVERRIDES_H

#include <jansson.h>

#include "config/param.h"

struct override {
    char *glob;
    void *options; /* a struct of the method's table */
};

struct overrides {
    const struct param_table *table;
    size_t n;
    struct override *item;
};

/* `j`: the object, or NULL: none. `step`: the step's own object, whose keys in `skip` are not the method's.
 * Errors carry the JSON path below `path`. */
int overrides_read(const json_t *j, const struct param_table *table, size_t options_size, const json_t *step,
    const char *const *skip, const char *path, struct overrides *ret, struct error *err);
void overrides_done(struct overrides *o);

/* Options of layer `id`: an override's, else `options`. */
const void *overrides_find(const struct overrides *o, const char *id, const void *options);

#endif
