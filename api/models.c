/* Models: /api/v1/models. An upload is on disk and hashed when its handler runs; it is checked in a worker
 * before anything knows of it. */
#include <errno.h>
#include <fcntl.h>
#include <openssl/evp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "api/body.h"
#include "api/etag.h"
#include "api/routes.h"
#include "api/upload_path.h"
#include "api/view.h"
#include "base/cleanup.h"
#include "daemon/jobs.h"
#include "daemon/models.h"
#include "daemon/residency.h"
#include "daemon/uuid.h"
#include "image/preprocess.h"

static int find_model(const struct request *r, json_t **ret, struct error *err) {
    const char *name = request_param(r, "model");

    *ret = store_get(r->api->store, STORE_MODEL, name);
    return *ret ? 0 : error_set(err, -ENOENT, "there is no model '%.64s'", name);
}

/* Content-Digest: sha-256=:BASE64: (RFC 9530). 1: there, decoded to ret; 0: not there. */
static int wanted_digest(const struct request *r, char ret[static DIGEST_MAX], struct error *err) {
    const char *h = request_header(r, "Content-Digest"), *at = h ? strstr(h, "sha-256=:") : NULL;
    uint8_t raw[64];

    if (!h)
        return 0;
    if (!at || strlen(at) < 9 + 44 || at[9 + 44] != ':' ||
        EVP_DecodeBlock(raw, (const unsigned char *)at + 9, 44) != 33)
        return error_set(err, -EINVAL, "Content-Digest is not of the form sha-256=:BASE64:");
    digest_text(raw, ret);
    return 1;
}

static int check_put(struct request *r, struct reply *p, struct error *err) {
    const char *name = request_param(r, "model");
    bool replace = request_query_bool(r, "replace", false);
    json_auto_t *have = NULL;
    char digest[DIGEST_MAX];
    int e = name_check_model(name, err);

    if (e < 0)
        return e;
    e = upload_check_disk(r, p, err);
    if (e < 0)
        return e;
    e = wanted_digest(r, digest, err);
    have = store_get(r->api->store, STORE_MODEL, name);
    if (e <= 0 || !have)
        return e < 0 ? e : 0;
    if (!strcmp(json_string_value(json_object_get(have, "digest")), digest))
        return reply_json(p, 200, view_model(r->api, have, false), err);
    return replace ? 0
                   : error_set(err, -EEXIST,
                         "there is a model '%.64s' with other content; ?replace=true replaces it", name);
}

static void load_original(struct api *api, const char *name) {
    char key[NAME_MAX_SIZE + 16];

    variant_key(name, 1, key, sizeof(key));
    residency_unload(api->residency, key, false, NULL);           /* of a replaced one */
    residency_load(api->residency, key, false, NULL, NULL, NULL); /* for want of memory it stays unloaded */
}

static void forget_variants(struct api *api, const char *name, bool with_original) {
    json_auto_t *all = models_variants(api->store, name);

    for (size_t i = 0; i < json_array_size(all); i++) {
        int number = (int)json_integer_value(json_object_get(json_array_get(all, i), "number"));
        char key[NAME_MAX_SIZE + 16];

        variant_key(name, number, key, sizeof(key));
        if (number != 1 || with_original)
            residency_forget(api->residency, key);
    }
}

static int refuse_in_use(struct request *r, struct reply *p, const char *name, struct error *err) {
    json_t *users = models_users(r->api->store, name, true);

    if (json_array_size(users) == 0) {
        json_decref(users);
        return 0;
    }
    return reply_details(p, json_pack("{s:o}", "users", users),
        error_set(err, -EBUSY, "model '%.64s' is used; ?cascade=true removes its users with it", name));
}

