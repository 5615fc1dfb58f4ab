/* The parts of the ONNX reader, private to onnx_*.c. Each file reads a few messages of onnx.proto; the field
 * numbers are the schema's. Nothing recurses: the nesting read is Model > Graph > Node > Attribute > Tensor.
 */
#ifndef ENGINE_ONNX_READ_H
#define ENGINE_ONNX_READ_H

#include "engine/graph.h"
#include "engine/graph_store.h"
#include "engine/wire.h"

/* Metadata that holds a layer's id where it is not the node's name: of the node (IR 10 and later), or of the
 * model with ":" and the name of the node's first output behind it. */
#define ONNX_LAYER_KEY "bonsai.layer"

/* Reads the model without graph_finish: nodes not sorted, operators not looked up. */
int onnx_parse(const void *data, size_t size, struct graph **ret, struct error *err);

/* A copy of a name in the arena. Refuses zero bytes and what is not UTF-8. */
int onnx_read_name(
    struct graph *g, const struct wire *w, const struct wire_field *f, const char **ret, struct error *err);

/* The value called `name`, made if new; "" gives -1. */
int onnx_value_id(struct graph *g, const char *name, int *ret, struct error *err);

/* TensorProto from `w` (at its start). Elements stay where they are if they lie in the file as the engine
 * wants them. Types the engine cannot hold give data NULL. `what` begins the sentence of an error:
 * "initialiser", "attribute". */
int onnx_read_tensor_proto(struct graph *g, struct wire w, const char *what, const char **ret_name,
    struct tensor *ret, struct error *err);

/* AttributeProto. `node` names the node in errors. */
int onnx_read_attr(
    struct graph *g, const struct wire *w, const struct wire_field *f, struct attr *ret, struct error *err);

/* ValueInfoProto: puts name, type and shape on the value (made if new); *ret its id. */
int onnx_read_value_info(
    struct graph *g, const struct wire *w, const struct wire_field *f, int *ret, struct error *err);

/* NodeProto, appended to the graph. */
int onnx_read_node(struct graph *g, const struct wire *w, const struct wire_field *f, struct error *err);

/* StringStringEntryProto. */
int onnx_read_prop(
    struct graph *g, const struct wire *w, const struct wire_field *f, struct prop *ret, struct error *err);

#endif
