/* From damages to words. Of each method: the damage of all layers together is what there is to win; a layer
 * whose restoring wins back a large share of it should be left out; one whose damage alone is small beside
 * the mean bears more. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/buf.h"
#include "compress/sensitivity_table.h"

#define LARGE_SHARE 0.25 /* of the damage of all layers that restoring one wins back, */
#define FAIR_SHARES 1.5  /* and so many times what it would be of layers that suffer alike */
#define FAR_ABOVE   3.0  /* damage alone, times the mean */
#define FAR_BELOW   0.25
#define NO_DAMAGE   1e-4 /* all layers together: nothing need be left out */
#define TEXT_MAX    4096

static const json_t *cell_of(const json_t *row, size_t method) {
    const json_t *cells = json_object_get(row, "cells");

    for (size_t i = 0; i < json_array_size(cells); i++) {
        const json_t *c = json_array_get(cells, i);

        if ((size_t)json_integer_value(json_object_get(c, "method")) == method)
            return c;
    }
    return NULL;
}

/* -1: not measured, or of a layer that the step left as it was. */
static double damage(const json_t *row, size_t method, const char *which) {
    const json_t *cell = json_object_get(cell_of(row, method), which), *d = json_object_get(cell, "damage");

    return json_is_number(d) && !json_is_true(json_object_get(cell, "unchanged")) ? json_number_value(d) : -1;
}

static double mean_alone(const json_t *rows, size_t method) {
    double sum = 0;
    int n = 0;

    for (size_t i = 0; i < json_array_size(rows); i++) {
        double d = damage(json_array_get(rows, i), method, "compressed");

        sum += d > 0 ? d : 0;
        n += d >= 0;
    }
    return n ? sum / n : 0;
}

struct judged {
    json_t *leave_out, *stand_more;
    const char *worst; /* the layer that wins back most */
    double won;        /* share */
};

static void judge_layer(
    const json_t *row, size_t method, double all, double mean, double large, struct judged *j) {
    const json_t *id = json_object_get(row, "id");
    double alone = damage(row, method, "compressed"), restored = damage(row, method, "restored");
    double won = all > NO_DAMAGE && restored >= 0 ? (all - restored) / all : 0;

    if (alone < 0)
        return;
    if (all > NO_DAMAGE && (won >= large || alone > FAR_ABOVE * mean))
        json_array_append(j->leave_out, (json_t *)(uintptr_t)id);
    else if (alone <= FAR_BELOW * mean || all <= NO_DAMAGE)
        json_array_append(j->stand_more, (json_t *)(uintptr_t)id);
    if (won > j->won) {
        j->won = won;
        j->worst = json_string_value(id);
    }
}

static void put_names(struct buf *b, const json_t *list) {
    for (size_t i = 0; i < json_array_size(list); i++)
        buf_printf(b, "%s%s", i ? ", " : "", json_string_value(json_array_get(list, i)));
}

static void put_text(struct buf *b, const struct judged *j, double all) {
    if (all >= 0 && all <= NO_DAMAGE)
        buf_puts(b, "all layers together do no damage to speak of");
    if (json_array_size(j->leave_out) > 0) {
        buf_puts(b, "leave out ");
        put_names(b, j->leave_out);
        if (j->worst)
            buf_printf(b, " (%s wins back %.0f%% of the damage)", j->worst, 100 * fmin(j->won, 1));
    }
    if (json_array_size(j->stand_more) > 0 && all > NO_DAMAGE) {
        buf_puts(b, b->size ? "; " : "");
        put_names(b, j->stand_more);
        buf_printf(b, " %s more", json_array_size(j->stand_more) > 1 ? "bear" : "bears");
    }
    if (!b->size)
        buf_puts(b, "the layers suffer alike: none stands out");
}

static json_t *advise(const json_t *method, size_t index, const json_t *rows) {
    const json_t *whole = json_object_get(json_object_get(method, "all"), "damage");
    double all = json_is_number(whole) ? json_number_value(whole) : -1, mean = mean_alone(rows, index), large;
    struct judged j = {json_array(), json_array(), NULL, 0};
    struct buf text;
    json_t *ret;

    large = fmax(
        LARGE_SHARE, FAIR_SHARES / fmax((double)json_integer_value(json_object_get(method, "layers")), 1));
    for (size_t i = 0; i < json_array_size(rows); i++)
        judge_layer(json_array_get(rows, i), index, all, mean, large, &j);
    buf_init(&text, TEXT_MAX); /* of very many layers only the first are named */
    put_text(&text, &j, all);
    ret = json_pack("{s:i, s:o, s:o, s:s}", "method", (int)index, "leave_out", j.leave_out, "stand_more",
        j.stand_more, "text", text.data ? text.data : "");
    buf_done(&text);
    return ret;
}

json_t *sensitivity_advice(const json_t *methods, const json_t *rows) {
    json_t *list = json_array();

    for (size_t i = 0; i < json_array_size(methods); i++)
        json_array_append_new(list, advise(json_array_get(methods, i), i, rows));
    return list;
}