/* The checked file becomes a model. */
static int keep_model(struct request *r, struct reply *p, const char *path, json_t *summary,
    const char *digest, struct error *err) {
    const char *name = request_param(r, "model");
    bool replace = request_query_bool(r, "replace", false), cascade = request_query_bool(r, "cascade", false),
         is_new = false;
    json_auto_t *have = store_get(r->api->store, STORE_MODEL, name), *doc = NULL;
    bool is_same = have && !strcmp(json_string_value(json_object_get(have, "digest")), digest);
    int e;

    if (have && replace && !is_same) {
        e = cascade ? 0 : refuse_in_use(r, p, name, err);
        if (e < 0)
            return e;
        jobs_cancel_model(r->api->jobs, name);
        forget_variants(r->api, name, true);
    }
    store_lock(r->api->store);
    e = store_blob_keep(r->api->store, r->file.fd, path, digest, err);
    if (e == 0 && have && replace && !is_same)
        e = models_replace(r->api->store, name, digest, r->file.size, summary, cascade, err);
    else if (e == 0)
        e = models_create(r->api->store, name, digest, r->file.size, summary, &is_new, err);
    store_unlock(r->api->store);
    if (e < 0) {
        store_blob_release(r->api->store, digest); /* no effect when a model names it */
        return e;
    }
    if (is_new || (replace && !is_same))
        load_original(r->api, name);
    doc = store_get(r->api->store, STORE_MODEL, name);
    reply_header(p, "Location", "/api/v1/models/%s", name);
    return reply_json(p, is_new ? 201 : 200, view_model(r->api, doc, false), err);
}

static int put_model(struct request *r, struct reply *p, struct error *err) {
    char digest[DIGEST_MAX], wanted[DIGEST_MAX], path[4096];
    json_auto_t *summary = NULL;
    int e = wanted_digest(r, wanted, err);

    if (e < 0)
        return e;
    digest_text(r->file.sha256, digest);
    if (e == 1 && strcmp(digest, wanted) != 0)
        return error_code(err, -EINVAL, "digest_mismatch", "the body's digest is %s, Content-Digest says %s",
            digest, wanted);
    e = upload_path(r, "onnx", path, sizeof(path), err);
    if (e < 0)
        return e;
    e = jobs_check_model(r->api->jobs, path, &summary, err);
    if (e == 0)
        e = keep_model(r, p, path, summary, digest, err);
    unlink(path);
    return e;
}

static int post_models(struct request *r, struct reply *p, struct error *err) {
    json_t *summary = NULL;
    char path[4096];
    int e;

    if (!request_query_bool(r, "dry_run", false))
        return error_set(
            err, -EINVAL, "only ?dry_run=true is possible here; PUT /api/v1/models/NAME keeps a model");
    e = upload_path(r, "onnx", path, sizeof(path), err);
    if (e < 0)
        return e;
    e = jobs_check_model(r->api->jobs, path, &summary, err);
    unlink(path);
    return e < 0 ? e : reply_json(p, 200, summary, err);
}

static int list_models(struct request *r, struct reply *p, struct error *err) {
    json_auto_t *all = view_newest_first(store_list(r->api->store, STORE_MODEL, NULL));
    json_t *views = json_array();

    for (size_t i = 0; i < json_array_size(all); i++)
        json_array_append_new(views, view_model(r->api, json_array_get(all, i), true));
    return reply_json(p, 200,
        view_page(views, "name", request_query_uint(r, "limit", 100), request_query(r, "cursor")), err);
}

static int get_model(struct request *r, struct reply *p, struct error *err) {
    json_auto_t *doc = NULL;
    char etag[ETAG_MAX];
    int e = find_model(r, &doc, err);

    if (e < 0)
        return e;
    etag_of(doc, view_model_keys, etag);
    reply_header(p, "ETag", "\"%s\"", etag);
    return reply_json(p, 200, view_model(r->api, doc, false), err);
}

static int delete_model(struct request *r, struct reply *p, struct error *err) {
    const char *name = request_param(r, "model");
    bool cascade = request_query_bool(r, "cascade", false);
    json_auto_t *doc = NULL;
    int e = find_model(r, &doc, err);

    if (e == 0 && !cascade)
        e = refuse_in_use(r, p, name, err);
    if (e < 0)
        return e;
    if (cascade)
        jobs_cancel_model(r->api->jobs, name);
    forget_variants(r->api, name, true);
    e = models_delete(r->api->store, name, cascade, NULL, err);
    return e < 0 ? e : reply_empty(p, 204);
}

