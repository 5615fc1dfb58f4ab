/* What a graph owns, private to graph*.c and onnx_*.c. */
#ifndef ENGINE_GRAPH_STORE_H
#define ENGINE_GRAPH_STORE_H

#include <stdatomic.h>

#include "engine/graph.h"
#include "engine/name_index.h"

struct graph_chunk {
    struct graph_chunk *next;
    size_t used, size;
    bool is_single; /* made for one big block */
    _Alignas(64) uint8_t data[];
};

/* An arena, the mapping behind it, and the arena of the graph it was cloned from. Counted: a graph and its
 * clones. Only the graph it was made for allocates from it. */
struct graph_mem {
    atomic_int n_refs;
    struct graph_chunk *chunks; /* newest first */
    void *map;                  /* NULL: no file */
    size_t map_size;
    struct graph_mem *base;
};

/* A value as the file has it. The writer uses these bytes where they still say the same. */
struct value_kept {
    const char *name;
    struct bytes info; /* ValueInfoProto; empty: none */
    enum dtype dtype;  /* as the info says */
    struct shape shape;
    struct bytes init;         /* TensorProto; empty: none */
    const struct tensor *read; /* what the reader made of it */
};

struct opset_import {
    const char *domain;
    int64_t version;
    struct bytes read; /* OperatorSetIdProto of the file; empty: made by us */
};

struct graph_store {
    struct graph_mem *mem;
    struct name_index names; /* value name to id */
    size_t cap_values, cap_nodes, cap_props, cap_inputs, cap_outputs;
    int *listed; /* graph inputs as the file lists them, IR 3's initialisers included */
    size_t n_listed, cap_listed;
    int *inits; /* ids of values with initialisers, in file order */
    size_t n_inits, cap_inits;
    struct opset_import *imports;
    size_t n_imports, cap_imports;
    struct bytes *kept_model, *kept_graph; /* whole fields the engine does not interpret */
    size_t n_kept_model, n_kept_graph, cap_kept_model, cap_kept_graph;
};

/* Grows a malloc'ed array so that one more element fits. 0; -EFBIG over GRAPH_MAX_COUNT; -ENOMEM. */
int graph_grow(void *array_ptr, size_t *cap, size_t n, size_t element);

/* As graph_add_value, for names that are already in the arena. */
int graph_add_named(struct graph *g, const char *name);

int graph_put_bytes(struct bytes **list, size_t *n, size_t *cap, struct bytes b);
int graph_add_init_id(struct graph *g, int value);
#endif
