/* Quantisation of weights and activations. */
#ifndef COMPRESS_QUANTIZE_H
#define COMPRESS_QUANTIZE_H

#include "compress/method.h"
#include "compress/observer.h"
#include "compress/qregion.h"

/* In the order of quantize_scheme_names (quantize_options.c). */
enum quantize_scheme_kind {
    QUANTIZE_INT8,
    QUANTIZE_INT4,
    QUANTIZE_CODEBOOK,
    QUANTIZE_PRODUCT,
    QUANTIZE_RESIDUAL,
    QUANTIZE_FIXED,
    QUANTIZE_MIXED,
    QUANTIZE_DYNAMIC,
    QUANTIZE_BF16,
    N_QUANTIZE_SCHEMES,
};

enum quantize_activations {
    ACTIVATIONS_U8,
    ACTIVATIONS_S8,
    ACTIVATIONS_FLOAT,
};

enum codebook_scope {
    CODEBOOK_LAYER,
    CODEBOOK_CHANNEL,
};

enum codebook_init {
    CODEBOOK_LINEAR,
    CODEBOOK_DENSITY,
    CODEBOOK_RANDOM,
    CODEBOOK_KMEANSPP,
};

enum codebook_entries {
    CODEBOOK_INT8,
    CODEBOOK_FLOAT,
};

enum qat_estimator {
    QAT_LSQ,
    QAT_STE,
};

struct quantize_options {
    int scheme;      /* enum quantize_scheme_kind */
    int bits;        /* of a weight: schemes fixed, codebook, residual */
    int activations; /* enum quantize_activations */
    int observer;    /* enum observer_kind */
    bool per_channel;
    int block; /* int4: inputs of a fully connected layer that share a scale */
    struct {
        int scope, init, entries; /* enum codebook_… */
    } codebook;
    struct {
        int dim, words;
    } product;
    bool equalize, bias_correct, adaround;
    bool has_qat;
    struct {
        int estimator; /* enum qat_estimator */
        int epochs;
    } qat;
    bool has_budget;
    struct {
        double bytes;    /* of the weights: up to 1 a share of the parent's, above it bytes; 0: not given */
        double max_drop; /* of the accuracy on held-out data; 0: not given */
    } budget;
    bool has_accuracy_control;
    struct {
        double max_drop;
    } accuracy_control;
};

extern const struct param_table quantize_table;

/* Those of one layer in a step of this method. */
static inline const struct quantize_options *quantize_options_of(
    const struct quantize_options *step, const struct layer_entry *e) {
    return e->options ? e->options : step;
}

/* One row a scheme; stands beside its code. */
struct quantize_scheme {
    const char *name;
    /* What the option table cannot express; errors begin with ".key: ". NULL: nothing. */
    int (*check)(const struct quantize_options *o, struct error *err);
    /* Does it need data with these options? NULL: no. */
    bool (*wants_data)(const struct quantize_options *o);
    /* As of struct method. */
    int (*plan)(const struct graph *g, const void *options, struct layers *layers, struct effect *effects,
        struct error *err);
    int (*apply)(struct work *work, const struct quantize_options *o, const struct scope *scope,
        json_t *report, struct error *err);
};

/* quantize.c: by enum quantize_scheme_kind. */
extern const struct quantize_scheme *const quantize_schemes[N_QUANTIZE_SCHEMES];
extern const struct quantize_scheme quantize_scheme_int8, quantize_scheme_int4, quantize_scheme_fixed,
    quantize_scheme_codebook, quantize_scheme_product, quantize_scheme_residual, quantize_scheme_bf16,
    quantize_scheme_mixed, quantize_scheme_dynamic;

/* adaround, qat or accuracy_control */
bool quantize_wants_data(const struct quantize_options *o);

/* quantize_qat.c: goes on training the network that a scheme has written, through its forms: weights are
 * latent floats, at first those of `latents`, rounded to the form in each step, values are rounded as in the
 * file (Jacob et al. 2018, section 3), and with the estimator lsq scales learn, too (Esser et al. 2020).
 * Fills "qat" of the report. Errors: those of finetune_graph. */
int quantize_qat(struct work *work, const struct quantize_options *o, const struct graph *latents,
    json_t *report, struct error *err);

