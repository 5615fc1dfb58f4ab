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
extern const struct quantize_scheme quantize_scheme_int8;

/* One layer's weights as signed 8-bit, symmetric, ±127: w ≈ scale[row] * q. */
struct quantized_weights {
    int8_t *q;    /* in the tensor's own order */
    float *scale; /* [n_scale]: rows, or 1 */
    float *error; /* [rows]: sum over the row of (w - scale q) * mean input: the shift of the output's mean */
    int64_t n_scale;
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

/* `min_scale` [rows] or NULL: scales are not smaller (so that an int32 bias holds). `mean` NULL: no error
 * computed; else the mean of each input channel (n_mean of them; a convolution's group structure is `group`).
 */
int quantize_weights(const void *w, const struct weight_rows *rows, bool per_channel, const float *min_scale,
    const float *mean, int64_t n_mean, int64_t group, struct quantized_weights *ret, struct error *err);
void quantized_weights_done(struct quantized_weights *w);

/* Another way to write the weights of a layer whose input and output are quantised. */
struct weight_coder {
    /* which layers: the plan of a method or scheme, with `options` */
    int (*plan)(const struct graph *g, const void *options, struct layers *layers, struct effect *effects,
        struct error *err);
    const void *options;
    uint64_t seed;
    /* Brings in[1] of node e->node into its form; `min_scale` [rows] as quantize_weights has it, or NULL.
     * *ret_scale is allocated, one a row or one. */
    int (*write)(const struct weight_coder *c, struct graph *g, const struct layer_entry *e,
        const struct weight_rows *rows, const float *min_scale, float **ret_scale, int64_t *ret_n,
        struct error *err);
};

/* The scheme `int8`; `coder` NULL: weights in int8. */
int quantize_int8(struct work *work, const struct quantize_options *o, const struct weight_coder *coder,
    const struct scope *scope, json_t *report, struct error *err);

extern const struct method method_quantize;

#endif
