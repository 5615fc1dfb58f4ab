#include <errno.h>

#include "clients/cli/body.h"
#include "clients/cli/cli.h"

static const struct column columns[] = {
    {"MODEL", "name", CELL_TEXT},
    {"VARIANTS", "n_variants", CELL_COUNT},
    {"FILE", "bytes", CELL_BYTES},
    {"PARAMETERS", "parameters", CELL_COUNT},
    {"MACS", "macs", CELL_COUNT},
    {"ADDED", "created", CELL_TIME},
};

static int run_models(struct cli *c, const struct cli_args *a, struct error *err) {
    (void)a;
    return cli_list(c, "/api/v1/models?limit=1000", columns, sizeof(columns) / sizeof(columns[0]), err);
}

enum { UPLOAD_LABELS, UPLOAD_PREPROCESS, UPLOAD_REPLACE };
static const struct cli_option upload_options[] = {
    {"--labels", "FILE", "names of the classes: one a line, or a JSON list"},
    {"--preprocess", "FILE", "JSON: how a picture becomes the input tensor; or a card with that and labels"},
    {"--replace", NULL, "put it in the place of a model of that name"},
};

/* A card, which has it as one of its members, or the preprocess itself. Labels that were given win. */
static int take_preprocess(const char *file, json_t *patch, struct error *err) {
    _cleanup_(json_decrefp) json_t *value = NULL;
    json_t *inner;
    int r = body_json(file, &value, err);

    if (r < 0)
        return r;
    inner = json_object_get(value, "preprocess");
    if (inner && json_object_get(value, "labels") && !json_object_get(patch, "labels"))
        json_object_set(patch, "labels", json_object_get(value, "labels"));
    json_object_set(patch, "preprocess", inner ? inner : value);
    return 0;
}

/* What the options say is set with one PATCH. */
static int describe(struct cli *c, const char *name, const struct cli_args *a, struct error *err) {
    _cleanup_(json_decrefp) json_t *patch = json_object(), *value = NULL, *reply = NULL;
    _cleanup_(freep) char *path = http_path(c->http, "/api/v1/models/%", name);
    bool was_json = c->is_json;
    int r = 0;

    if (a->option[UPLOAD_LABELS]) {
        r = body_labels(a->option[UPLOAD_LABELS], &value, err);
        if (r == 0)
            json_object_set_new(patch, "labels", TAKE(value));
    }
    if (r == 0 && a->option[UPLOAD_PREPROCESS])
        r = take_preprocess(a->option[UPLOAD_PREPROCESS], patch, err);
    if (r < 0 || !json_object_size(patch))
        return r;
    c->is_json = false; /* the upload's document is the answer, not this one */
    r = cli_send(c, "PATCH", path, patch, &reply, err);
    c->is_json = was_json;
    return r;
}

static int run_upload(struct cli *c, const struct cli_args *a, struct error *err) {
    _cleanup_(json_decrefp) json_t *summary = NULL;
    _cleanup_(freep) char *path = http_path(
        c->http, a->option[UPLOAD_REPLACE] ? "/api/v1/models/%?replace=true" : "/api/v1/models/%", a->arg[0]);
    int r = cli_upload(c, path, a->arg[1], &summary, err);

    if (r == 0)
        r = describe(c, a->arg[0], a, err);
    if (r == 0 && !c->is_json)
        printf("%s: %lld parameters, %lld multiply-adds\n", a->arg[0],
            (long long)json_integer_value(json_object_get(summary, "parameters")),
            (long long)json_integer_value(json_object_get(summary, "macs")));
    return r;
}

const struct cli_command models_commands[] = {
    {"models", "", "lists the models", 0, 0, NULL, 0, run_models},
    {"upload", "NAME FILE", "adds an ONNX file as a model", 2, 2, upload_options,
        sizeof(upload_options) / sizeof(upload_options[0]), run_upload},
    {.name = NULL},
};
