/* /openapi.json, made from the rows of the route table: it cannot disagree with the router. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "api/etag.h"
#include "api/routes.h"
#include "base/cleanup.h"

static const char *const verbs[] = {[HTTP_GET] = "get",
    [HTTP_POST] = "post",
    [HTTP_PUT] = "put",
    [HTTP_PATCH] = "patch",
    [HTTP_DELETE] = "delete"};

static const struct {
    unsigned status;
    const char *text;
} status_texts[] = {
    {200, "Done"},
    {201, "Created"},
    {202, "Accepted"},
    {204, "Done, nothing to say"},
    {206, "A part of the file"},
    {304, "Unchanged"},
    {400, "Malformed"},
    {401, "No valid token"},
    {403, "Not allowed"},
    {404, "Not there"},
    {405, "Another verb"},
    {406, "No such form"},
    {409, "In conflict with what is there"},
    {412, "Changed meanwhile"},
    {413, "Too large"},
    {415, "Unsupported coding or type"},
    {416, "No such range"},
    {422, "Well formed, but unusable"},
    {429, "Too many at once"},
    {500, "Internal error"},
    {501, "Not built"},
    {503, "Not loaded, loading or draining"},
    {504, "Deadline passed"},
    {507, "Disk or memory budget"},
};

static const char *status_text(unsigned status) {
    for (size_t i = 0; i < sizeof(status_texts) / sizeof(status_texts[0]); i++)
        if (status_texts[i].status == status)
            return status_texts[i].text;
    return "";
}

/* {"type": media…: {"schema": {}}} of a list "a, b". */
static json_t *content_of(const char *types) {
    json_t *content = json_object();

    while (*types) {
        size_t n = strcspn(types, ",");
        char type[64];

        snprintf(type, sizeof(type), "%.*s", (int)n, types);
        json_object_set_new(content, type, json_pack("{s:{}}", "schema"));
        types += n;
        types += strspn(types, ", ");
    }
    return content;
}

static void add_response(json_t *responses, unsigned status, const struct route *row) {
    char key[8];

    snprintf(key, sizeof(key), "%u", status);
    if (status >= 400)
        json_object_set_new(responses, key,
            json_pack("{s:s, s:{s:{s:{s:s}}}}", "description", status_text(status), "content",
                "application/json", "schema", "$ref", "#/components/schemas/Error"));
    else if (status == 204 || status == 304)
        json_object_set_new(responses, key, json_pack("{s:s}", "description", status_text(status)));
    else
        json_object_set_new(responses, key,
            json_pack("{s:s, s:o}", "description", status_text(status), "content",
                content_of(row->produces ? row->produces : "application/json")));
}

static void add_statuses(json_t *responses, const char *list, const struct route *row) {
    char *end;

    for (unsigned long v; (v = strtoul(list, &end, 10)) != 0 && end != list; list = end)
        add_response(responses, (unsigned)v, row);
}

static json_t *responses_of(const struct route *row) {
    json_t *responses = json_object();

    add_statuses(responses, "400 403 500", row);
    if (row->scope != SCOPE_OPEN)
        add_statuses(responses, "401", row);
    if (row->body != BODY_NONE)
        add_statuses(responses, "413 415 429 503", row);
    add_statuses(responses, row->statuses, row);
    return responses;
}

static json_t *query_schema(const struct query_param *q) {
    json_t *values;

    switch (q->type) {
    case QUERY_STRING: return json_pack("{s:s}", "type", "string");
    case QUERY_NAME:
        return json_pack("{s:s, s:s}", "type", "string", "pattern", "^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$");
    case QUERY_BOOL: return json_pack("{s:s}", "type", "boolean");
    case QUERY_UINT:
        return json_pack("{s:s, s:I, s:I}", "type", "integer", "minimum", (json_int_t)q->min, "maximum",
            (json_int_t)q->max);
    case QUERY_REAL:
        return json_pack("{s:s, s:f, s:f}", "type", "number", "minimum", q->min, "maximum", q->max);
    case QUERY_ENUM: break;
    }
    values = json_array();
    for (const char *v = q->values; *v;) {
        size_t n = strcspn(v, "|");

        json_array_append_new(values, json_stringn(v, n));
        v += n + (v[n] == '|');
    }
    return json_pack("{s:s, s:o}", "type", "string", "enum", values);
}

