#include "clients/cli/table.h"

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/cleanup.h"

#define CELL_SIZE 96

/* The member at "a.b.c"; NULL: there is none. */
static const json_t *at_path(const json_t *j, const char *path) {
    char key[64];

    while (j && *path) {
        size_t size = strcspn(path, ".");

        snprintf(key, sizeof(key), "%.*s", (int)size, path);
        j = json_object_get(j, key);
        path += size + (path[size] == '.');
    }
    return j;
}

static void put_scaled(double v, double step, const char *const *units, char *ret) {
    int i = 0;

    for (; v >= step && units[i + 1]; i++)
        v /= step;
    snprintf(ret, CELL_SIZE, i || v != (double)(long long)v ? "%.2f%s" : "%.0f%s", v, units[i]);
}

static void append(char *ret, const char *text) {
    size_t used = strlen(ret);

    snprintf(ret + used, CELL_SIZE - used, "%s%s", used ? "," : "", text);
}

static void put_text(const json_t *j, char *ret) {
    json_t *copy = (json_t *)(uintptr_t)j, *value; /* the iterator wants it mutable and changes nothing */
    const char *key;
    size_t i;

    ret[0] = 0;
    if (json_is_string(j)) {
        snprintf(ret, CELL_SIZE, "%s", json_string_value(j));
    } else if (json_is_integer(j)) {
        snprintf(ret, CELL_SIZE, "%lld", (long long)json_integer_value(j));
    } else if (json_is_real(j)) {
        snprintf(ret, CELL_SIZE, "%.6g", json_real_value(j));
    } else if (json_is_boolean(j)) {
        snprintf(ret, CELL_SIZE, "%s", json_is_true(j) ? "yes" : "no");
    } else if (json_is_object(j)) {
        json_object_foreach(copy, key, value) append(ret, key);
    } else {
        json_array_foreach(copy, i, value) {
            char item[CELL_SIZE];

            put_text(value, item);
            append(ret, item);
        }
    }
}

static void put_cell(const struct column *c, const json_t *item, char *ret) {
    static const char *const counts[] = {"", "k", "M", "G", "T", NULL},
                             *const bytes[] = {" B", " KiB", " MiB", " GiB", " TiB", NULL},
                             *const times[] = {" us", " ms", " s", NULL};
    const json_t *j = at_path(item, c->path);
    double v = json_number_value(j);

    if (c->cell == CELL_COUNT && (json_is_array(j) || json_is_object(j)))
        v = (double)(json_is_array(j) ? json_array_size(j) : json_object_size(j));
    else if (c->cell != CELL_TEXT && c->cell != CELL_TIME && !json_is_number(j))
        j = NULL;
    ret[0] = 0;
    if (j) {
        switch (c->cell) {
        case CELL_COUNT: put_scaled(v, 1000, counts, ret); break;
        case CELL_BYTES: put_scaled(v, 1024, bytes, ret); break;
        case CELL_MICROS: put_scaled(v, 1000, times, ret); break;
        case CELL_PERCENT: snprintf(ret, CELL_SIZE, "%.2f%%", 100 * v); break;
        case CELL_TIME:
            put_text(j, ret);
            ret[strcspn(ret, ".")] = 0;
            break;
        case CELL_TEXT:
        default: put_text(j, ret); break;
        }
    }
    if (!ret[0])
        snprintf(ret, CELL_SIZE, "-");
}

/* Columns of characters, not bytes: UTF-8's continuation bytes take none. */
static int width_of(const char *s) {
    int n = 0;

    for (; *s; s++)
        n += ((unsigned char)*s & 0xc0) != 0x80;
    return n;
}

static void print_row(const struct column *columns, size_t n, const json_t *item, const int *width) {
    for (size_t i = 0; i < n; i++) {
        bool is_left = columns[i].cell == CELL_TEXT || columns[i].cell == CELL_TIME;
        char text[CELL_SIZE];
        int pad;

        if (item)
            put_cell(&columns[i], item, text);
        else
            snprintf(text, sizeof(text), "%s", columns[i].title);
        pad = width[i] - width_of(text);
        if (is_left)
            printf("%s%*s", text, i + 1 < n ? pad + 2 : 0, "");
        else
            printf("%*s%s%s", pad, "", text, i + 1 < n ? "  " : "");
    }
    putchar('\n');
}

void table_print(const struct column *columns, size_t n, const json_t *items) {
    _cleanup_(freep) int *width = calloc(n, sizeof(*width));
    char text[CELL_SIZE];

    if (!width)
        return;
    for (size_t i = 0; i < n; i++) {
        width[i] = width_of(columns[i].title);
        for (size_t k = 0; k < json_array_size(items); k++) {
            put_cell(&columns[i], json_array_get(items, k), text);
            if (width_of(text) > width[i])
                width[i] = width_of(text);
        }
    }
    print_row(columns, n, NULL, width);
    for (size_t k = 0; k < json_array_size(items); k++)
        print_row(columns, n, json_array_get(items, k), width);
}
