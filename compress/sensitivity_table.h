/* Damages as JSON. The table:
 *
 *   {"damage": "kl" | "relative_l2", "samples", "split", "accuracy", "ci95", "classes_by": "label" |
 * "answer", "classes": [{"index", "class", "n"}], "methods": [{"label", "step", "layers", "all": cell}],
 *    "layers": [{"id", "cells": [{"method", "compressed": cell, "restored": cell}]}],
 *    "advice": [{"method", "leave_out": [id], "stand_more": [id], "text"}]}
 *
 *   cell: {"damage", "kl", "relative_l2": [of each output], "agreement", "accuracy_difference", "ci95",
 *          "per_class": [damage, as `classes`], "worst": [{"index", "damage", "before", "after"}]}
 *         "unchanged": true where the step left its only layer as it was
 *         or {"reason"}: it could not be done, and why
 *
 * `classes` and what goes with them stand with classifiers, accuracies with labels. Numbers have five
 * significant digits. */
#ifndef COMPRESS_SENSITIVITY_TABLE_H
#define COMPRESS_SENSITIVITY_TABLE_H

#include <jansson.h>

#include "compress/sensitivity.h"

struct sensitivity_classes {
    int64_t n;      /* that are among the samples */
    int64_t *index; /* [n] of the network's outputs */
    int64_t *count; /* [n] samples */
    int64_t *of;    /* [samples] place in index[] */
};

/* By label, where all samples have one; else by the parent's answer. Empty for no classifier. */
int sensitivity_classes_of(
    const struct sensitivity_facts *f, struct sensitivity_classes *ret, struct error *err);
void sensitivity_classes_done(struct sensitivity_classes *c);

/* New references; NULL: out of memory. */
json_t *sensitivity_cell(const struct sensitivity_facts *f, const struct sensitivity_classes *c,
    const struct samples *samples, const struct sensitivity_damage *d);
json_t *sensitivity_no_cell(const char *reason);

/* `methods` and `rows` as above; adds the rest and the advice. */
json_t *sensitivity_table(const struct sensitivity_facts *f, const struct sensitivity_classes *c,
    const struct samples *samples, json_t *methods, json_t *rows);

/* ---- sensitivity_advice.c ---- */

/* Which layers a method should leave out, and which bear more: `advice` of a table. */
json_t *sensitivity_advice(const json_t *methods, const json_t *rows);

#endif
