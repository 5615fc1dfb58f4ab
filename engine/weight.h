/* Weight forms: how the weights of a convolution or fully connected layer are stored. Three small tables
 * compose:
 *
 *     structure (which elements exist)  x  code (what an element is)  x  scales (what multiplies it)
 *        dense, sparse, block, nm            f32, bf16, s8, s4, lut…        layer, channel, group
 *
 * "int8" is dense x s8 x channel. A form is recognised structurally in the graph (match), never by its
 * metadata, and written back as the same standard-ONNX pattern (emit): emit then match gives the same bytes.
 * Each table knows its own part of the pattern:
 *
 *     in[1] of the layer  <-  DequantizeLinear or Mul  <-  scatter, if not dense  <-  codes, perhaps looked
 * up scales                      structure                    code
 *
 * `decode` is the meaning; every kernel must agree with it. */
#ifndef ENGINE_WEIGHT_H
#define ENGINE_WEIGHT_H

#include "engine/graph.h"

struct weight;
struct weight_writer; /* weight_rows.h */

struct weight_structure {
    const char *name;
    /* Does value `v` hold stored elements spread by this structure? 1 yes: *ret_stored is the value of the
     * stored elements (w->place, tile and shape filled); 0 no; negative errno. */
    int (*match)(struct graph *g, int v, struct weight *w, int *ret_stored);
    /* Writes the nodes that spread the elements of value `stored`; returns a value id or a negative errno. */
    int (*emit)(struct weight_writer *to, const struct weight *w, int stored);
    /* shape the stored elements have as an array; false: the structure cannot be over this shape */
    bool (*stored_shape)(const struct weight *w, struct shape *ret);
    /* spreads stored elements of `size` bytes (2 or 4) to the order of w->shape; `ret` is zeroed */
    void (*expand)(const struct weight *w, const void *stored, size_t size, void *ret);
    size_t (*bytes)(const struct weight *w); /* resident: where the elements stand */
    int (*check)(const struct weight *w, struct error *err);
};

struct weight_code {
    const char *name;
    enum dtype dtype;  /* what a code means: DT_S8, DT_U8: integers; DT_F32 */
    unsigned bits;     /* a code has, as kernels keep it in memory */
    bool is_looked_up; /* a code is an index into w->book, whose type says what it means */
    /* Does value `v` hold stored elements in this code? 1 yes: *ret_codes is the initialiser of the codes
     * (w->codes, code, book, stored_bits filled, the elements' shape in *ret_shape); 0 no; negative errno. */
    int (*match)(struct graph *g, int v, struct weight *w, struct shape *ret_shape, int *ret_codes);
    /* Writes codes and nodes for elements of shape `stored`; returns a value id or a negative errno. */
    int (*emit)(struct weight_writer *to, const struct weight *w, const struct shape *stored);
};

struct weight_scales {
    const char *name;
    /* Are w->scale and w->zero, found at `axis` (of a block of `block` elements, 0: none), of this kind?
     * Fills rows and axis. */
    bool (*fits)(struct weight *w, int64_t axis, int64_t block);
    int64_t (*n)(const struct weight *w);
    /* dense numbers in the order of the shape: takes the zero point off and multiplies */
    void (*apply)(const struct weight *w, float *dense);
};

/* Codes into books of their channels: channel c's word k is book[c][k] and the codes are [channels][…], or
 * book[k][c] and […][channels]. */
enum weight_books { WEIGHT_ONE_BOOK, WEIGHT_BOOKS_FIRST, WEIGHT_BOOKS_LAST };

/* Elements that come and go together: `out` output channels x `in` consecutive input channels of one tap,
 * of which `kept` are stored (nm). Tiles follow each other by output channels, taps, input channels. */