/* Number of classes of the first output of shape [N,K] or [N,K,1,1]; 0: no classifier. */
static json_int_t class_count(const json_t *model) {
    json_t *outputs = json_object_get(json_object_get(model, "summary"), "outputs"), *o;
    size_t i;

    json_array_foreach(outputs, i, o) {
        json_t *s = json_object_get(o, "shape");
        size_t rank = json_array_size(s);
        json_int_t k = json_integer_value(json_array_get(s, 1));
        bool is_flat = rank == 2 || (rank == 4 && json_integer_value(json_array_get(s, 2)) == 1 &&
                                        json_integer_value(json_array_get(s, 3)) == 1);

        if (is_flat && k > 0)
            return k;
    }
    return 0;
}

static int check_labels(const json_t *model, const json_t *labels, struct error *err) {
    json_int_t k = class_count(model);

    if (json_is_null(labels))
        return 0;
    if (!json_is_array(labels))
        return error_set(err, -EINVAL, "labels is not a list of names");
    for (size_t i = 0; i < json_array_size(labels); i++)
        if (!json_is_string(json_array_get(labels, i)))
            return error_set(err, -EINVAL, "labels[%zu] is not a string", i);
    if (json_array_size(labels) != 0 && (json_int_t)json_array_size(labels) != k)
        return error_code(err, -EBADMSG, k ? "classes_do_not_match" : "not_a_classifier",
            "%zu labels for a model with %lld classes", json_array_size(labels), (long long)k);
    return 0;
}

static int check_limits(const json_t *limits, struct error *err) {
    static const char *const keys[] = {"max_batch", "queue", "timeout_ms"};
    static const json_int_t most[] = {4096, 100000, 3600000};
    int e = body_check_keys(limits, "max_batch queue timeout_ms", "limits", err);

    for (size_t i = 0; e == 0 && i < 3; i++) {
        const json_t *v = json_object_get(limits, keys[i]);

        if (v && !json_is_null(v) &&
            (!json_is_integer(v) || json_integer_value(v) < 1 || json_integer_value(v) > most[i]))
            e = error_set(
                err, -EINVAL, "limits.%s is not a whole number from 1 to %lld", keys[i], (long long)most[i]);
    }
    return e;
}

/* Does it fit the first input? */
static int check_preprocess(const json_t *model, const json_t *preprocess, struct error *err) {
    const json_t *inputs = json_object_get(json_object_get(model, "summary"), "inputs");
    const json_t *shape = json_object_get(json_array_get(inputs, 0), "shape");
    int64_t dim[SHAPE_MAX_RANK];
    int rank = (int)json_array_size(shape);
    struct preprocess p;

    if (json_array_size(inputs) != 1)
        return error_code(err, -EBADMSG, "shape_mismatch", "a model with %zu inputs takes no pictures",
            json_array_size(inputs));
    for (int i = 0; i < rank && i < SHAPE_MAX_RANK; i++)
        dim[i] = json_integer_value(json_array_get(shape, (size_t)i));
    return preprocess_from_json(preprocess, dim, rank < SHAPE_MAX_RANK ? rank : SHAPE_MAX_RANK, &p, err);
}

static int check_patch(const json_t *model, const json_t *patch, struct error *err) {
    const json_t *v;
    int e = body_check_keys(patch, "description labels preprocess limits pinned", "", err);

    if (e == 0 && (v = json_object_get(patch, "description")) && !json_is_string(v) && !json_is_null(v))
        e = error_set(err, -EINVAL, "description is not a string");
    if (e == 0 && (v = json_object_get(patch, "pinned")) && !json_is_boolean(v))
        e = error_set(err, -EINVAL, "pinned is not true or false");
    if (e == 0 && (v = json_object_get(patch, "labels")))
        e = check_labels(model, v, err);
    if (e == 0 && (v = json_object_get(patch, "limits")) && !json_is_null(v))
        e = check_limits(v, err);
    if (e == 0 && (v = json_object_get(patch, "preprocess")) && !json_is_null(v))
        e = check_preprocess(model, v, err);
    return e;
}

/* JSON Merge Patch (RFC 7396): objects are merged, null removes; limits fall back to their defaults. */
static json_t *merge(const json_t *model, const json_t *patch) {
    json_t *copy = json_deep_copy(model), *any = (json_t *)(uintptr_t)patch, *v;
    const char *key;

    json_object_foreach(any, key, v) {
        json_t *old = json_object_get(copy, key);

        if (json_is_object(v) && json_is_object(old)) {
            const char *k;
            json_t *m;

            json_object_foreach(v, k, m) json_object_set(old, k, m);
        } else {
            json_object_set(copy, key, v);
        }
    }
    return copy;
}

