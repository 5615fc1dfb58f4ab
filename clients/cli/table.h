/* Aligned tables from lists of JSON objects. */
#ifndef CLIENTS_CLI_TABLE_H
#define CLIENTS_CLI_TABLE_H

#include <jansson.h>
#include <stddef.h>

enum cell {
    CELL_TEXT,    /* strings and numbers as they are; lists joined by commas; objects by their keys */
    CELL_COUNT,   /* 1234567 as 1.23M; of a list or object its length */
    CELL_BYTES,   /* 1234567 as 1.18 MiB */
    CELL_PERCENT, /* 0.9123 as 91.23% */
    CELL_MICROS,  /* 1234.5 as 1.23 ms */
    CELL_TIME,    /* an RFC 3339 time without its fraction */
};

struct column {
    const char *title;
    const char *path; /* "evaluation.accuracy" */
    enum cell cell;
};

/* What is null or missing is shown as "-". */
void table_print(const struct column *columns, size_t n, const json_t *items);

#endif
