#include <errno.h>
#include <string.h>

#include "clients/cli/body.h"
#include "clients/cli/cli.h"

enum { INFER_VARIANT, INFER_TOP, INFER_OUTPUTS };
static const struct cli_option options[] = {
    {"--variant", "NAME", "ask this variant, not the one the server chooses"},
    {"--top", "N", "pictures: so many of the best classes (5)"},
    {"--outputs", NULL, "pictures: show the output tensors, too"},
};

static bool is_npy(const struct buf *file) {
    return file->size > 6 && !memcmp(file->data, "\x93NUMPY", 6);
}

static bool is_json_text(const struct buf *file) {
    size_t at = file->size ? strspn(file->data, " \t\r\n") : 0;

    return at < file->size && file->data[at] == '{';
}

static char *model_name(const struct cli_args *a) {
    const char *variant = a->option[INFER_VARIANT];
    char *name = NULL;

    return asprintf(&name, "%s%s%s", a->arg[0], variant ? "~" : "", variant ? variant : "") < 0 ? NULL : name;
}

/* The name of the model's only input. */
static int input_name(struct cli *c, const char *model, char **ret, struct error *err) {
    _cleanup_(freep) char *path = http_path(c->http, "/v2/models/%", model);
    _cleanup_(json_decrefp) json_t *metadata = NULL;
    bool was_json = c->is_json;
    const json_t *inputs;
    const char *name;
    int r;

    c->is_json = false;
    r = cli_get(c, path, &metadata, err);
    c->is_json = was_json;
    if (r < 0)
        return r;
    inputs = json_object_get(metadata, "inputs");
    name = json_string_value(json_object_get(json_array_get(inputs, 0), "name"));
    if (json_array_size(inputs) != 1 || !name)
        return error_set(err, -EINVAL,
            "%s has %zu inputs: an array alone does not say which it is for; send JSON", model,
            json_array_size(inputs));
    *ret = strdup(name);
    return *ret ? 0 : error_oom(err);
}

/* The array behind a v2 JSON header with binary_data_size; outputs come back as JSON. */
static int npy_body(struct cli *c, const char *model, const struct buf *file, struct buf *ret,
    size_t *ret_json, struct error *err) {
    _cleanup_(json_decrefp) json_t *shape = NULL, *header = NULL;
    _cleanup_(freep) char *name = NULL, *text = NULL;
    const char *datatype;
    size_t offset;
    int r = body_npy(file, &datatype, &shape, &offset, err);

    if (r == 0)
        r = input_name(c, model, &name, err);
    if (r < 0)
        return r;
    header = json_pack("{s:[{s:s, s:s, s:O, s:{s:I}}]}", "inputs", "name", name, "datatype", datatype,
        "shape", shape, "parameters", "binary_data_size", (json_int_t)(file->size - offset));
    text = header ? json_dumps(header, JSON_COMPACT) : NULL;
    if (!text || buf_puts(ret, text) < 0 || buf_append(ret, file->data + offset, file->size - offset) < 0)
        return error_oom(err);
    *ret_json = strlen(text);
    return 0;
}

static void print_classes(const json_t *reply) {
    static const struct column columns[] = {
        {"CLASS", "label", CELL_TEXT},
        {"INDEX", "index", CELL_TEXT},
        {"SCORE", "score", CELL_PERCENT},
    };

    table_print(columns, sizeof(columns) / sizeof(columns[0]), json_object_get(reply, "classes"));
}

static void print_outputs(json_t *reply) {
    json_t *outputs = json_object_get(reply, "outputs"), *o;
    size_t i;

    json_array_foreach(outputs, i, o) {
        char *data =
            json_dumps(json_object_get(o, "data"), JSON_ENCODE_ANY | JSON_COMPACT | JSON_REAL_PRECISION(7));
        char *shape = json_dumps(json_object_get(o, "shape"), JSON_ENCODE_ANY | JSON_COMPACT);

        printf("%s %s %s %s\n", json_string_value(json_object_get(o, "name")),
            json_string_value(json_object_get(o, "datatype")), shape ? shape : "", data ? data : "");
        free(data);
        free(shape);
    }
}

static int print_reply(struct cli *c, const struct http_reply *reply, struct error *err) {
    _cleanup_(json_decrefp) json_t *j = NULL;

    if (c->is_json) {
        fwrite(reply->body.data ? reply->body.data : "", 1, reply->body.size, stdout);
        putchar('\n');
        return 0;
    }
    j = json_loadb(reply->body.data ? reply->body.data : "", reply->body.size, 0, NULL);
    if (!j)
        return error_set(err, -ECONNREFUSED, "the server's answer is not JSON");
    if (json_object_get(j, "classes"))
        print_classes(j);
    print_outputs(j);
    return 0;
}

static int ask(
    struct cli *c, const struct cli_args *a, const char *model, const struct buf *file, struct error *err) {
    bool is_picture = !is_npy(file) && !is_json_text(file);
    const char *top = a->option[INFER_TOP];
    _cleanup_(freep) char *path = is_picture
                                      ? http_path(c->http, "/v2/models/%/infer?top=%&outputs=%", model,
                                            top ? top : "5", a->option[INFER_OUTPUTS] ? "true" : "false")
                                      : http_path(c->http, "/v2/models/%/infer", model);
    struct http_request r = {.method = "POST", .path = path, .body = file->data, .body_size = file->size};
    struct http_reply reply;
    struct buf body;
    char header[64];
    size_t json_size = 0;
    int rc = path ? 0 : error_oom(err);

    buf_init(&body, (size_t)1 << 31);
    if (rc == 0 && is_npy(file)) {
        rc = npy_body(c, model, file, &body, &json_size, err);
        snprintf(header, sizeof(header), "Inference-Header-Content-Length: %zu", json_size);
        r.header[0] = header;
        r.body = body.data;
        r.body_size = body.size;
    }
    if (rc == 0) {
        rc = http_send(c->http, &r, &reply, err);
        if (rc == 0)
            rc = print_reply(c, &reply, err);
        http_reply_done(&reply);
    }
    buf_done(&body);
    return rc;
}

static int run_infer(struct cli *c, const struct cli_args *a, struct error *err) {
    _cleanup_(freep) char *model = model_name(a);
    struct buf file;
    int r = body_read(a->arg[1], &file, err);

    if (r == 0 && !file.size)
        r = error_set(err, -EINVAL, "%s is empty", a->arg[1]);
    if (r == 0)
        r = model ? ask(c, a, model, &file, err) : error_oom(err);
    buf_done(&file);
    return r;
}

const struct cli_command infer_commands[] = {
    {"infer", "MODEL FILE", "asks a model: JPEG, PNG, .npy or a v2 request in JSON", 2, 2, options,
        sizeof(options) / sizeof(options[0]), run_infer},
    {.name = NULL},
};
