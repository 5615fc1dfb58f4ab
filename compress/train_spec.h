/* What to train: the SPEC.json of `bonsai-worker train`, and the body of a job of kind `train` without what
 * is the daemon's (kind, model, dataset, limits, priority). Either a network of the zoo or one that exists,
 * and the options of finetune (learn.h), whose defaults are the network's own:
 *
 *   {"network": {"zoo": "resnet20", "width": 0.5, "depth": 1, "size": 0} | "from": "…",
 *    "minutes": 0, "seed": 0, "epochs": …, "lr": …, …} */
#ifndef COMPRESS_TRAIN_SPEC_H
#define COMPRESS_TRAIN_SPEC_H

#include <jansson.h>

#include "base/cleanup.h"
#include "compress/learn.h"
#include "compress/zoo.h"

struct train_network {
    char *zoo; /* name */
    double width, depth;
    int size; /* of the input's sides; 0: as the pictures are */
};

struct train_spec {
    struct train_network network;
    bool has_network;
    char *from;     /* an ONNX file, or in a job a model or model~variant; NULL with a network */
    double minutes; /* 0: as long as the epochs take */
    int64_t seed;
    const struct zoo_net *net; /* NULL with `from` */
    struct learn_options learn;
};

/* Errors carry the JSON path: unknown_field, bad_request. train_spec_done, also on failure. */
int train_spec_read(const json_t *j, struct train_spec *ret, struct error *err);
void train_spec_done(struct train_spec *s);

/* All options as JSON Schema, for GET /api/v1/methods. New reference. */
json_t *train_spec_schema(void);

#endif
