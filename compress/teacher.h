/* The network whose answers another one learns (Hinton, Vinyals and Dean 2015): its logits for a batch. */
#ifndef COMPRESS_TEACHER_H
#define COMPRESS_TEACHER_H

#include "base/cleanup.h"
#include "engine/graph.h"

struct teacher;

/* `g` is copied. `item`: its input for one sample, first dimension 1. Errors: -EOPNOTSUPP …, those of a plan;
 * classes_do_not_match when it does not give `classes` numbers a sample. */
int teacher_open(const struct graph *g, const struct shape *item, int64_t batch, int64_t classes,
    unsigned threads, struct teacher **ret, struct error *err);
struct teacher *teacher_free(struct teacher *t);
DEFINE_CLEANUP(struct teacher *, teacher_free)

/* Where sample i is written, in the input's own layout. */
float *teacher_input(struct teacher *t, int64_t i);

/* [batch][classes] of what teacher_input() holds. Logits but for one number a sample, which no softmax sees:
 * where the network ends in a Softmax these are the logarithms of its answers. */
const float *teacher_logits(struct teacher *t);

#endif
