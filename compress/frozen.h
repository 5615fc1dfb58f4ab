/* Which parameters a training leaves as they are: those of layers that a scope does not select, and of the
 * norms behind them. */
#ifndef COMPRESS_FROZEN_H
#define COMPRESS_FROZEN_H

#include "compress/layers.h"

struct frozen {
    int *value; /* initialisers of the graph */
    size_t n;
};

/* A parameter that a selected layer uses as well is learned. Errors: -ENOMEM, those of layers_list(). */
int frozen_find(struct graph *g, const struct scope *scope, struct frozen *ret, struct error *err);
void frozen_done(struct frozen *f);

#endif
