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

/* W as the layer has it (OIHW, or [in][out] of a MatMul). Rows are the indices along `axis`, the dimension of
 * the channels that have a scale each; cols are all the other elements. The axis is the output channels' in
 * every file quantised per channel; without scales per channel it is 0. `transposed` says that it is not 0:
 * the codes of a row are then not next to each other. */
struct weight {
    const struct weight_structure *structure;
    const struct weight_code *code;
    const struct weight_scales *scales;
    struct shape shape; /* of the tensor the layer sees (in[1]) */
    int64_t rows, cols;
    bool transposed;
    const struct tensor *codes; /* in the file's bytes: unaligned */
    const struct tensor *scale; /* f32[n]; NULL: 1 */
    const struct tensor *zero;  /* integer codes: zero points [n], of the codes' type; NULL: 0 */
    int axis;                   /* of the scales in `shape` */
    const struct tensor
        *book; /* codes that are indices: what they stand for, [words] or [words][dim]; NULL */
    const struct tensor *place; /* structures other than dense: where the stored elements stand; NULL */
    int64_t n_stored;           /* elements stored, where that is not rows * cols */
    int64_t group;              /* scales `group`: neighbours along the columns that share one; 0 */
};

/* A form's pattern in a graph: one row per way to write it. */
struct weight_form {
    const char *name; /* "dense", "int8" */
    const struct weight_structure *structure;
    const struct weight_code *code;
    /* Does value `v` (a layer's in[1]) hold this pattern? 1 yes (w and *codes, the id of the initialiser that
     * holds the codes, filled), 0 no, negative errno. */
    int (*match)(struct graph *g, int v, struct weight *w, int *codes);
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

/* Tries the forms in order; 0 and *ret (in g's arena) or NULL when none fits. `ret_codes` may be NULL. */
int weight_match(struct graph *g, int value, const struct weight **ret, int *ret_codes, struct error *err);
const char *weight_form_name(const struct weight *w);

/* Dense floats, in the order of `shape`; count(shape) elements. */
int weight_decode(const struct weight *w, float *ret, struct error *err);

/* Codes and scales, resident. */
size_t weight_bytes(const struct weight *w);

/* Scale and zero point of row `row` (0 <= row < rows). */
float weight_scale_at(const struct weight *w, int64_t row);
int32_t weight_zero_at(const struct weight *w, int64_t row);

/* Is W = scale * integer, as in every form whose expansion ends in integers and DequantizeLinear (s8, u8, s4,
 * bit, trit, codebooks of integers; dense or not)? What kernels for integers ask in fits(): they pack what
 * weight_get_codes() says and need not know the form. */
bool weight_is_integer(const struct weight *w);

/* Those integers, the zero point of their row taken off, dense: element (row, col) of W[rows][cols] at
 * row * cols + col, as int16 (an unsigned code with a zero point needs nine bits). Errors: -ENOMEM. */
int weight_get_codes(const struct weight *w, int16_t *ret, struct error *err);

#endif
