/* The options of the method quantize: every scheme's keys, each with the schemes that it may stand with. */
#include "compress/quantize.h"

static const char *const schemes[] = {
    "int8", "int4", "codebook", "product", "residual", "fixed", "mixed", "dynamic", "bf16", NULL};
static const char *const activations[] = {"u8", "s8", "float", NULL};
static const char *const observers[] = {"mse", "minmax", "percentile", "entropy", NULL};
static const char *const codebook_scopes[] = {"layer", "channel", NULL};
static const char *const codebook_inits[] = {"linear", "density", "random", "kmeans++", NULL};
static const char *const codebook_entries[] = {"int8", "float", NULL};
static const char *const estimators[] = {"lsq", "ste", NULL};

#define AT(field)         offsetof(struct quantize_options, field)
#define IN(object, field) (AT(object.field) - AT(object))
#define TABLE_OF(some_rows)                                                                                  \
    { some_rows, sizeof(some_rows) / sizeof((some_rows)[0]) }

static const struct param codebook_rows[] = {
    {
        .name = "scope",
        .type = PARAM_ENUM,
        .at = IN(codebook, scope),
        .choices = codebook_scopes,
        .dflt = "layer",
        .doc = "one codebook a layer, or one an output channel",
        .source = "Han et al. 2016, Deep compression",
    },
    {
        .name = "init",
        .type = PARAM_ENUM,
        .at = IN(codebook, init),
        .choices = codebook_inits,
        .dflt = "linear",
        .doc = "where k-means begins: evenly between the ends, at equal shares of the weights, at drawn "
               "weights, or at weights drawn far from one another",
        .source = "Han et al. 2016, section 3.2; Arthur and Vassilvitskii 2007",
    },
    {
        .name = "entries",
        .type = PARAM_ENUM,
        .at = IN(codebook, entries),
        .choices = codebook_entries,
        .dflt = "int8",
        .doc = "what stands in the codebook; other runtimes are fast with int8",
    },
};
static const struct param_table codebook_table = TABLE_OF(codebook_rows);

static const struct param product_rows[] = {
    {
        .name = "dim",
        .type = PARAM_INT,
        .at = IN(product, dim),
        .min = 2,
        .max = 64,
        .dflt = "4",
        .doc = "weights of a sub-vector, neighbours among the inputs",
        .source = "Gong et al. 2014, Compressing deep convolutional networks using vector quantization",
    },
    {
        .name = "words",
        .type = PARAM_INT,
        .at = IN(product, words),
        .min = 2,
        .max = 256,
        .dflt = "256",
        .doc = "vectors in the codebook",
    },
};
static const struct param_table product_table = TABLE_OF(product_rows);

static const struct param qat_rows[] = {
    {
        .name = "estimator",
        .type = PARAM_ENUM,
        .at = IN(qat, estimator),
        .choices = estimators,
        .dflt = "lsq",
        .doc = "how gradients pass the rounding: with learned steps (lsq), or straight through (ste)",
        .source = "Esser et al. 2020, Learned step size quantization; Bengio et al. 2013",
    },
    {
        .name = "epochs",
        .type = PARAM_INT,
        .at = IN(qat, epochs),
        .min = 1,
        .max = 1000,
        .dflt = "2",
        .doc = "times that all pictures are seen",
    },
};
static const struct param_table qat_table = TABLE_OF(qat_rows);

static const struct param budget_rows[] = {
    {
        .name = "bytes",
        .type = PARAM_REAL,
        .at = IN(budget, bytes),
        .min = 0,
        .max = 1e15,
        .dflt = "0",
        .doc = "of all layers' weights: up to 1 a share of the parent's, above it bytes",
    },
    {
        .name = "max_drop",
        .type = PARAM_REAL,
        .at = IN(budget, max_drop),
        .min = 0,
        .max = 1,
        .dflt = "0",
        .doc = "of the accuracy on held-out data",
    },
};
static const struct param_table budget_table = TABLE_OF(budget_rows);

static const struct param control_rows[] = {
    {
        .name = "max_drop",
        .type = PARAM_REAL,
        .at = IN(accuracy_control, max_drop),
        .min = 0,
        .max = 1,
        .dflt = "0.005",
        .doc = "of the accuracy on held-out data",
    },
};
static const struct param_table control_table = TABLE_OF(control_rows);

