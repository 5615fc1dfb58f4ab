/* Layers of a network under construction: each takes the map before and gives the map after. The first
 * failure is kept in the maker and everything after it does nothing, so that a network reads as its table in
 * the paper.
 *
 * Weights start as He et al. 2015 ("Delving deep into rectifiers", eq. 10) with the uniform distribution:
 * w ~ U(-b, b), b = sqrt(3 gain / fan_in), gain 2 in front of a ReLU and 1 for the classifier; biases are 0,
 * norms are the identity (gamma 1, beta 0, mean 0, variance 1). A number depends on the seed, its tensor's
 * name and its index alone, and is made of exactly rounded operations only: the same bytes on every machine.
 */
#ifndef COMPRESS_ZOO_LAYERS_H
#define COMPRESS_ZOO_LAYERS_H

#include "engine/graph.h"

struct zoo_maker {
    struct graph *graph;
    struct error *err;
    int failed; /* 0 or the negative errno in err */
    uint64_t seed;
    double width, depth; /* factors of the network's own */
    int64_t n_classes;
    int n_strides_skipped; /* of zoo_stride(), still to come */
};

/* A feature map [N][c][h][w]; flat: h and w are 0 and it is [N][c]. */
struct zoo_map {
    int value; /* in the graph */
    int64_t c, h, w;
};

struct zoo_conv {
    int64_t out, kernel;
    int64_t stride, groups; /* 0: 1 */
    int64_t pad;            /* on each side */
    bool is_biased;
    double gain; /* 0: 2 */
};

enum zoo_pool { ZOO_POOL_MAX, ZOO_POOL_AVERAGE };

/* n channels times the maker's width, rounded to a multiple of `unit`, at least one unit and, as
 * MobileNetV2's reference code has it, not less than nine tenths of it. */
int64_t zoo_width(const struct zoo_maker *m, int64_t n, int64_t unit);
/* n blocks times the maker's depth, at least one. */
int zoo_depth(const struct zoo_maker *m, int n);

/* Networks made for 224 x 224 divide the sides by 2^n in all. On small pictures the earliest of these strides
 * become 1 until at least 3 x 3 is left at the end: zoo_strides() is told n first, then zoo_stride() gives
 * each stride in turn. */
void zoo_strides(struct zoo_maker *m, const struct zoo_map *x, int n);
int64_t zoo_stride(struct zoo_maker *m);

/* `name` becomes the layer's id and the stem of its tensors' names. */
struct zoo_map zoo_conv(struct zoo_maker *m, const char *name, struct zoo_map x, struct zoo_conv c);
struct zoo_map zoo_norm(struct zoo_maker *m, const char *name, struct zoo_map x);
struct zoo_map zoo_relu(struct zoo_maker *m, const char *name, struct zoo_map x);
struct zoo_map zoo_relu6(struct zoo_maker *m, const char *name, struct zoo_map x);
/* Sides are rounded down, or up when `is_ceil` (a window may then hang over the edge). */
struct zoo_map zoo_pool(struct zoo_maker *m, const char *name, struct zoo_map x, enum zoo_pool kind,
    int64_t kernel, int64_t stride, int64_t pad, bool is_ceil);
struct zoo_map zoo_global_average(struct zoo_maker *m, const char *name, struct zoo_map x); /* h = w = 1 */
struct zoo_map zoo_flatten(struct zoo_maker *m, const char *name, struct zoo_map x);
struct zoo_map zoo_linear(
    struct zoo_maker *m, const char *name, struct zoo_map x, int64_t out, double gain); /* of a flat map */
struct zoo_map zoo_add(struct zoo_maker *m, const char *name, struct zoo_map a, struct zoo_map b);
struct zoo_map zoo_concat(struct zoo_maker *m, const char *name, struct zoo_map a, struct zoo_map b);
/* The first and the second half of the channels. */
void zoo_halves(struct zoo_maker *m, const char *name, struct zoo_map x, struct zoo_map ret[static 2]);
/* Channels of two groups dealt out by turns (Zhang et al. 2018, ShuffleNet, section 3.1). */
struct zoo_map zoo_shuffle(struct zoo_maker *m, const char *name, struct zoo_map x);

/* The ways that every paper since 2015 puts them together: convolution without bias and padding for equal
 * sides, norm; with the activation of that network. NAME, NAME/norm, NAME/relu. */
struct zoo_map zoo_conv_norm(struct zoo_maker *m, const char *name, struct zoo_map x, struct zoo_conv c);
struct zoo_map zoo_conv_norm_relu(struct zoo_maker *m, const char *name, struct zoo_map x, struct zoo_conv c);
struct zoo_map zoo_conv_norm_relu6(
    struct zoo_maker *m, const char *name, struct zoo_map x, struct zoo_conv c);
/* Global average, then the classifier `name`. */
struct zoo_map zoo_classifier(struct zoo_maker *m, const char *name, struct zoo_map x);

/* Formats a name; the maker's graph owns it. "" after a failure. */
const char *zoo_name(struct zoo_maker *m, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

#endif
