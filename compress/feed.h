/* A feed turns the items of a pack's split into a network's input: decoded, preprocessed, float; and its
 * labels into the network's classes. */
#ifndef COMPRESS_FEED_H
#define COMPRESS_FEED_H

#include <jansson.h>

#include "compress/picture_cache.h"
#include "compress/samples.h"
#include "engine/graph.h"
#include "image/pack.h"
#include "image/preprocess.h"

/* What feeds of one network are opened from. */
struct feed_source {
    struct pack *pack;
    json_t *preprocess, *labels;      /* NULL: none */
    struct picture_cache_place cache; /* for what is read more than once */
};

struct feed {
    const struct pack *pack;
    struct preprocess preprocess;
    struct preprocess_table table; /* of it */
    uint32_t split;
    uint64_t n;                  /* items in use */
    uint64_t *item;              /* [n] their numbers in the split */
    size_t item_floats;          /* of one preprocessed picture */
    struct shape shape;          /* of one, first dimension 1 */
    struct picture_cache *cache; /* of the split's pictures, not the feed's; NULL: none */
    int64_t *class_of; /* [pack's classes] index in the network's outputs, -1: none; NULL: no labels */
};

/* Gives back pack and JSON. */
void feed_source_done(struct feed_source *s);

/* `input`: the network's (one) input; `preprocess` JSON or NULL. `most` > 0: only that many items, those with
 * the least digests (a fixed choice that does not follow the order of the file). Errors: those of
 * preprocess_from_json; no_train_split or bad_dataset when there is no such split. */
int feed_open(const struct pack *p, const char *split, const struct value *input, const json_t *preprocess,
    uint64_t most, struct feed *ret, struct error *err);
void feed_done(struct feed *f);

/* Pack classes to the network's `n_classes`: by exact name when both have names (`labels`, JSON list or
 * NULL), else by index. Errors: classes_do_not_match. */
int feed_map_classes(struct feed *f, const json_t *labels, int64_t n_classes, struct error *err);

/* Item i, 0 ≤ i < n, to ret (item_floats). */
int feed_read(const struct feed *f, uint64_t i, float *ret, struct error *err);
/* The same in two steps: to bytes (item_floats of them, preprocess_pixels()), those to floats. */
int feed_pixels(const struct feed *f, uint64_t i, uint8_t *ret, struct error *err);
void feed_normalize(const struct feed *f, const uint8_t *pixels, float *ret);
/* Its class in the network's numbering, -1: none. */
int64_t feed_label(const struct feed *f, uint64_t i);

/* A place for the split's pictures, to be given to feeds of the same split, network and preprocessing. NULL:
 * nothing is kept, or nothing need be: the pack's own bytes are ready. */
struct picture_cache *feed_cache(const struct feed *f, const struct picture_cache_place *at);

/* The feed as samples; it stays the caller's. */
struct samples feed_samples(struct feed *f);

#endif
