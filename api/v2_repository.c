/* The model repository extension: index, load, unload. */
#include <errno.h>
#include <string.h>

#include "api/api.h"
#include "api/body.h"
#include "api/routes.h"
#include "api/target.h"
#include "base/cleanup.h"
#include "daemon/models.h"
#include "daemon/residency.h"

static json_t *index_row(const struct request *r, const struct target *t, bool only_ready) {
    static const char *const states[] = {[VARIANT_UNLOADED] = "UNAVAILABLE",
        [VARIANT_LOADING] = "LOADING",
        [VARIANT_READY] = "READY",
        [VARIANT_FAILED] = "UNAVAILABLE"};
    char reason[RESIDENCY_REASON_MAX];
    uint64_t bytes;
    enum variant_state state = residency_state(r->api->residency, t->key, &bytes, reason);

    if (only_ready && state != VARIANT_READY)
        return NULL;
    return json_pack("{s:s, s:s, s:s, s:s}", "name", t->model_name, "version", t->version, "state",
        states[state], "reason", state == VARIANT_UNLOADED ? "unloaded" : reason);
}

static int post_index(struct request *r, struct reply *p, struct error *err) {
    _cleanup_(json_decrefp) json_t *body = NULL;
    json_t *rows, *all, *v;
    size_t i;
    int rc = body_json(r, true, &body, err);

    if (rc)
        return rc;
    if (json_object_get(body, "ready") && !json_is_boolean(json_object_get(body, "ready")))
        return error_set(err, -EINVAL, "'ready' must be true or false");
    rows = json_array();
    all = store_list(r->api->store, STORE_VARIANT, NULL);
    json_array_foreach(all, i, v) {
        _cleanup_(target_done) struct target t = {0};
        struct error gone = {0};
        json_t *row = NULL;

        if (!target_of_variant(r, json_incref(v), &t, &gone))
            row = index_row(r, &t, json_is_true(json_object_get(body, "ready")));
        if (row)
            json_array_append_new(rows, row);
    }
    json_decref(all);
    return reply_json(p, 200, rows, err);
}

/* `file:` and `config` would be a second way to upload, and were the door of path traversals elsewhere. */
static int check_parameters(const struct request *r, struct error *err) {
    _cleanup_(json_decrefp) json_t *body = NULL;
    const json_t *params;
    void *it;
    int rc = body_json(r, true, &body, err);

    if (rc)
        return rc;
    params = json_object_get(body, "parameters");
    if (params && !json_is_object(params))
        return error_set(err, -EINVAL, "'parameters' must be an object");
    for (it = json_object_iter(json_object_get(body, "parameters")); it;
         it = json_object_iter_next(json_object_get(body, "parameters"), it)) {
        const char *key = json_object_iter_key(it);

        if (!strcmp(key, "config") || !strncmp(key, "file:", 5))
            return error_set(err, -EINVAL,
                "parameters.%.32s is not taken: upload with PUT /api/v1/models/{model}, then PATCH it", key);
    }
    return 0;
}

static int load_one(const struct request *r, const struct target *t, void *ctx, struct error *err) {
    struct reply *p = ctx;
    uint64_t needed = 0, available = 0;
    int rc = residency_load(r->api->residency, t->key, true, &needed, &available, err);

    if (rc && needed)
        return reply_details(p,
            json_pack(
                "{s:I, s:I}", "needed_bytes", (json_int_t)needed, "available_bytes", (json_int_t)available),
            rc);
    return rc;
}

static int unload_one(const struct request *r, const struct target *t, void *ctx, struct error *err) {
    (void)ctx;
    return residency_unload(r->api->residency, t->key, true, err);
}

/* A model stands for its routed variants, which is the one that target_find() gives. */
static int post_load(struct request *r, struct reply *p, struct error *err) {
    _cleanup_(target_done) struct target t = {0};
    int rc = check_parameters(r, err);

    if (!rc)
        rc = target_find(r, &t, err);
    if (!rc)
        rc = load_one(r, &t, p, err);
    if (rc)
        return rc;
    return reply_json(p, 200, json_pack("{s:s, s:b}", "name", request_param(r, "model"), "load", 1), err);
}

static int post_unload(struct request *r, struct reply *p, struct error *err) {
    int rc = check_parameters(r, err);

    if (!rc)
        rc = target_each(r, unload_one, NULL, err);
    if (rc)
        return rc;
    return reply_json(p, 200, json_pack("{s:s, s:b}", "name", request_param(r, "model"), "unload", 1), err);
}

const struct route v2_repository_routes[] = {
    {.method = HTTP_POST,
        .path = "/v2/repository/index",
        .scope = SCOPE_READ | SCOPE_INFER,
        .body = BODY_MEMORY,
        .limit = LIMIT_SMALL,
        .in_drain = true,
        .handle = post_index,
        .id = "getRepositoryIndex",
        .summary = "Every variant with its state.",
        .statuses = "200"},
    {.method = HTTP_POST,
        .path = "/v2/repository/models/{model}/load",
        .scope = SCOPE_COMPRESS,
        .body = BODY_MEMORY,
        .limit = LIMIT_SMALL,
        .run = RUN_POOL,
        .handle = post_load,
        .id = "loadModel",
        .summary = "Loads the model's routed variants, or model~variant.",
        .statuses = "200 404 507"},
    {.method = HTTP_POST,
        .path = "/v2/repository/models/{model}/unload",
        .scope = SCOPE_COMPRESS,
        .body = BODY_MEMORY,
        .limit = LIMIT_SMALL,
        .run = RUN_POOL,
        .handle = post_unload,
        .id = "unloadModel",
        .summary = "Unloads all variants of the model, or model~variant.",
        .statuses = "200 404"},
    {0},
};
