/* `recover.distill`: what a network learns from another one (methods.md, distill). */
#ifndef COMPRESS_DISTIL_H
#define COMPRESS_DISTIL_H

#include "compress/learn.h"

struct distil_options {
    int teacher;                    /* 0: parent */
    struct param_objects knowledge; /* of struct distil_knowledge; none: the usual logits */
    bool labels;
};

struct distil_knowledge {
    int kind; /* 0: logits */
    double weight, temperature;
};

extern const struct param_table distil_table;

/* *ret refers to `teacher`. Errors: -EINVAL, its text begins with the key. */
int distil_read(
    const struct distil_options *o, const struct graph *teacher, struct learn_distil *ret, struct error *err);

#endif
