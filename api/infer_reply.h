/* The answer to an infer request: tensors as JSON or binary, classification strings, classes of a picture. */
#ifndef API_INFER_REPLY_H
#define API_INFER_REPLY_H

#include "api/infer_request.h"
#include "api/reply.h"
#include "base/buf.h"

#define INFER_REPLY_MAX ((size_t)256 << 20)

/* What is answered; nothing is owned. */
struct infer_answer {
    const char *model, *version; /* version: digits */
    const struct graph *graph;
    const struct tensor *out;  /* all of the graph's outputs, LAYOUT_PLAIN, data filled */
    const char *const *labels; /* n_labels names or NULL */
    size_t n_labels;
    bool wants_classes; /* a picture's reply: `classes` of output 0, row 0; null when there are none */
    bool has_classes;   /* output 0 is a classifier's */
    bool is_softmax;    /* the graph ends in one: scores are taken as they are */
    unsigned top;
};

/* Fills p (200). Errors: bad_request for outputs that have no JSON form. */
int infer_reply(const struct infer *in, const struct infer_answer *a, struct reply *p, struct error *err);

/* The arrays alone, for other documents: outputs (none of them binary) and classes ("null" if none). */
int infer_write_outputs(
    struct buf *json, const struct infer *in, const struct infer_answer *a, struct error *err);
int infer_write_classes(struct buf *json, const struct infer_answer *a, struct error *err);

/* Borrowed names of a model's `labels`; *ret is malloc'd, NULL: none. Returns their number. */
size_t infer_labels(const json_t *model, const char ***ret);

struct infer_class {
    size_t index;
    double score;
};

/* The best k of n scores, best first, lower index first among equals; *ret has room for k (at most n are
 * written); returns their number. NaN counts as lowest. */
size_t infer_top(const float *scores, size_t n, size_t k, struct infer_class *ret);

/* Softmax of n floats in double precision into ret. */
void infer_softmax(const float *x, size_t n, float *ret);

/* Writes "text" with JSON escapes. */
int infer_put_string(struct buf *b, const char *text);

#endif
