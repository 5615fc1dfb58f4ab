#include <errno.h>
#include <string.h>

#include "clients/cli/cli.h"

static const struct column columns[] = {
    {"DATA SET", "name", CELL_TEXT},
    {"ITEMS", "count", CELL_TEXT},
    {"CLASSES", "classes", CELL_COUNT},
    {"SHAPE", "shape", CELL_TEXT},
    {"SPLITS", "splits", CELL_TEXT},
    {"BYTES", "bytes", CELL_BYTES},
};

enum { PUT_SPLIT, PUT_FORMAT, PUT_REPLACE };
static const struct cli_option options[] = {
    {"--split", "NAME", "put: everything goes to this split (train, test, …)"},
    {"--format", "KIND", "put: what the file is, when it cannot be told"},
    {"--replace", NULL, "put: in the place of a data set of that name"},
};

static char *put_path(struct cli *c, const struct cli_args *a) {
    static const char *const pattern[] = {"/api/v1/datasets/%?replace=%",
        "/api/v1/datasets/%?replace=%&split=%", "/api/v1/datasets/%?replace=%&format=%",
        "/api/v1/datasets/%?replace=%&split=%&format=%"};
    const char *split = a->option[PUT_SPLIT], *format = a->option[PUT_FORMAT];
    const char *first = split ? split : format;

    return http_path(c->http, pattern[(split != NULL) + 2 * (format != NULL)], a->arg[1],
        a->option[PUT_REPLACE] ? "true" : "false", first ? first : "", format ? format : "");
}

static int put(struct cli *c, const struct cli_args *a, struct error *err) {
    _cleanup_(freep) char *path = put_path(c, a);
    _cleanup_(json_decrefp) json_t *set = NULL;
    int r = cli_upload(c, path, a->arg[2], &set, err);
    const json_t *classes = json_object_get(set, "classes");
    json_t *splits = json_object_get(set, "splits"), *split;
    const char *name;

    if (r < 0 || c->is_json)
        return r;
    printf("%s: %lld items, %zu classes", a->arg[1],
        (long long)json_integer_value(json_object_get(set, "count")),
        json_is_array(classes) ? json_array_size(classes) : (size_t)json_integer_value(classes));
    json_object_foreach(splits, name, split) printf(", %s %lld", name,
        (long long)(json_is_integer(split) ? json_integer_value(split)
                                           : json_integer_value(json_object_get(split, "count"))));
    putchar('\n');
    return 0;
}

static int run_datasets(struct cli *c, const struct cli_args *a, struct error *err) {
    if (a->n == 0)
        return cli_list(c, "/api/v1/datasets?limit=1000", columns, sizeof(columns) / sizeof(columns[0]), err);
    if (a->n != 3 || strcmp(a->arg[0], "put") != 0)
        return error_set(err, -EINVAL, "usage: bonsai datasets [put NAME FILE]");
    return put(c, a, err);
}

const struct cli_command datasets_commands[] = {
    {"datasets", "[put NAME FILE]", "lists the data sets, or adds one: tar, zip, npz, IDX", 0, 3, options,
        sizeof(options) / sizeof(options[0]), run_datasets},
    {.name = NULL},
};
