#include "compress/sensitivity_table.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/stats.h"
#include "compress/feed.h"

#define N_WORST 5

/* Five digits say all there is to say; the rest is rounding of one kernel or another. */
static json_t *number(double x) {
    char text[40];

    if (!isfinite(x))
        return json_null();
    snprintf(text, sizeof(text), "%.5g", x);
    return json_real(strtod(text, NULL));
}

/* ---- classes ---- */

static int64_t class_of(const struct sensitivity_facts *f, int64_t sample) {
    return f->n_labels == f->n ? f->label[sample] : f->answer[sample];
}

int sensitivity_classes_of(
    const struct sensitivity_facts *f, struct sensitivity_classes *ret, struct error *err) {
    int64_t *place = NULL;

    *ret = (struct sensitivity_classes){0};
    if (!f->n_classes)
        return 0;
    place = calloc((size_t)f->n_classes + 1, sizeof(*place));
    ret->index = calloc((size_t)f->n_classes + 1, sizeof(*ret->index));
    ret->count = calloc((size_t)f->n_classes + 1, sizeof(*ret->count));
    ret->of = calloc((size_t)f->n + 1, sizeof(*ret->of));
    if (!place || !ret->index || !ret->count || !ret->of) {
        free(place);
        sensitivity_classes_done(ret);
        return error_oom(err);
    }
    for (int64_t i = 0; i < f->n; i++)
        place[class_of(f, i)] = 1;
    for (int64_t k = 0; k < f->n_classes; k++) {
        if (!place[k])
            continue;
        place[k] = ret->n;
        ret->index[ret->n++] = k;
    }
    for (int64_t i = 0; i < f->n; i++) {
        ret->of[i] = place[class_of(f, i)];
        ret->count[ret->of[i]]++;
    }
    free(place);
    return 0;
}

void sensitivity_classes_done(struct sensitivity_classes *c) {
    free(c->index);
    free(c->count);
    free(c->of);
    *c = (struct sensitivity_classes){0};
}

static const char *class_name(const struct samples *samples, int64_t index) {
    const json_t *labels = samples->source ? samples->source->labels : NULL;
    const struct feed *f = samples->feed;

    if (json_array_size(labels) > 0 || !f || !f->class_of)
        return json_string_value(json_array_get(labels, (size_t)index));
    for (uint32_t i = 0; i < pack_n_classes(f->pack); i++)
        if (f->class_of[i] == index)
            return pack_class(f->pack, i);
    return NULL;
}

static json_t *classes_json(const struct sensitivity_classes *c, const struct samples *samples) {
    json_t *list = json_array();

    for (int64_t k = 0; k < c->n; k++)
        json_array_append_new(list, json_pack("{s:I, s:s?, s:I}", "index", (json_int_t)c->index[k], "class",
                                        class_name(samples, c->index[k]), "n", (json_int_t)c->count[k]));
    return list;
}

/* ---- a cell ---- */

static json_t *per_class(
    const struct sensitivity_facts *f, const struct sensitivity_classes *c, const double *sample) {
    double *sum = calloc((size_t)c->n + 1, sizeof(*sum));
    json_t *list = json_array();

    for (int64_t i = 0; sum && i < f->n; i++)
        sum[c->of[i]] += sample[i];
    for (int64_t k = 0; sum && k < c->n; k++)
        json_array_append_new(list, number(sum[k] / (double)c->count[k]));
    free(sum);
    return list;
}

/* Where the sample stands in its split. */
static json_int_t number_of(const struct samples *samples, int64_t i) {
    return samples->feed ? (json_int_t)samples->feed->item[i] : (json_int_t)i;
}

/* The samples of the largest damage, the worst first, of equal ones the first. */
static json_t *worst_json(
    const struct sensitivity_facts *f, const struct samples *samples, const struct sensitivity_damage *d) {
    json_t *list = json_array();
    int64_t last = -1;

    for (int k = 0; k < N_WORST; k++) {
        int64_t best = -1;

        for (int64_t i = 0; i < f->n; i++) {
            bool is_told = last >= 0 &&
                           (d->sample[i] > d->sample[last] || (d->sample[i] == d->sample[last] && i <= last));

            if (!is_told && d->sample[i] > 0 && (best < 0 || d->sample[i] > d->sample[best]))
                best = i;
        }
        if (best < 0)
            break;
        last = best;
        json_array_append_new(list,
            json_pack("{s:I, s:o}", "index", number_of(samples, best), "damage", number(d->sample[best])));
        if (f->answer) {
            json_t *o = json_array_get(list, json_array_size(list) - 1);

            json_object_set_new(o, "before", json_integer(f->answer[best]));
            json_object_set_new(o, "after", json_integer(d->answer[best]));
        }
    }
    return list;
}

static json_t *interval_json(struct interval i) {
    return json_pack("[o, o]", number(i.low), number(i.high));
}

json_t *sensitivity_cell(const struct sensitivity_facts *f, const struct sensitivity_classes *c,
    const struct samples *samples, const struct sensitivity_damage *d) {
    json_t *cell = json_object(), *l2 = json_array();

    for (size_t o = 0; o < f->n_outputs; o++)
        json_array_append_new(l2, number(d->relative_l2[o]));
    json_object_set_new(cell, "damage", number(d->damage));
    json_object_set_new(cell, "relative_l2", l2);
    if (f->n_classes) {
        json_object_set_new(cell, "kl", number(d->kl));
        json_object_set_new(cell, "agreement", number(d->agreement));
        json_object_set_new(cell, "per_class", per_class(f, c, d->sample));
    }
    if (f->label) {
        uint64_t n = (uint64_t)f->n_labels;

        json_object_set_new(
            cell, "accuracy_difference", number((double)(d->n10 - d->n01) / (double)f->n_labels));
        json_object_set_new(
            cell, "ci95", interval_json(stats_paired_difference95((uint64_t)d->n01, (uint64_t)d->n10, n)));
    }
    json_object_set_new(cell, "worst", worst_json(f, samples, d));
    return cell;
}

json_t *sensitivity_no_cell(const char *reason) {
    return json_pack("{s:s}", "reason", reason);
}

json_t *sensitivity_table(const struct sensitivity_facts *f, const struct sensitivity_classes *c,
    const struct samples *samples, json_t *methods, json_t *rows) {
    json_t *table = json_pack("{s:s, s:I, s:O, s:O, s:o}", "damage", f->n_classes ? "kl" : "relative_l2",
        "samples", (json_int_t)f->n, "methods", methods, "layers", rows, "advice",
        sensitivity_advice(methods, rows));

    if (table && samples->feed)
        json_object_set_new(
            table, "split", json_string(pack_split(samples->feed->pack, samples->feed->split)));
    if (table && f->n_classes) {
        json_object_set_new(table, "classes", classes_json(c, samples));
        json_object_set_new(table, "classes_by", json_string(f->n_labels == f->n ? "label" : "answer"));
    }
    if (table && f->label) {
        json_object_set_new(table, "accuracy", number((double)f->n_correct / (double)f->n_labels));
        json_object_set_new(
            table, "ci95", interval_json(stats_wilson95((uint64_t)f->n_correct, (uint64_t)f->n_labels)));
    }
    return table;
}
