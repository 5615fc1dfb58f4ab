/* The layers of a network: its nodes with weights, and which of them a step touches.
 *
 * A layer is a node whose operator couples channels freely (op.h: Conv, Gemm, MatMul, …) and whose second
 * input is constant: an initialiser, or a weight form that an earlier step wrote. A step's scope (methods.md,
 * Common) selects by glob over layer ids; the method then skips what it cannot or should not touch, with a
 * reason that the dry run shows. */
#ifndef COMPRESS_LAYERS_H
#define COMPRESS_LAYERS_H

#include <stdbool.h>

#include "compress/overrides.h"
#include "engine/graph.h"

struct scope {
    const char *const *include; /* NULL-terminated globs; NULL: everything, method's default skips apply */
    const char *const *exclude;
    const void *options;               /* of the step; may be NULL */
    const struct overrides *overrides; /* of single layers; may be NULL */
    const char *only;                  /* the id of the one layer that is touched; NULL: any */
    const char *but;                   /* … of one that is not; NULL: none */
    bool takes_sparse;  /* float weights in a sparse structure are not skipped (struct method) */
    bool takes_encoded; /* nor are encoded ones of any kind */
};

struct layer_entry {
    int node; /* index in the graph it was listed from */
    const char *id;
    int64_t rows, cols;  /* W[rows][cols]: output channels x inputs of one output */
    int64_t params;      /* weight elements */
    int64_t bytes;       /* of the weights now */
    const char *form;    /* that its weights have already (weight.h), which are then skipped; NULL: plain */
    const void *options; /* the step's with this layer's overrides; NULL: the scope has none */
    bool is_named;       /* selected by an include other than "*": overrides default skips */
    bool is_selected;
    const char *reason; /* why it is skipped; static string, NULL when selected */
};

struct layers {
    size_t n;
    struct layer_entry *entry; /* in topological order; ids live in the graph */
    void *kept;                /* what a method's plan keeps for its outline; owned, freed by kept_done */
    void (*kept_done)(void *kept);
};

/* Free with layers_done. */
int layers_list(struct graph *g, const struct scope *scope, struct layers *ret, struct error *err);
void layers_done(struct layers *l);

void layer_skip(struct layer_entry *e, const char *reason);
extern const char layer_encoded[]; /* the reason why encoded layers are skipped */
struct layer_entry *layers_find(const struct layers *l, int node);

/* Each glob of the scope must match a layer. Errors: -EINVAL, naming the glob and the layers whose names are
 * nearest. */
int layers_check_scope(const struct layers *l, const struct scope *scope, struct error *err);

/* Weights that are plain floats in a sparse structure become ordinary dense ones, their zeros exact: what a
 * method takes that keeps zeros, and training. */
int layers_spread(struct graph *g, struct error *err);

/* An id matches a glob itself, and as the base of a product: "conv3" matches "conv3/u" (methods.md, Layer
 * ids). */
bool layer_matches(const char *glob, const char *id);

#endif