struct weight_tile {
    int64_t out, in, kept;
    int out_axis; /* of the output channels in the shape, 0 or 1; the input channels are the other */
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
    unsigned stored_bits;       /* 1, 2, 4: that many bits a code, packed in bytes, low bits first; 0: one an
                                   element of `codes` */
    const struct tensor *scale; /* f32[n]; NULL: 1 */
    const struct tensor *zero;  /* integer codes: zero points [n], of the codes' type; NULL: 0 */
    int axis;                   /* of the scales in `shape` */
    const struct tensor
        *book;               /* codes that are indices: what they stand for, [words] or [words][dim]; NULL */
    enum weight_books books; /* … or one book a channel */
    const struct weight
        *more; /* code `residual`: what is added, of the same shape, in a book of its own; NULL */
    const struct tensor *place; /* structures other than dense: where the stored elements stand; NULL */
    struct weight_tile tile;    /* structures block and nm */
    int64_t n_stored;           /* elements stored, where that is not rows * cols */
    int64_t group;              /* scales `group`: neighbours along group_axis that share one; 0 */
    int group_axis;
};

/* The usual combinations have names. */
struct weight_form {
    const char *name; /* "dense", "int8" */
    const struct weight_structure *structure;
    const struct weight_code *code; /* NULL: any */
};

extern const struct weight_structure *const weight_structures[];
extern const struct weight_code *const weight_codes[];
extern const struct weight_scales *const weight_scales_kinds[];
extern const struct weight_form weight_forms[];
extern const size_t n_weight_structures, n_weight_codes, n_weight_scales_kinds, n_weight_forms;

/* Rows by name; NULL: none. Of the forms of one name the first. */
const struct weight_structure *weight_structure_find(const char *name);
const struct weight_code *weight_code_find(const char *name);
const struct weight_scales *weight_scales_find(const char *name);
const struct weight_form *weight_form_find(const char *name);

/* 0 and *ret (in g's arena), or NULL when value `value` holds no form. `ret_codes` (may be NULL): the
 * initialiser of the codes. Looks at the pattern only; weight_check looks at every code. */
int weight_match(struct graph *g, int value, const struct weight **ret, int *ret_codes, struct error *err);

/* Adds the pattern's nodes before node `before`; returns the value id of the result, or a negative errno. */
int weight_emit(struct graph *g, size_t before, const char *name, const struct weight *w);

/* -EBADMSG with a sentence: an index outside the codebook, a gap that leaves the tensor, a scale that is zero
 * or not finite. */
int weight_check(const struct weight *w, struct error *err);

/* "" for a combination without a name. */
const char *weight_form_name(const struct weight *w);

/* Elements that are stored: all of the dense ones. */
int64_t weight_count_stored(const struct weight *w);

/* Elements that are not zero; -1: rows with other zero points have to be decoded to tell. */
int64_t weight_count_nonzero(const struct weight *w);

/* Plain floats, as any initialiser: nothing to decode. */
bool weight_is_plain(const struct weight *w);

/* Stored as something else than one float for each element. */
bool weight_is_encoded(const struct weight *w);

/* Floats of which a structure other than dense says which exist: pruned, and nothing else. */
bool weight_is_sparse_float(const struct weight *w);

/* Where the stored elements stand in the dense tensor: weight_count_stored() of them. Errors: -ENOMEM. */
int weight_get_places(const struct weight *w, uint32_t *ret, struct error *err);

/* The codes of a form that is looked up in a book of single numbers, dense: 0 where nothing is stored. */
int weight_get_indices(const struct weight *w, uint8_t *ret, struct error *err);

/* Dense floats, in the order of `shape`; count(shape) elements. */
int weight_decode(const struct weight *w, float *ret, struct error *err);

/* Codes, places and scales, resident. */
size_t weight_bytes(const struct weight *w);

/* Scale and zero point of row `row` (0 <= row < rows). */
float weight_scale_at(const struct weight *w, int64_t row);
int32_t weight_zero_at(const struct weight *w, int64_t row);

/* Is W = scale * integer, as in every form whose expansion ends in integers and DequantizeLinear (s8, u8, s4,
 * bit, trit, codebooks of integers; dense or not), with scales that rows share? What kernels for integers ask
 * in fits(): they pack what weight_get_codes() says and need not know the form. */
bool weight_is_integer(const struct weight *w);

/* Those integers, the zero point of their row taken off, dense: element (row, col) of W[rows][cols] at
 * row * cols + col, as int16 (an unsigned code with a zero point needs nine bits). Errors: -ENOMEM. */
int weight_get_codes(const struct weight *w, int16_t *ret, struct error *err);

#endif