/* One layer's weights as integers, evenly spaced: w ≈ scale * q; q within ±127 for 8 bits, else within
 * -2^(bits-1) … 2^(bits-1) - 1. */
struct quantized_weights {
    int8_t *q;    /* in the tensor's own order */
    float *scale; /* [n_scale]: of the layer (1), its rows, or blocks of their inputs */
    float *error; /* [rows]: sum over the row of (w - scale q) * mean input: the shift of the output's mean */
    int64_t n_scale;
    int bits;
    int64_t block; /* inputs that share a scale; 0: all of a row */
};

/* How weights are rounded. */
struct weight_rounding {
    int bits; /* 2 to 8 */
    bool per_channel;
    int64_t block;          /* of a matrix: inputs that share a scale; 0: none */
    const float *min_scale; /* [rows] or NULL: scales are not smaller, so that an int32 bias holds */
    const float *mean;      /* of each input channel, n_mean of them; NULL: no error is computed */
    int64_t n_mean;
    int64_t group; /* a convolution's */
};

struct row_scales {
    const float *scale;
    int64_t n; /* rows, or 1 */
};

/* Where the output channels of a layer's weight tensor lie: element (r, c, k) of W[rows][…] is at
 * r * row_stride + …; axis is their dimension in the tensor. */
struct weight_rows {
    struct shape shape;
    int axis;
    int64_t rows, outer, inner; /* element index = (o * rows + r) * inner + i, o < outer, i < inner */
};

int weight_rows_of(const struct graph *g, const struct node *n, struct weight_rows *ret, struct error *err);

/* Scales: the largest weight at the largest code for 8 bits; else what gives the least squared error. */
int quantize_weights(const void *w, const struct weight_rows *rows, const struct weight_rounding *o,
    struct quantized_weights *ret, struct error *err);
void quantized_weights_done(struct quantized_weights *w);

/* Which of the scales element `at` of the tensor has. */
int64_t quantized_scale_of(const struct quantized_weights *q, const struct weight_rows *rows, int64_t at);
int quantized_least(int bits); /* code: -127 or -2^(bits-1) */
int quantized_most(int bits);

/* quantize_codes.c. In its form in the graph: 8 bits s8, 4 bits s4 (with blocks ONNX's own int4, opset 21),
 * else a codebook of the integers. Returns the value id of the weights, or a negative errno. */
int quantize_codes_emit(struct graph *g, const char *id, const struct weight_rows *rows,
    const struct quantized_weights *q, struct error *err);
/* The form's name, and its bytes in the file: codes (those of 3, 5, 6 and 7 bits take a byte each), scales,
 * and the table that packed codes are looked up in. */
const char *quantize_codes_form(int bits);
int64_t quantize_codes_bytes(int bits, int64_t params, int64_t n_scale);

/* Another way to write the weights of layers than as 8-bit integers. */
struct weight_coder {
    /* which layers: the plan of a method or scheme, with `options` */
    int (*plan)(const struct graph *g, const void *options, struct layers *layers, struct effect *effects,
        struct error *err);
    const void *options;
    uint64_t seed;
    /* Brings in[1] of node e->node into its form; `min_scale` [rows] as quantize_weights has it, or NULL.
     * *ret_scale is allocated, one a row or one. NULL: integers of `bits`. */
    int (*write)(const struct weight_coder *c, struct graph *g, const struct layer_entry *e,
        const struct weight_rows *rows, const float *min_scale, float **ret_scale, int64_t *ret_n,
        struct error *err);
    int (*bits)(const struct weight_coder *c, const struct layer_entry *e);
    /* Inputs of a matrix that share a scale; such a layer's input stays float. 0: none; NULL: of none. */
    int64_t (*block)(const struct weight_coder *c, const struct graph *g, const struct layer_entry *e);
    const void *ctx; /* of all of these */
    int opset;       /* that the forms need; 0: 13 */
};

/* The scheme `int8`; `coder` NULL: weights in int8. */
int quantize_int8(struct work *work, const struct quantize_options *o, const struct weight_coder *coder,
    const struct scope *scope, json_t *report, struct error *err);

extern const struct method method_quantize;

#endif
