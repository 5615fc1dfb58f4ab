#include "api/sensitivity_text.h"

#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#define CELL_MAX  40
#define FIRST_MAX 48 /* columns of a layer's name */

static const char *text_of(const json_t *o, const char *key) {
    const char *s = json_string_value(json_object_get(o, key));

    return s ? s : "-";
}

static void put_number(const json_t *cell, char ret[static CELL_MAX]) {
    const json_t *d = json_object_get(cell, "damage");

    if (json_is_true(json_object_get(cell, "unchanged")))
        snprintf(ret, CELL_MAX, "=");
    else if (json_is_number(d))
        snprintf(ret, CELL_MAX, "%.3g", json_number_value(d));
    else
        snprintf(ret, CELL_MAX, "%s", cell ? "x" : "-");
}

static const json_t *cell_of(const json_t *row, size_t method) {
    const json_t *cells = json_object_get(row, "cells");

    for (size_t i = 0; i < json_array_size(cells); i++)
        if ((size_t)json_integer_value(json_object_get(json_array_get(cells, i), "method")) == method)
            return json_array_get(cells, i);
    return NULL;
}

/* "0.0173 (0.036)": with only this layer compressed, with all but this one. */
static void put_cell(const json_t *row, size_t method, char ret[static CELL_MAX]) {
    const json_t *cell = cell_of(row, method);
    char alone[CELL_MAX], restored[CELL_MAX];

    put_number(json_object_get(cell, "compressed"), alone);
    put_number(json_object_get(cell, "restored"), restored);
    if (cell)
        snprintf(ret, CELL_MAX, "%.15s (%.15s)", alone, restored);
    else
        snprintf(ret, CELL_MAX, "-");
}

/* What its class is called, of a network's class number. */
static const char *class_name(const json_t *result, const json_t *index, char ret[static CELL_MAX]) {
    const json_t *classes = json_object_get(result, "classes");

    for (size_t i = 0; i < json_array_size(classes); i++) {
        const json_t *c = json_array_get(classes, i);
        const char *name = json_string_value(json_object_get(c, "class"));

        if (name && json_equal(json_object_get(c, "index"), index))
            return name;
    }
    snprintf(ret, CELL_MAX, "%lld", (long long)json_integer_value(index));
    return ret;
}

static size_t worst_class(const json_t *per_class) {
    size_t worst = 0;

    for (size_t i = 1; i < json_array_size(per_class); i++)
        if (json_number_value(json_array_get(per_class, i)) >
            json_number_value(json_array_get(per_class, worst)))
            worst = i;
    return worst;
}

/* What it does to all layers together, where it hurts most. */
static void put_method(const json_t *result, size_t i, struct buf *b) {
    const json_t *m = json_array_get(json_object_get(result, "methods"), i), *all = json_object_get(m, "all");
    const json_t *per_class = json_object_get(all, "per_class"),
                 *worst = json_array_get(json_object_get(all, "worst"), 0);
    char number[CELL_MAX], name[CELL_MAX], after[CELL_MAX];

    buf_printf(b, "[%zu] %s\n", i, text_of(m, "label"));
    put_number(all, number);
    buf_printf(b, "    all %lld layers: damage %s",
        (long long)json_integer_value(json_object_get(m, "layers")), number);
    if (json_is_number(json_object_get(all, "agreement")))
        buf_printf(b, ", same answer %.1f%%", 100 * json_number_value(json_object_get(all, "agreement")));
    if (json_is_number(json_object_get(all, "accuracy_difference"))) {
        const json_t *ci = json_object_get(all, "ci95");

        buf_printf(b, ", accuracy %+.1f points (%.1f to %.1f)",
            100 * json_number_value(json_object_get(all, "accuracy_difference")),
            100 * json_number_value(json_array_get(ci, 0)), 100 * json_number_value(json_array_get(ci, 1)));
    }
    buf_puts(b, "\n");
    if (json_array_size(per_class) > 0) {
        size_t k = worst_class(per_class);
        const json_t *index = json_object_get(json_array_get(json_object_get(result, "classes"), k), "index");

        buf_printf(b, "    worst class: %s (%.3g)", class_name(result, index, name),
            json_number_value(json_array_get(per_class, k)));
    }
    if (worst) {
        put_number(worst, number);
        buf_printf(b, "%s sample %lld (%s)", json_array_size(per_class) ? "; worst:" : "    worst:",
            (long long)json_integer_value(json_object_get(worst, "index")), number);
        if (json_object_get(worst, "before"))
            buf_printf(b, ", %s before, %s after", class_name(result, json_object_get(worst, "before"), name),
                class_name(result, json_object_get(worst, "after"), after));
    }
    if (json_array_size(per_class) > 0 || worst)
        buf_puts(b, "\n");
}

static void put_head(const json_t *result, struct buf *b) {
    bool is_kl = !strcmp(text_of(result, "damage"), "kl");

    buf_printf(b, "%s~%s on %lld samples of %s\n", text_of(result, "model"), text_of(result, "from"),
        (long long)json_integer_value(json_object_get(result, "samples")), text_of(result, "dataset"));
    buf_printf(b, "damage: %s\n\n",
        is_kl ? "mean Kullback-Leibler divergence of the answers from those before, in nats"
              : "relative L2 error of the outputs");
}

static void put_rows(const json_t *result, struct buf *b) {
    const json_t *rows = json_object_get(result, "layers");
    size_t n = json_array_size(json_object_get(result, "methods"));
    int first = (int)strlen("layer");
    char cell[CELL_MAX];

    for (size_t i = 0; i < json_array_size(rows); i++) {
        int size = (int)strlen(text_of(json_array_get(rows, i), "id"));

        first = size > first ? size : first;
    }
    first = first > FIRST_MAX ? FIRST_MAX : first;
    buf_puts(b,
        "\nwith only this layer compressed (with all but this one); = left as it was, x could not be done\n");
    buf_printf(b, "%-*s", first, "layer");
    for (size_t m = 0; m < n; m++) {
        snprintf(cell, sizeof(cell), "[%zu]", m);
        buf_printf(b, "  %20s", cell);
    }
    buf_puts(b, "\n");
    for (size_t i = 0; i < json_array_size(rows); i++) {
        const json_t *row = json_array_get(rows, i);

        buf_printf(b, "%-*.*s", first, FIRST_MAX, text_of(row, "id"));
        for (size_t m = 0; m < n; m++) {
            put_cell(row, m, cell);
            buf_printf(b, "  %20s", cell);
        }
        buf_puts(b, "\n");
    }
}

int sensitivity_text(const json_t *result, struct buf *ret) {
    const json_t *advice = json_object_get(result, "advice");

    put_head(result, ret);
    for (size_t i = 0; i < json_array_size(json_object_get(result, "methods")); i++)
        put_method(result, i, ret);
    put_rows(result, ret);
    buf_puts(ret, "\n");
    for (size_t i = 0; i < json_array_size(advice); i++) {
        const json_t *a = json_array_get(advice, i);
        int r = buf_printf(ret, "[%lld] %s\n", (long long)json_integer_value(json_object_get(a, "method")),
            text_of(a, "text"));

        if (r < 0) /* the first that did not fit: all behind it did not either */
            return r;
    }
    return 0;
}
