/* Accuracy of variants on labelled data: top-1 with Wilson interval, top-5, per class, and sample by sample
 * against a reference (exact McNemar). Latency: batch 1, one thread, variants interleaved. */
#ifndef COMPRESS_EVALUATE_H
#define COMPRESS_EVALUATE_H

#include <jansson.h>

#include "compress/feed.h"
#include "compress/latency.h"
#include "compress/progress.h"
#include "compress/session.h"

struct evaluation {
    uint64_t n, n_correct, n_top5;
    int64_t n_classes;                 /* of the network */
    uint64_t *class_n, *class_correct; /* [n_classes] */
    int32_t *answer;                   /* [n] the network's class, for pairs */
    bool *is_correct;                  /* [n] */
};

/* One session (open, any input shape) over the feed, whose classes are mapped here. Errors: not_a_classifier,
 * classes_do_not_match, bad_dataset (one class). */
int evaluate(struct session *s, struct feed *f, const json_t *labels, const struct progress *p,
    struct evaluation *ret, struct error *err);
void evaluation_done(struct evaluation *e);

/* As the API shows it (api.md 5): n, accuracy, ci95, top5, per_class [{"class","n","correct","accuracy"}],
 * vs_reference. `reference` NULL: none (vs_reference is null). */
json_t *evaluation_json(
    const struct evaluation *e, const struct feed *f, const struct evaluation *reference, const char *name);

/* Interleaved runs of n sessions on the feed's first items; ret[n]. */
int evaluate_latency(
    struct session *s, size_t n, struct feed *f, double seconds, struct latency *ret, struct error *err);
json_t *latency_json(const struct latency *l);

/* {layer's id: microseconds}, after evaluate_latency: each step's smallest time over a few runs of their own,
 * because reading the clock between the layers costs time. What is fused into another layer has no entry. */
int evaluate_layers(struct session *s, struct feed *f, json_t **ret, struct error *err);

#endif
