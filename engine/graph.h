/* The graph: what an ONNX file says, and what passes make of it.
 *
 * A graph owns everything in it through one arena: names, attributes, shapes, nodes; initialisers point into
 * the mapped file, which the graph keeps mapped, or into the arena. Nothing is freed singly. It is edited
 * only by the thread that builds it and is immutable once published (net.h, store).
 *
 *        values[]  0..n_values-1        nodes[]  in topological order
 *          name, dtype, shape  <-------  in[]  (-1: optional input left out)
 *          init (constant) or            out[]
 *          producer node or
 *          graph input
 */
#ifndef ENGINE_GRAPH_H
#define ENGINE_GRAPH_H

#include "base/cleanup.h"
#include "engine/tensor.h"

struct graph;
struct node;
struct op;
struct weight;

enum attr_type { /* AttributeProto.AttributeType */
    ATTR_FLOAT = 1,
    ATTR_INT = 2,
    ATTR_STRING = 3,
    ATTR_TENSOR = 4,
    ATTR_GRAPH = 5,
    ATTR_FLOATS = 6,
    ATTR_INTS = 7,
    ATTR_STRINGS = 8,
    ATTR_OTHER = 0, /* kept as raw bytes for the writer */
};

struct bytes {
    const uint8_t *data; /* not zero-terminated */
    size_t size;
};

struct attr {
    const char *name;
    enum attr_type type;
    size_t n; /* elements of floats, ints, strings */
    union {
        float f;
        int64_t i;
        struct bytes s;
        const struct tensor *t;
        const float *floats;
        const int64_t *ints;
        const struct bytes *strings;
    };
    struct bytes raw; /* the whole AttributeProto as read; empty when made by us */
};

/* A value stored as integers: real = scale * (stored - zero). scale 0: the value is not quantised.
 * A quantised value's `dtype` is the stored one (u8, s8), yet the operators around it mean its real numbers:
 * op->shape and op->forward see it as F32 (the reference kernel decodes and encodes), except operators whose
 * row says `sees_codes` (QuantizeLinear, DequantizeLinear), which stay as nodes at the borders of a quantised
 * region. */
struct quant {
    float scale;
    int32_t zero;
};

struct value {
    const char *name;
    enum dtype dtype;              /* DT_NONE until declared or inferred */
    struct shape shape;            /* declared or inferred; rank -1: unknown */
    const char *const *dim_param;  /* rank names of free dimensions, NULL entries or NULL */
    int producer;                  /* node index, -1: input or initialiser */
    const struct tensor *init;     /* initialiser (constant), NULL: computed */
    struct quant quant;            /* set by pass_qdq on values that travel as int8 */
    bool is_sign;                  /* set by pass_sign: all elements are +1 or -1, LAYOUT_BITS holds them */
    bool is_input, is_output;      /* is_input with init: an initialiser listed as input (IR 3) */
    const struct value_kept *kept; /* as it was read, for the writer (graph_store.h); NULL: made by us */
};

/* An elementwise operation a kernel applies to its result before storing it (set by pass_fuse and pass_qdq).
 * `op` is unary (Relu, Clip, HardSwish, …) or Add with the value `other`, which has the shape of the result.
 * The numbers are normalised: Relu and LeakyRelu: alpha is the slope below 0; Clip: alpha low, beta high;
 * Elu, Swish: alpha; HardSigmoid: alpha, beta; HardSwish and the others: 0. */
struct post {
    const struct op *op;
    const void *param;           /* of the fused node */
    const struct tensor *arg[2]; /* its constant inputs 1 and 2 (bounds of Clip), aligned; NULL: none */
    int other;                   /* value id of the residual, -1 */
    float alpha, beta;
};

#define NODE_MAX_POSTS 4

struct node {
    const char *name; /* as in the file, may be "" */
    const char *id;   /* layer id (methods.md): name if unique and not empty, else OpType_output0 */
    const char *op_type;
    const char *domain;  /* "" for the ONNX domain */
    const struct op *op; /* row of ops.c */
    int n_in, n_out;
    int *in, *out; /* value ids */
    size_t n_attr;
    struct attr *attr;
    const void *param; /* what op->parse made of the attributes; in the graph's arena */
    bool is_parsed;
    const struct bytes *kept; /* fields of the file that mean nothing to the engine, written again */
    size_t n_kept;

    /* set by passes on the execution graph only */
    int n_post;
    struct post post[NODE_MAX_POSTS];
    const struct weight *weight; /* recognised form of in[1]; NULL: none (weight.h) */
    bool is_encoding;            /* part of such a form: computed only where a kernel cannot take the codes */
    const float *sign_scale;     /* [output channels]: in[0] is_sign and the weights are plus or minus this
                                    (pass_sign); NULL: not so */
};

struct prop {
    const char *key, *value;
};

/* More values or nodes than this are refused: ids stay small and a hostile file costs bounded memory. */
#define GRAPH_MAX_COUNT (1u << 19)

