/* compress/: what a job does to a network. A recipe is a list of steps, each a method with its options,
 * applied in order.
 *
 *   method.h recipe.h                 the table of methods; a recipe read, planned (dry run) and run
 *   layers.h                          which layers a step touches
 *   samples.h probe.h observer.h      looking at activations
 *   sensitivity.h graph_cut.h         how far a changed network's answers move; only what differs is computed
 *   lowrank*.c prune*.c quantize*.c encode*.c   one family of files a method; coupling.h codebook.h linalg.h,
 *                                     what they stand on
 *   trainable.h recode.h              compressed layers as training sees them, and back
 *   dataset*.c feed.c evaluate.c      data sets, accuracy
 *   learn.h zoo.h train_job.h         the loop that learns; networks to begin with; the two as a job
 *   batches.h augment.h picture_cache.h   pictures to learn from
 *   worker.c cmd_*.c sandbox.c        the program bonsai-worker, and what it does to itself first
 *
 * Uses engine/, image/, config/, base/; knows nothing of HTTP or the daemon. Start at recipe_run.
 *
 * A method is one const row: its options are a typed table (config/param.h) from which the JSON is read,
 * checked and documented (GET /api/v1/methods). */
#ifndef COMPRESS_METHOD_H
#define COMPRESS_METHOD_H

#include <jansson.h>

#include "compress/layers.h"
#include "compress/progress.h"
#include "compress/samples.h"
#include "config/param.h"

struct recover;

/* What steps work on. */
struct work {
    struct graph *graph;           /* owned; each step leaves a graph that graph_finish accepted */
    const struct samples *samples; /* calibration data; NULL: none given */
    const struct graph *parent;    /* the job's `from` */
    const struct progress *progress;
    uint64_t seed;
    const char *checkpoint; /* folder for what a long step may go on from, of this job alone; NULL: none */
    int checkpoint_seconds; /* at least so often; 0: whenever it can be */
    uint64_t memory_bytes;  /* most that a step may take; 0: any */
    size_t step;            /* of the recipe */

    /* What the step does afterwards to win accuracy back; NULL: nothing. A method whose own loop
     * calibrates or trains does it as that says, and says that it has: it is not done again. */
    const struct recover *recover;
    bool has_calibrated, has_trained;
};

/* What a step would do, or did, to one layer: the dry run and the report. */
struct effect {
    const char *form; /* weight form afterwards: "int8"; NULL: unchanged */
    int64_t bytes;    /* of its weights in the file afterwards */
    int64_t macs;     /* afterwards, of what is not zero; -1: unchanged */
};

struct method {
    const char *name;
    const char *summary;
    const char *source; /* papers */
    const struct param_table *options;
    size_t options_size;
    bool needs_data;   /* refused with data_required without samples */
    bool folds;        /* its layers are those of the graph with batch norm folded (fold.h) */
    bool keeps_norms;  /* … with all folded but batch norm */
    bool takes_sparse; /* layers whose float weights an earlier step stored sparsely are its own too: it finds
                          them as plain weights with exact zeros, which it keeps (keep_zeros.h) */

    bool takes_encoded; /* encoded layers of all kinds are its own too */
    bool leaves_float;  /* the forms it writes hold floats, in any structure: they can still be trained and
                           taken by the methods that take sparse ones */

    /* Do these options need samples? NULL: no more than `needs_data` says. */
    bool (*wants_data)(const void *options);

    /* Combinations the option table cannot express. NULL: none. The path of the step is prefixed by the
     * caller. */
    int (*check)(const void *options, struct error *err);

    /* The same of the options together with what `recover` says (never NULL). NULL: none. */
    int (*check_recover)(const void *options, const struct recover *recover, struct error *err);

    /* Method's own skips and what would happen to each selected layer; touches nothing. `effects` has
     * layers->n entries. */
    int (*plan)(const struct graph *g, const void *options, struct layers *layers, struct effect *effects,
        struct error *err);

    /* Does the step itself train with these options, whatever its recovery? NULL: never. */
    bool (*trains)(const void *options);

    /* For the dry run: gives `g` the shapes that the step would leave, so that later steps and all MACs are
     * planned on them; what the weights are does not matter. NULL: shapes stay. */
    int (*outline)(struct graph *g, const void *options, const struct layers *layers, struct error *err);

    /* Rewrites work->graph; layers as plan left them (ids, not indices, are stable if the method folds
     * first). Fills `report` (a JSON object) with what it found, for the variant's report. */
    int (*apply)(
        struct work *work, const void *options, const struct scope *scope, json_t *report, struct error *err);
};

extern const struct method *const method_table[];
extern const size_t method_table_size;

const struct method *method_find(const char *name);

#endif
