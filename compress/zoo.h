/* Networks to train from nothing: one const row each, beside its code (zoo_NAME.c). A network is shaped for
 * pictures and classes: the paper's layers where they fit, with what is different for small or large pictures
 * said in the file. The result is standard ONNX (opset 13), the batch free, one input `input` [N][c][h][w]
 * and one output `logits` [N][classes]. The same spec gives the same bytes (zoo_layers.h: how weights start).
 */
#ifndef COMPRESS_ZOO_H
#define COMPRESS_ZOO_H

#include <jansson.h>

#include "compress/zoo_layers.h"

#define ZOO_MAX_SIDE    1024
#define ZOO_MAX_CLASSES 65536

struct zoo_net {
    const char *name;
    const char *summary;
    const char *source; /* paper */
    /* Factors on the paper's channels and blocks; equal: not to be chosen. */
    double min_width, max_width, min_depth, max_depth;
    int min_side;         /* of a picture */
    const char *defaults; /* training options that differ from finetune's, as a JSON object */
    struct zoo_map (*build)(struct zoo_maker *m, struct zoo_map x); /* the logits, flat */
};

struct zoo_spec {
    double width, depth; /* 1: as in the paper */
    int64_t channels, height, width_px, n_classes;
    uint64_t seed;
};

extern const struct zoo_net *const zoo_table[]; /* sorted by name */
extern const size_t zoo_table_size;

/* NULL: no such network. */
const struct zoo_net *zoo_find(const char *name);

/* Are width and depth in the network's ranges? `path` ("network") begins the error. */
int zoo_check(const struct zoo_net *net, double width, double depth, const char *path, struct error *err);

/* *ret: the network, accepted by graph_finish. Errors: bad_request (as zoo_check), method_not_applicable
 * (pictures too small, too large, not of 1 or 3 channels; fewer than two classes), out of memory. */
int zoo_new(const struct zoo_net *net, const struct zoo_spec *spec, struct graph **ret, struct error *err);

/* [{"name","summary","source","width":[min,max],"depth":[min,max],"min_side","defaults":{…}}]: what
 * GET /api/v1/methods shows. New reference. */
json_t *zoo_list(void);

#endif
