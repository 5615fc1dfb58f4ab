/* What the files of trainable.h share. */
#ifndef COMPRESS_TRAINABLE_PRIV_H
#define COMPRESS_TRAINABLE_PRIV_H

#include "compress/trainable.h"
#include "engine/weight.h"

#define TRAINABLE_MAX_CHAIN 2

struct trainable_layer {
    char *id;
    const struct weight *form; /* in the arena of trainable.encoded; NULL: float weights with zeros */
    int64_t n;                 /* elements */
    int n_chain;
    struct {
        const struct transform *row;
        const void *param;
    } chain[TRAINABLE_MAX_CHAIN]; /* in order */
    uint8_t *keep, *index;
    float *entries, *scale; /* [words]; [rows] or [1] */
    float unit;             /* entries of int8 are learned as shares of it */
    float *learned;         /* the scale as trained; NULL: not learned */
    union {
        struct transform_fake_quantize fake;
        struct transform_codebook book;
        struct transform_sign sign;
        struct transform_ternary ternary;
    } param;
    struct transform_mask mask;
};

struct trainable_value {
    char *name;     /* of the quantised value */
    char *consumer; /* node id; NULL: all */
    char *scale;    /* name of the initialiser */
    struct activation_clip_quantize param;
    struct activation_lsq lsq;
    bool learns;   /* its scale, which is its own alone */
    float learned; /* the scale as trained; 0: not yet */
};

struct trainable {
    struct graph *encoded, *graph;
    bool learns_scales;
    size_t n_layers, n_values;
    struct trainable_layer *layer;
    struct trainable_value *value;
    struct weight_transform *weights;
    struct activation_transform *activations;
    size_t n_weights;
    struct learn_hook hook;
    char key[65];
};

/* The transforms of one layer; `form` NULL: dense floats `w`, masked if they are sparse enough. Errors:
 * -EOPNOTSUPP with the reason. */
int trainable_layer_init(struct trainable_layer *l, const struct weight *form, const float *w,
    bool learns_scales, struct error *err);
void trainable_layer_done(struct trainable_layer *l);

/* Takes the pairs of QuantizeLinear and DequantizeLinear on computed values out of t->graph and notes them.
 */
int trainable_values_take(struct trainable *t, struct error *err);

#endif
