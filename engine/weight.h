/* Weight forms: how the weights of a convolution or fully connected layer are stored. Three small tables
 * compose:
 *
 *     structure (which elements exist)  x  code (what an element is)  x  scales (what multiplies it)
 *        dense, sparse, block, nm            f32, bf16, s8, s4, lut…        layer, channel, group
 *
 * "int8" is dense x s8 x channel. A form is recognised structurally in the graph (match), never by its
 * metadata, and written back as the same standard-ONNX pattern (emit): emit then match gives the same bytes.
 * `decode` is the meaning; every kernel must agree with it. */
#ifndef ENGINE_WEIGHT_H
#define ENGINE_WEIGHT_H

#include "engine/graph.h"

struct weight;

struct weight_structure {
    const char *name;
    /* elements stored for rows x cols */
    int64_t (*n_stored)(const struct weight *w);
    /* spreads decoded stored elements to rows x cols dense */
    void (*expand)(const struct weight *w, const float *stored, float *ret);
};

struct weight_code {
    const char *name;
    enum dtype dtype;                                          /* of the stored elements */
    size_t (*bytes)(const struct weight *w);                   /* resident bytes of the codes */
    void (*decode)(const struct weight *w, float *ret_stored); /* codes to numbers, scales not applied */
};

struct weight_scales {
    const char *name;
    int64_t (*n)(const struct weight *w);
    /* multiplies rows x cols dense numbers */
    void (*apply)(const struct weight *w, float *dense);
};

/* W[rows][cols]: rows = output channels, cols = input channels of the group x kH x kW, in ONNX order (OIHW,
 * or for Gemm/MatMul as the node has it: `transposed` says that the tensor in the file is [cols][rows]). */
struct weight {
    const struct weight_structure *structure;
    const struct weight_code *code;
    const struct weight_scales *scales;
    struct shape shape; /* of the tensor the layer sees (in[1]) */
    int64_t rows, cols;
    bool transposed;
    const struct tensor *codes; /* in the file's bytes */
    const struct tensor *scale; /* f32[n]; NULL: 1 */
    const struct tensor *zero;  /* integer codes: zero points [n]; NULL: 0 */
    int axis;                   /* of the scales in `shape` */
};

/* A form's pattern in a graph: one row per way to write it. */
struct weight_form {
    const char *name; /* "dense", "int8" */
    const struct weight_structure *structure;
    const struct weight_code *code;
    /* Does value `v` (a layer's in[1]) hold this pattern? 1 yes (w filled, from g's arena), 0 no, negative
     * errno. */
    int (*match)(struct graph *g, int v, struct weight *w);
    /* Adds the pattern's nodes before node `before`; returns the value id of the result, or a negative errno.
     */
    int (*emit)(struct graph *g, size_t before, const char *name, const struct weight *w);
};

extern const struct weight_structure *const weight_structures[];
extern const struct weight_code *const weight_codes[];
extern const struct weight_scales *const weight_scales_kinds[];
extern const struct weight_form *const weight_forms[];
extern const size_t n_weight_structures, n_weight_codes, n_weight_scales_kinds, n_weight_forms;

/* Rows by name; NULL: none. */
const struct weight_structure *weight_structure_find(const char *name);
const struct weight_code *weight_code_find(const char *name);
const struct weight_scales *weight_scales_find(const char *name);
const struct weight_form *weight_form_find(const char *name);

/* Tries the forms in order; 0 and *ret (in g's arena) or NULL when none fits. */
int weight_match(struct graph *g, int value, const struct weight **ret, struct error *err);
const char *weight_form_name(const struct weight *w);

/* Dense floats, in the order of `shape`; count(shape) elements. */
int weight_decode(const struct weight *w, float *ret, struct error *err);
size_t weight_bytes(const struct weight *w);

#endif