static int patch_model(struct request *r, struct reply *p, struct error *err) {
    json_auto_t *patch = NULL, *doc = NULL, *merged = NULL;
    const char *name = request_param(r, "model");
    char etag[ETAG_MAX];
    int e = body_json(r, false, &patch, err);

    if (e < 0)
        return e;
    store_lock(r->api->store);
    e = find_model(r, &doc, err);
    if (e == 0) {
        etag_of(doc, view_model_keys, etag);
        e = reply_check_if_match(r, etag, err);
    }
    if (e == 0)
        e = check_patch(doc, patch, err);
    if (e == 0) {
        merged = merge(doc, patch);
        e = store_apply(r->api->store, &(struct store_change){STORE_MODEL, name, merged}, 1, err);
    }
    store_unlock(r->api->store);
    if (e < 0)
        return e;
    etag_of(merged, view_model_keys, etag);
    reply_header(p, "ETag", "\"%s\"", etag);
    return reply_json(p, 200, view_model(r->api, merged, false), err);
}

const struct route models_routes[] = {
    {.method = HTTP_GET,
        .path = "/api/v1/models",
        .scope = SCOPE_READ,
        .run = RUN_POOL,
        .handle = list_models,
        .query = {{"limit", QUERY_UINT, 1, 1000, NULL, "How many (100)."},
            {"cursor", QUERY_STRING, 0, 0, NULL, "Where to go on."}},
        .id = "listModels",
        .summary = "All models, newest first.",
        .statuses = "200"},
    {.method = HTTP_POST,
        .path = "/api/v1/models",
        .scope = SCOPE_UPLOAD,
        .body = BODY_DISK,
        .limit = LIMIT_MODEL,
        .run = RUN_POOL,
        .is_upload = true,
        .handle = post_models,
        .query = {{"dry_run", QUERY_BOOL, 0, 0, NULL,
            "Must be true: the check of an upload, nothing is kept."}},
        .id = "checkModel",
        .summary = "Checks an ONNX file and prints its summary; nothing is kept.",
        .statuses = "200 413 422 507",
        .consumes = "application/octet-stream"},
    {.method = HTTP_PUT,
        .path = "/api/v1/models/{model}",
        .scope = SCOPE_UPLOAD,
        .body = BODY_DISK,
        .limit = LIMIT_MODEL,
        .run = RUN_POOL,
        .is_upload = true,
        .check = check_put,
        .handle = put_model,
        .query = {{"replace", QUERY_BOOL, 0, 0, NULL, "Other content takes the place of what is there."},
            {"cascade", QUERY_BOOL, 0, 0, NULL, "With replace: other variants and unfinished jobs go too."}},
        .id = "putModel",
        .summary = "Uploads a model: the body is the ONNX file.",
        .statuses = "200 201 409 413 422 507",
        .consumes = "application/octet-stream"},
    {.method = HTTP_GET,
        .path = "/api/v1/models/{model}",
        .scope = SCOPE_READ,
        .run = RUN_POOL,
        .handle = get_model,
        .id = "getModel",
        .summary = "A model with its variants and layers.",
        .statuses = "200 404"},
    {.method = HTTP_PATCH,
        .path = "/api/v1/models/{model}",
        .scope = SCOPE_UPLOAD,
        .body = BODY_MEMORY,
        .limit = LIMIT_SMALL,
        .run = RUN_POOL,
        .handle = patch_model,
        .id = "patchModel",
        .summary = "Sets description, labels, preprocess, limits, pinned (JSON Merge Patch).",
        .statuses = "200 404 412 422"},
    {.method = HTTP_DELETE,
        .path = "/api/v1/models/{model}",
        .scope = SCOPE_UPLOAD,
        .run = RUN_POOL,
        .handle = delete_model,
        .query = {{"cascade", QUERY_BOOL, 0, 0, NULL, "Variants and unfinished jobs go too."}},
        .id = "deleteModel",
        .summary = "Removes a model.",
        .statuses = "204 404 409"},
    {0},
};
