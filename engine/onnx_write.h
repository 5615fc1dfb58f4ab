/* The parts of the ONNX writer, private to onnx_write*.c. */
#ifndef ENGINE_ONNX_WRITE_H
#define ENGINE_ONNX_WRITE_H

#include "engine/graph_store.h"
#include "engine/onnx_read.h"
#include "engine/wire_sink.h"

#define ONNX_IR_NODE_METADATA 10 /* the first IR whose nodes have metadata_props */

struct write_model {
    const struct graph *g;
    const struct name_index *names; /* node names: 1 unique, 2 not */
};

struct write_node {
    const struct write_model *m;
    const struct node *n;
};

/* Would a reader not find the node's layer id by itself? */
bool onnx_needs_layer_id(const struct write_model *m, const struct node *n);

wire_put onnx_put_node;        /* struct write_node */
wire_put onnx_put_initializer; /* struct value with init */
wire_put onnx_put_value_info;  /* struct value */
wire_put onnx_put_prop;        /* struct prop */

#endif
