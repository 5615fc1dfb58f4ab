/* From any infer body to the tensors of a model: JSON, binary and raw by infer_bind(), pictures and arrays of
 * pixels by the model's `preprocess` (api.md, section 2). Decodes: on slots, never on the loop. */
#ifndef API_PICTURE_H
#define API_PICTURE_H

#include "api/infer_reply.h"
#include "api/infer_request.h"

/* Fills in->in[] and in->want[]. `model`: its document. infer_open() came before, unless the body is a
 * picture (infer_is_picture). Errors: those of infer_bind(); preprocess_required, shape_mismatch (422),
 * bad_request, too_large (413) for pictures. */
int picture_bind(
    const struct request *r, const json_t *model, const struct graph *g, struct infer *in, struct error *err);

/* The parts of an answer that follow from graph and outputs: whether there are classes (the first output is
 * [N,K] or [N,K,1,1] floats), and whether its scores are probabilities already. */
void picture_describe(const struct graph *g, const struct tensor *out, struct infer_answer *ret);

#endif
