/* The body of an infer request, in its three tensor forms (api.md 1): JSON, JSON with binary tensors behind
 * it, raw. Pictures are api/picture.c's. Checked against the model's graph; runs on any thread. */
#ifndef API_INFER_REQUEST_H
#define API_INFER_REQUEST_H

#include <jansson.h>

#include "api/request.h"
#include "api/tensor_json.h"
#include "engine/graph.h"

#define INFER_MAX_PORTS 64

/* One output to be sent. */
struct infer_want {
    size_t output; /* index in graph->outputs */
    bool is_binary;
    unsigned classification; /* best k as "value:index:label"; 0: the tensor itself */
};

struct infer {
    struct tensor_json json; /* the document cut; spans point into the body */
    json_t *doc;             /* owned; NULL: raw or a picture */
    const char *id;          /* in doc; NULL: none was sent */
    char *binary;            /* what follows the JSON in the body */
    size_t binary_size;
    bool is_raw;         /* Inference-Header-Content-Length: 0 */
    unsigned priority;   /* 1 the highest, 0 the default */
    uint64_t timeout_us; /* 0: none */
    bool is_binary;      /* binary_data_output */

    struct tensor in[INFER_MAX_PORTS]; /* in the graph's order. Data in the body (any alignment) or owned */
    void *owned[INFER_MAX_PORTS];
    size_t n_in;
    struct infer_want want[INFER_MAX_PORTS];
    size_t n_want;
    bool needs_preprocess; /* a UINT8 array where the model wants floats: pixels */
};

void infer_init(struct infer *in);
void infer_done(struct infer *in);

/* Step 1: what the scheduler needs to know (id, priority, timeout); fast, as no number is read. Sets the
 * request's id. Errors: bad_json, bad_request. */
int infer_open(struct request *r, struct infer *ret, struct error *err);

/* Step 2: tensors and outputs against the graph. `is_image_model`: UINT8 pixels may stand for a float input.
 * Errors: bad_request (400) naming input and counts; shape_mismatch (422). */
int infer_bind(struct infer *in, const struct graph *g, bool is_image_model, struct error *err);

/* All outputs, as the reply to a picture has them. */
int infer_want_all(const struct graph *g, bool is_binary, struct infer *ret, struct error *err);

/* True for a body that starts as JPEG or PNG and has no Inference-Header-Content-Length. */
bool infer_is_picture(const struct request *r);

#endif