static json_t *parameters_of(const struct route *row) {
    json_t *list = json_array();

    for (const char *p = strchr(row->path, '{'); p; p = strchr(p + 1, '{'))
        json_array_append_new(
            list, json_pack("{s:s%, s:s, s:b, s:{s:s}}", "name", p + 1, strcspn(p + 1, "*}"), "in", "path",
                      "required", 1, "schema", "type", "string"));
    for (size_t i = 0; i < ROUTE_MAX_QUERY && row->query[i].name; i++)
        json_array_append_new(list,
            json_pack("{s:s, s:s, s:b, s:s, s:o}", "name", row->query[i].name, "in", "query", "required", 0,
                "description", row->query[i].doc, "schema", query_schema(&row->query[i])));
    return list;
}

/* The path as OpenAPI writes it: "{name*}" becomes "{name}". */
static void plain_path(const char *path, char *ret, size_t size) {
    size_t n = 0;

    for (; *path && n + 1 < size; path++)
        if (*path != '*')
            ret[n++] = *path;
    ret[n] = 0;
}

static void add_row(const struct route *row, void *ctx) {
    json_t *paths = ctx, *item, *op;
    char path[160];

    plain_path(row->path, path, sizeof(path));
    item = json_object_get(paths, path);
    if (!item) {
        json_object_set_new(paths, path, json_object());
        item = json_object_get(paths, path);
    }
    op = json_pack("{s:s, s:s, s:o, s:o}", "operationId", row->id, "summary", row->summary, "parameters",
        parameters_of(row), "responses", responses_of(row));
    if (row->scope == SCOPE_OPEN)
        json_object_set_new(op, "security", json_array());
    if (row->body != BODY_NONE)
        json_object_set_new(op, "requestBody",
            json_pack("{s:o}", "content", content_of(row->consumes ? row->consumes : "application/json")));
    json_object_set_new(item, verbs[row->method], op);
}

static json_t *error_schema(void) {
    json_t *codes = json_array();

    for (size_t i = 0; i < error_table_size; i++)
        json_array_append_new(codes, json_string(error_table[i].code));
    return json_pack("{s:s, s:[s,s,s], s:{s:{s:s}, s:{s:s, s:o}, s:{s:s}, s:{s:s}}}", "type", "object",
        "required", "error", "code", "request_id", "properties", "error", "type", "string", "code", "type",
        "string", "enum", codes, "request_id", "type", "string", "details", "type", "object");
}

static json_t *make_document(void) {
    json_t *paths = json_object();

    route_each(add_row, paths);
    return json_pack("{s:s, s:{s:s, s:s, s:s}, s:o, s:{s:{s:o}, s:{s:{s:s, s:s}}}, s:[{s:[]}, {}]}",
        "openapi", "3.1.0", "info", "title", "bonsaid", "version", BONSAI_VERSION, "description",
        "Serves compressed CNNs. /v2 is the Open Inference Protocol.", "paths", paths, "components",
        "schemas", "Error", error_schema(), "securitySchemes", "token", "type", "http", "scheme", "bearer",
        "security", "token");
}

static int get_openapi(struct request *r, struct reply *p, struct error *err) {
    json_t *doc = make_document();
    char *text = doc ? json_dumps(doc, JSON_INDENT(1)) : NULL;
    char etag[ETAG_MAX];

    json_decref(doc);
    if (!text)
        return error_oom(err);
    etag_of_bytes(text, strlen(text), etag);
    return reply_tagged(r, p, "application/json", text, strlen(text), etag);
}

const struct route openapi_routes[] = {
    {.method = HTTP_GET,
        .path = "/openapi.json",
        .run = RUN_POOL,
        .handle = get_openapi,
        .id = "getOpenApi",
        .summary = "This interface as an OpenAPI 3.1 document.",
        .statuses = "200 304"},
    {0},
};
