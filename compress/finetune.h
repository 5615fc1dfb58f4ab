/* Method `finetune`: goes on training the network on labelled data (learn.h). */
#ifndef COMPRESS_FINETUNE_H
#define COMPRESS_FINETUNE_H

#include "compress/learn.h"
#include "compress/method.h"

extern const struct method method_finetune;

/* Trains work->graph, whose weights are float, with these options; `distil` NULL: by labels alone; `scope`:
 * which layers learn, NULL: all. `name`: of the checkpoint, unique in the job. Errors: those of learn();
 * method_not_applicable naming the node whose weights are encoded; data_required. */
int finetune_graph(struct work *work, const struct learn_options *o, const struct learn_distil *distil,
    const struct scope *scope, const char *name, json_t *report, struct error *err);

/* A network as learn() wants it: identities and constants folded. Errors: method_not_applicable naming the
 * layer whose weights are encoded. */
int finetune_prepare(struct graph *g, struct error *err);

#endif
