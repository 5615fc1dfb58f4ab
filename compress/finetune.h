/* Method `finetune`: goes on training the network on labelled data (learn.h). Compressed layers stay in their
 * form while they learn. */
#ifndef COMPRESS_FINETUNE_H
#define COMPRESS_FINETUNE_H

#include "compress/learn.h"
#include "compress/method.h"

extern const struct method method_finetune;

/* Trains work->graph with these options, through the forms of its weights (trainable.h); `distil` NULL: by
 * labels alone; `scope`: which layers learn, NULL: all; `latents` (may be NULL): where encoded layers start
 * from, the graph before the step that encoded them. `name`: of the checkpoint, unique in the job. `hook` may
 * be NULL. Errors: those of learn(); method_not_applicable naming a node whose form cannot be trained;
 * data_required. */
struct finetune_run {
    const struct learn_distil *distil;
    const struct scope *scope;
    const struct graph *latents;
    const struct learn_hook *hook; /* not together with learns_scales */
    bool learns_scales;            /* of integers and quantised values (trainable.h) */
    const char *name;
};

int finetune_graph(struct work *work, const struct learn_options *o, const struct finetune_run *run,
    json_t *report, struct error *err);

/* A float network as learn() wants it: identities and constants folded. Errors: method_not_applicable naming
 * the layer whose weights are encoded. */
int finetune_prepare(struct graph *g, struct error *err);

#endif
