/* The Open Inference Protocol: server and model metadata, readiness, configuration. Inference is v2_infer.c.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "api/api.h"
#include "api/routes.h"
#include "api/target.h"
#include "base/cleanup.h"
#include "daemon/models.h"
#include "daemon/residency.h"

#define PLATFORM "onnx_onnxv1"

static int get_server(struct request *r, struct reply *p, struct error *err) {
    (void)r;
    return reply_json(p, 200,
        json_pack("{s:s, s:s, s:[s,s,s,s,s,s,s]}", "name", "bonsaid", "version", BONSAI_VERSION, "extensions",
            "binary_tensor_data", "classification", "model_configuration", "model_repository", "parameters",
            "schedule_policy", "statistics"),
        err);
}

static int get_models(struct request *r, struct reply *p, struct error *err) {
    json_t *docs = store_list(r->api->store, STORE_MODEL, NULL), *names = json_array(), *doc;
    size_t i;

    json_array_foreach(docs, i, doc) json_array_append(names, json_object_get(doc, "name"));
    json_decref(docs);
    return reply_json(p, 200, json_pack("{s:o}", "models", names), err);
}

/* Names, types and shapes as the upload's check wrote them: no variant needs to be in memory. */
static json_t *ports_of(const struct target *t, const char *which) {
    const json_t *from = json_object_get(json_object_get(t->variant, "summary"), which);
    json_t *list = json_array(), *port;
    size_t i;

    json_array_foreach(from, i, port) json_array_append_new(
        list, json_pack("{s:O, s:O, s:O}", "name", json_object_get(port, "name"), "datatype",
                  json_object_get(port, "datatype"), "shape", json_object_get(port, "shape")));
    return list;
}

static json_t *versions_of(const struct request *r, const struct target *t) {
    json_t *list = json_array(), *all, *v;
    size_t i;

    if (t->is_pinned) {
        json_array_append_new(list, json_string(t->version));
        return list;
    }
    all = models_variants(r->api->store, t->model_name);
    json_array_foreach(all, i, v) json_array_append_new(
        list, json_sprintf("%d", (int)json_integer_value(json_object_get(v, "number"))));
    json_decref(all);
    return list;
}

static int get_model(struct request *r, struct reply *p, struct error *err) {
    _cleanup_(target_done) struct target t = {0};
    int rc = target_find(r, &t, err);

    if (rc)
        return rc;
    return reply_json(p, 200,
        json_pack("{s:s, s:o, s:s, s:o, s:o}", "name", request_param(r, "model"), "versions",
            versions_of(r, &t), "platform", PLATFORM, "inputs", ports_of(&t, "inputs"), "outputs",
            ports_of(&t, "outputs")),
        err);
}

static int get_model_ready(struct request *r, struct reply *p, struct error *err) {
    _cleanup_(target_done) struct target t = {0};
    char reason[RESIDENCY_REASON_MAX];
    uint64_t bytes;
    bool ready;
    int rc = target_find(r, &t, err);

    if (rc)
        return rc;
    ready = residency_state(r->api->residency, t.key, &bytes, reason) == VARIANT_READY;
    if (!ready)
        reply_header(p, "Retry-After", "1");
    return reply_json(p, ready ? 200 : 503,
        json_pack("{s:s, s:b}", "name", request_param(r, "model"), "ready", ready), err);
}

/* As ModelConfig has them: TYPE_FP32, and dims without the batch where there is one. */
static json_t *config_ports(const struct target *t, const char *which, bool is_batched, bool is_input) {
    const json_t *from = json_object_get(json_object_get(t->variant, "summary"), which);
    json_t *list = json_array(), *port;
    size_t i;

    json_array_foreach(from, i, port) {
        const char *type = json_string_value(json_object_get(port, "datatype"));
        json_t *dims = json_copy(json_object_get(port, "shape"));
        json_t *item;
        char text[32];

        if (is_batched && json_array_size(dims))
            json_array_remove(dims, 0);
        snprintf(text, sizeof(text), "TYPE_%s", type ? type : "INVALID");
        item = json_pack(
            "{s:O, s:s, s:o}", "name", json_object_get(port, "name"), "data_type", text, "dims", dims);
        if (is_input)
            json_object_update_new(item, json_pack("{s:b, s:b}", "optional", 0, "is_shape_tensor", 0));
        json_array_append_new(list, item);
    }
    return list;
}

