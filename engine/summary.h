/* What a model is, in numbers: inputs, outputs, operators, layers, parameters, MACs. Made once per upload;
 * checks on the way that the shapes of the whole network fit, and the numbers of its weight forms. */
#ifndef ENGINE_SUMMARY_H
#define ENGINE_SUMMARY_H

#include "engine/graph.h"

struct summary_value {
    const char *name;
    enum dtype dtype;
    struct shape shape; /* -1: free. Of outputs: what differs between two sizes of input */
};

struct summary_op {
    const char *op_type;
    size_t count;
};

/* A node that computes something from the inputs. */
struct summary_layer {
    const char *id, *op_type;
    struct shape shape; /* of its first output, at the sample */
    int64_t params;     /* elements of the constant floats it uses, decoded; shared ones where first used */
    int64_t macs;       /* at the sample */
    int64_t nonzero;    /* of params; -1: not known */
    size_t bytes;       /* its constants as the file stores them */
    const char *form;   /* of its weights (weight.h); NULL: none, or computed in some other way */
};

struct summary {
    struct graph *graph; /* owned: a copy with constants folded; all names are its */
    size_t n_inputs, n_outputs, n_ops, n_layers;
    struct summary_value *inputs, *outputs;
    struct summary_op *ops; /* sorted by name */
    struct summary_layer *layers;
    struct shape *sample; /* n_inputs: the input shapes that MACs and layers are for: batch 1, free sides as
                             the first that works of a few */
    int64_t parameters, macs;
    int64_t nonzero; /* of the parameters; -1: not known */
    size_t bytes;
    int64_t opset, ir_version;
    const char *producer;
};

/* Errors: those of shapes_infer, of the first sample when none works. */
int summary_new(const struct graph *g, struct summary **ret, struct error *err);
struct summary *summary_free(struct summary *s);
DEFINE_CLEANUP(struct summary *, summary_free)

#endif