struct graph {
    const char *name, *producer;
    int64_t ir_version, opset;                              /* opset of the ONNX domain */
    size_t n_values, n_nodes, n_inputs, n_outputs, n_props; /* at most GRAPH_MAX_COUNT each */
    struct value *values;
    struct node *nodes;
    int *inputs, *outputs;     /* value ids; inputs without initialisers */
    struct prop *props;        /* metadata_props of the model */
    struct graph_store *store; /* arena, name index, mapped file */
};

struct graph *graph_new(void);
struct graph *graph_free(struct graph *g);
DEFINE_CLEANUP(struct graph *, graph_free)

/* A copy that can be edited on its own. Shares the arena of `g` (names, attributes, bytes: never changed) and
 * the mapped file by a counted reference, so `g` may be freed before it. */
int graph_clone(const struct graph *g, struct graph **ret, struct error *err);

/* Frees the big constants that passes made in this graph, for when kernels have packed them: only names,
 * shapes and parameters of the graph are good after that. */
void graph_drop_constants(struct graph *g);

/* Memory of its own: arena and tables, not the file, nor what it shares with the graph it was cloned from. */
size_t graph_count_bytes(const struct graph *g);

/* Lets the pages of the mapped file leave memory; they come back when touched. For when all is packed. */
void graph_release_pages(const struct graph *g);

/* Zeroed memory that lives as long as the graph; NULL: out of memory. */
void *graph_alloc(struct graph *g, size_t size);
const char *graph_strdup(struct graph *g, const char *s, size_t size);

/* NULL: no such metadata property. */
const char *graph_prop(const struct graph *g, const char *key);

/* -1: no such name. */
int graph_find_value(const struct graph *g, const char *name);
int graph_find_node(const struct graph *g, const char *id);

/* Editing. Adding values or nodes may move the arrays: keep ids, not pointers. All return ids or a negative
 * errno; names must be new (graph_unique_name makes one from a base). graph_add_init copies the bytes unless
 * `data_lives` (they live as long as the graph does). graph_insert_node puts a node before index `before`
 * (n_nodes: at the end) with `n_in` inputs and `n_out` outputs, sets producers, and shifts later indices. Its
 * attributes are added by graph_set_attr_*, then graph_finish parses. */
const char *graph_unique_name(struct graph *g, const char *base);
int graph_add_value(struct graph *g, const char *name, enum dtype t, const struct shape *shape);
/* The value becomes the next graph input, or output. 0 or a negative errno. */
int graph_add_input(struct graph *g, int value);
int graph_add_output(struct graph *g, int value);

/* `init` becomes the value's constant (a view whose bytes live as long as the graph); type and shape follow.
 */
int graph_set_init(struct graph *g, int value, const struct tensor *init);
/* The same with a copy of its bytes. */
int graph_set_copy(struct graph *g, int value, const struct tensor *init);
int graph_add_init(struct graph *g, const char *name, const struct tensor *t, bool data_lives);
int graph_insert_node(struct graph *g, size_t before, const char *op_type, const char *name, const int *in,
    int n_in, const int *out, int n_out);
int graph_set_attr_int(struct graph *g, struct node *n, const char *name, int64_t v);
int graph_set_attr_ints(struct graph *g, struct node *n, const char *name, const int64_t *v, size_t count);
int graph_set_attr_float(struct graph *g, struct node *n, const char *name, float v);
int graph_set_attr_string(struct graph *g, struct node *n, const char *name, const char *v);
int graph_set_attr_tensor(struct graph *g, struct node *n, const char *name, const struct tensor *t);
int graph_set_prop(struct graph *g, const char *key, const char *value);
void graph_remove_node(struct graph *g, size_t index);

/* Every use of value `from` (inputs of nodes, graph outputs) becomes `to`. */
void graph_replace_value(struct graph *g, int from, int to);

/* Consumers of a value: fills up to `max` node indices, returns how many there are (a graph output counts as
 * none). */
size_t graph_consumers(const struct graph *g, int value, int *ret, size_t max);

/* Removes nodes and initialisers that no graph output needs (listed inputs of IR 3 among them). 0 or -ENOMEM.
 */
int graph_drop_unused(struct graph *g);

/* After edits: sorts topologically, drops unused values' links, looks up operators, parses attributes,
 * assigns layer ids where missing. Errors name the node: unsupported_operator, invalid_model (cycle, missing
 * value, duplicate). */
int graph_finish(struct graph *g, struct error *err);

/* What a message calls a node: its name, else its layer id, else its first output. */
const char *graph_node_label(const struct graph *g, const struct node *n);

const struct attr *node_attr(const struct node *n, const char *name);
int64_t node_attr_int(const struct node *n, const char *name, int64_t dflt);
float node_attr_float(const struct node *n, const char *name, float dflt);
/* The string as C string in the graph's arena, or dflt. */
const char *node_attr_string(const struct node *n, const char *name, const char *dflt);

#endif