static int get_model_config(struct request *r, struct reply *p, struct error *err) {
    _cleanup_(target_done) struct target t = {0};
    bool is_batched;
    json_t *doc;
    int rc = target_find(r, &t, err);

    if (rc)
        return rc;
    is_batched = target_is_batched(&t);
    doc = json_pack("{s:s, s:s, s:s, s:i, s:o, s:o, s:{s:b}, s:{s:b}, s:[{s:s, s:i}]}", "name",
        request_param(r, "model"), "platform", PLATFORM, "backend", "bonsai", "max_batch_size",
        is_batched ? (int)target_limit(r->api, t.model, "max_batch") : 0, "input",
        config_ports(&t, "inputs", is_batched, true), "output",
        config_ports(&t, "outputs", is_batched, false), "model_transaction_policy", "decoupled", 0,
        "response_cache", "enable", 0, "instance_group", "kind", "KIND_CPU", "count", 1);
    if (is_batched) /* its presence says that requests are batched together */
        json_object_set_new(doc, "dynamic_batching", json_object());
    return reply_json(p, 200, doc, err);
}

const struct route v2_routes[] = {
    {.method = HTTP_GET,
        .path = "/v2",
        .scope = SCOPE_READ | SCOPE_INFER,
        .handle = get_server,
        .id = "getServer",
        .summary = "Name, version and extensions of the server.",
        .statuses = "200"},
    {.method = HTTP_GET,
        .path = "/v2/models",
        .scope = SCOPE_READ | SCOPE_INFER,
        .handle = get_models,
        .id = "getModelNames",
        .summary = "Names of the models.",
        .statuses = "200"},
    {.method = HTTP_GET,
        .path = "/v2/models/{model}",
        .scope = SCOPE_READ | SCOPE_INFER,
        .handle = get_model,
        .id = "getModelMetadata",
        .summary = "Versions, inputs and outputs of a model, or of one variant as model~variant.",
        .statuses = "200 404"},
    {.method = HTTP_GET,
        .path = "/v2/models/{model}/versions/{version}",
        .scope = SCOPE_READ | SCOPE_INFER,
        .handle = get_model,
        .id = "getModelVersionMetadata",
        .summary = "Inputs and outputs of one variant, by its number.",
        .statuses = "200 404"},
    {.method = HTTP_GET,
        .path = "/v2/models/{model}/ready",
        .scope = SCOPE_READ | SCOPE_INFER,
        .handle = get_model_ready,
        .id = "getModelReady",
        .summary = "Whether the model's routed variant is in memory.",
        .statuses = "200 404 503"},
    {.method = HTTP_GET,
        .path = "/v2/models/{model}/versions/{version}/ready",
        .scope = SCOPE_READ | SCOPE_INFER,
        .handle = get_model_ready,
        .id = "getModelVersionReady",
        .summary = "Whether this variant is in memory.",
        .statuses = "200 404 503"},
    {.method = HTTP_GET,
        .path = "/v2/models/{model}/config",
        .scope = SCOPE_READ | SCOPE_INFER,
        .handle = get_model_config,
        .id = "getModelConfig",
        .summary = "The model's configuration as the protocol's extension has it.",
        .statuses = "200 404"},
    {.method = HTTP_GET,
        .path = "/v2/models/{model}/versions/{version}/config",
        .scope = SCOPE_READ | SCOPE_INFER,
        .handle = get_model_config,
        .id = "getModelVersionConfig",
        .summary = "A variant's configuration as the protocol's extension has it.",
        .statuses = "200 404"},
    {0},
};
