/* PUT /api/v1/models/{m}/variants/{v}: an ONNX file made elsewhere becomes a variant. Its inputs and outputs
 * must be the model's. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "api/routes.h"
#include "api/upload_path.h"
#include "api/view.h"
#include "daemon/jobs.h"
#include "daemon/models.h"
#include "daemon/residency.h"

static int check_name(const struct request *r, struct error *err) {
    const char *model = request_param(r, "model"), *name = request_param(r, "variant");
    json_auto_t *have = NULL, *doc = store_get(r->api->store, STORE_MODEL, model);
    int e = name_check_variant(name, err);

    if (e == 0 && !doc)
        e = error_set(err, -ENOENT, "there is no model '%.64s'", model);
    if (e == 0 && models_variant(r->api->store, model, name, &have, NULL) == 0)
        e = error_set(err, -EEXIST, "model '%.64s' has a variant '%.64s' already", model, name);
    return e;
}

static int check_import(struct request *r, struct reply *p, struct error *err) {
    int e = check_name(r, err);

    return e < 0 ? e : upload_check_disk(r, p, err);
}

static int check_ports(const json_t *model, const json_t *summary, struct error *err) {
    static const char *const ports[] = {"inputs", "outputs"};
    const json_t *have = json_object_get(model, "summary");

    for (size_t i = 0; i < 2; i++)
        if (!json_equal(json_object_get(have, ports[i]), json_object_get(summary, ports[i])))
            return error_code(err, -EBADMSG, "shape_mismatch",
                "its %s are not the model's: names, types and shapes must be equal", ports[i]);
    return 0;
}

static json_t *variant_doc(const struct request *r, int number, const char *digest, json_t *summary) {
    char now[TIME_TEXT_MAX];

    time_text(now);
    return json_pack(
        "{s:s, s:s, s:i, s:s, s:[], s:s, s:s, s:[], s:b, s:s, s:n, s:I, s:n, s:O, s:[], s:n, s:n, s:[], s:b, s:n}",
        "model", request_param(r, "model"), "name", request_param(r, "variant"), "number", number, "parent",
        "original", "steps", "digest", digest, "created", now, "aliases", "pinned", 0, "policy", "speed",
        "note", "bytes_file", (json_int_t)r->file.size, "bytes_file_compressed", "summary", summary, "layers",
        "evaluation", "latency", "verdicts", "is_unloaded", 0, "job");
}

/* File and document under one lock: nothing may take the blob away between the two. */
static int keep(struct request *r, const char *path, json_t *summary, json_t **ret, char *key, size_t size,
    struct error *err) {
    const char *model = request_param(r, "model");
    json_auto_t *raised = NULL;
    json_t *doc = NULL;
    char digest[DIGEST_MAX];
    int number = 0, e;

    digest_text(r->file.sha256, digest);
    store_lock(r->api->store);
    e = check_name(r, err);
    if (e == 0)
        e = store_blob_keep(r->api->store, r->file.fd, path, digest, err);
    if (e == 0)
        e = models_take_number(r->api->store, model, &number, &raised, err);
    if (e == 0)
        e = check_ports(raised, summary, err);
    if (e == 0 && !(doc = variant_doc(r, number, digest, summary)))
        e = error_oom(err);
    variant_key(model, number, key, size);
    if (e == 0)
        e = store_apply(r->api->store,
            (struct store_change[]){{STORE_MODEL, model, raised}, {STORE_VARIANT, key, doc}}, 2, err);
    if (e < 0)
        store_blob_release(r->api->store, digest); /* no effect when something names it */
    store_unlock(r->api->store);
    *ret = doc;
    return e;
}

static int put_variant(struct request *r, struct reply *p, struct error *err) {
    json_auto_t *summary = NULL, *doc = NULL;
    char path[4096], key[NAME_MAX_SIZE + 16];
    int e = upload_path(r, "onnx", path, sizeof(path), err);

    if (e < 0)
        return e;
    e = jobs_check_model(r->api->jobs, path, &summary, err);
    if (e == 0)
        e = keep(r, path, summary, &doc, key, sizeof(key), err);
    unlink(path);
    if (e < 0)
        return e;
    residency_load(
        r->api->residency, key, false, NULL, NULL, NULL); /* for want of memory it stays unloaded */
    reply_header(p, "Location", "/api/v1/models/%s/variants/%s", request_param(r, "model"),
        request_param(r, "variant"));
    return reply_json(p, 201, view_variant(r->api, doc, false), err);
}

const struct route variant_import_routes[] = {
    {.method = HTTP_PUT,
        .path = "/api/v1/models/{model}/variants/{variant}",
        .scope = SCOPE_COMPRESS,
        .body = BODY_DISK,
        .limit = LIMIT_MODEL,
        .run = RUN_POOL,
        .is_upload = true,
        .check = check_import,
        .handle = put_variant,
        .id = "putVariant",
        .summary = "Imports an ONNX file made elsewhere as a variant.",
        .statuses = "201 404 409 413 422 507",
        .consumes = "application/octet-stream"},
    {0},
};