static const struct param rows[] = {
    {
        .name = "scheme",
        .type = PARAM_ENUM,
        .at = AT(scheme),
        .choices = schemes,
        .dflt = "int8",
        .doc = "int8: weights and activations in 8 bits, static scales; int4: weights in 4 bits, fully "
               "connected layers with a scale a block; codebook: indices of shared weights; product: of "
               "shared sub-vectors; residual: sums of such stages; fixed: evenly spaced weights of 2 to 8 "
               "bits; mixed: bits chosen for each layer; dynamic: activations scaled at run time; bf16: "
               "weights in bfloat16",
        .source =
            "Jacob et al. 2018, Quantization and training of neural networks for integer-arithmetic-only inference",
    },
    {
        .name = "bits",
        .type = PARAM_INT,
        .at = AT(bits),
        .min = 1,
        .max = 8,
        .dflt = "4",
        .when = "scheme=codebook,residual,fixed",
        .per_layer = true,
        .doc = "of a weight; fixed: at least 2",
    },
    {
        .name = "activations",
        .type = PARAM_ENUM,
        .at = AT(activations),
        .choices = activations,
        .dflt = "u8",
        .when = "scheme=int8,int4,codebook,product,residual,fixed,mixed",
        .doc =
            "u8: zero point as the range needs; s8: symmetric; float: weights only. Without data only float is possible",
    },
    {
        .name = "observer",
        .type = PARAM_ENUM,
        .at = AT(observer),
        .choices = observers,
        .dflt = "mse",
        .when = "scheme=int8,int4,codebook,product,residual,fixed,mixed",
        .doc = "how an activation's range is chosen: the least squared error, everything seen, all but one "
               "of ten thousand, or the least loss of information",
        .source = "Banner et al. 2019, Post training 4-bit quantization of convolutional networks; Migacz "
                  "2017, 8-bit inference with TensorRT",
    },
    {
        .name = "per_channel",
        .type = PARAM_BOOL,
        .at = AT(per_channel),
        .dflt = "true",
        .when = "scheme=int8,int4,codebook,residual,fixed,mixed,dynamic",
        .per_layer = true,
        .doc = "one weight scale for each output channel rather than for each layer",
        .source = "Krishnamoorthi 2018, Quantizing deep convolutional networks for efficient inference",
    },
    {
        .name = "block",
        .type = PARAM_INT,
        .at = AT(block),
        .min = 2,
        .max = 65536,
        .dflt = "32",
        .when = "scheme=int4",
        .per_layer = true,
        .doc = "inputs of a fully connected layer that share a scale",
    },
    {
        .name = "codebook",
        .type = PARAM_OBJECT,
        .at = AT(codebook),
        .table = &codebook_table,
        .given_at = NO_OFFSET,
        .when = "scheme=codebook,residual",
        .per_layer = true,
        .doc = "the codebook of scalars",
    },
    {
        .name = "product",
        .type = PARAM_OBJECT,
        .at = AT(product),
        .table = &product_table,
        .given_at = NO_OFFSET,
        .when = "scheme=product,residual",
        .per_layer = true,
        .doc = "the codebook of vectors",
    },
    {
        .name = "equalize",
        .type = PARAM_BOOL,
        .at = AT(equalize),
        .dflt = "false",
        .when = "scheme=int8,int4,fixed,mixed,dynamic",
        .doc = "first, ranges of a layer's output channels and the next one's input channels are made equal",
        .source = "Nagel et al. 2019, Data-free quantization through weight equalization, section 4.1",
    },
    {
        .name = "bias_correct",
        .type = PARAM_BOOL,
        .at = AT(bias_correct),
        .dflt = "true",
        .when = "scheme=int8,int4,codebook,product,residual,fixed,mixed",
        .doc = "takes the mean shift that rounding the weights causes out of the bias (needs data)",
        .source = "Nagel et al. 2019, Data-free quantization through weight equalization and bias correction",
    },
    {
        .name = "adaround",
        .type = PARAM_BOOL,
        .at = AT(adaround),
        .dflt = "false",
        .when = "scheme=int8,int4,fixed,mixed",
        .doc = "weights are rounded up or down as the layers' outputs want it (needs data, no labels)",
        .source = "Nagel et al. 2020, Up or down? Adaptive rounding for post-training quantization",
    },
    {
        .name = "qat",
        .type = PARAM_OBJECT,
        .at = AT(qat),
        .table = &qat_table,
        .given_at = AT(has_qat),
        .when = "scheme=int8,int4,codebook,fixed,mixed",
        .doc = "training through the rounding before weights are stored",
    },
    {
        .name = "budget",
        .type = PARAM_OBJECT,
        .at = AT(budget),
        .table = &budget_table,
        .given_at = AT(has_budget),
        .when = "scheme=mixed",
        .doc = "what the bits of the layers are chosen under: bytes or max_drop",
    },
    {
        .name = "accuracy_control",
        .type = PARAM_OBJECT,
        .at = AT(accuracy_control),
        .table = &control_table,
        .given_at = AT(has_accuracy_control),
        .when = "scheme=int8,int4,codebook,product,residual,fixed,mixed,dynamic",
        .doc = "the worst layers go back to float until the accuracy on held-out data holds (needs labels)",
    },
};
const struct param_table quantize_table = TABLE_OF(rows);
