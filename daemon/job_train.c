#include "daemon/job_train.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "daemon/job_request.h"
#include "daemon/models.h"
#include "daemon/verdict.h"

/* Members of the body that are no part of the specification. */
static const char *const own_keys[] = {"kind", "model", "dataset", "limits", "priority", NULL};

/* ---- the request ---- */

/* `from` of a body: a model, or model~variant. */
static int find_from(struct store *s, const json_t *body, json_t **ret, struct error *err) {
    const char *from;
    int r = job_request_string(body, "from", "", &from, err);

    *ret = NULL;
    if (r < 0 || !*from)
        return r;
    r = models_resolve(s, from, NULL, ret, err);
    return r < 0 ? error_prefix(err, r, "from") : 0;
}

static int check_parts(struct store *s, const json_t *body, const char *but_job, struct error *err) {
    const char *model;
    json_t *from = NULL;
    int r = job_request_string(body, "model", NULL, &model, err);

    if (r == 0)
        r = name_check_model(model, err);
    if (r == 0)
        r = job_request_dataset(s, body, true, err);
    if (r == 0)
        r = find_from(s, body, &from, err);
    json_decref(from);
    return r < 0 ? r : models_check_free(s, model, but_job, err);
}

int job_train_check(struct store *s, const json_t *body, json_t **ret, struct error *err) {
    int r = job_request_limits(body, err);

    if (r == 0)
        r = check_parts(s, body, NULL, err);
    if (r < 0)
        return r;
    *ret = job_request_doc(
        body, "train", json_string_value(json_object_get(body, "model")), json_null(), json_array());
    return *ret ? 0 : error_oom(err);
}

int job_train_check_again(struct store *s, const json_t *doc, struct error *err) {
    return check_parts(
        s, json_object_get(doc, "request"), json_string_value(json_object_get(doc, "id")), err);
}

static json_t *spec_of(const json_t *body) {
    json_t *spec = json_copy((json_t *)(uintptr_t)body);

    for (size_t i = 0; spec && own_keys[i]; i++)
        json_object_del(spec, own_keys[i]);
    return spec;
}

/* The file to go on with, and how it is fed. */
static int set_from(struct store *s, const json_t *from, json_t *request) {
    json_auto_t *model = store_get(s, STORE_MODEL, json_string_value(json_object_get(from, "model")));
    char path[4096];

    store_blob_path(s, json_string_value(json_object_get(from, "digest")), path, sizeof(path));
    return json_object_set_new(request, "input", json_string(path)) |
           json_object_set(request, "labels", json_object_get(model, "labels")) |
           json_object_set(request, "preprocess", json_object_get(model, "preprocess"));
}

int job_train_request(struct store *s, const json_t *doc, const char *kind, const char *output, json_t **ret,
    struct error *err) {
    const json_t *body = json_object_get(doc, "request");
    const char *dataset = json_string_value(json_object_get(body, "dataset"));
    json_t *from = NULL, *pack = NULL, *request;
    int r = find_from(s, body, &from, err);

    if (r == 0)
        r = job_request_pack(s, dataset, &pack, err);
    if (r < 0) {
        json_decref(from);
        return r;
    }
    request = json_pack("{s:s, s:o, s:s?, s:o, s:s, s:O?}", "kind", kind, "train", spec_of(body), "output",
        output, "pack", pack, "dataset", dataset, "limits", json_object_get(body, "limits"));
    r = request && (!from || set_from(s, from, request) == 0) ? 0 : error_oom(err);
    json_decref(from);
    if (r < 0)
        json_decref(request);
    else
        *ret = request;
    return r;
}

/* ---- the result ---- */

static json_t *result_json(const json_t *model, const json_t *variant, const json_t *done) {
    return json_pack("{s:O, s:O, s:O, s:O, s:O, s:O, s:O, s:O, s:O, s:O}", "model",
        json_object_get(model, "name"), "number", json_object_get(variant, "number"), "digest",
        json_object_get(variant, "digest"), "bytes_file", json_object_get(variant, "bytes_file"),
        "parameters", json_object_get(done, "parameters"), "macs", json_object_get(done, "macs"), "layers",
        json_object_get(done, "layers"), "evaluation", json_object_get(done, "evaluation"), "latency",
        json_object_get(done, "latency"), "training", json_object_get(done, "training"));
}

/* What training found, in the variant's document. */
static void set_found(json_t *variant, const json_t *job, const json_t *done, const json_t *model) {
    static const char *const found[] = {"evaluation", "latency", "layers"};

    for (size_t i = 0; i < sizeof(found) / sizeof(found[0]); i++)
        json_object_set(variant, found[i], json_object_get(done, found[i]));
    if (json_is_object(json_object_get(done, "layer_us")))
        json_object_set(variant, "layer_us", json_object_get(done, "layer_us"));
    json_object_set(variant, "job", json_object_get(job, "id"));
    json_object_set_new(variant, "report", json_pack("[O]", json_object_get(done, "training")));
    verdict_set(variant, NULL, NULL, model);
}

/* Store locked. */
static int publish_locked(struct jobs *j, const json_t *job, const char *path, json_t *summary,
    const json_t *done, struct error *err) {
    const char *name = json_string_value(json_object_get(job, "model")),
               *id = json_string_value(json_object_get(job, "id"));
    const json_t *evaluation = json_object_get(done, "evaluation");
    json_auto_t *model = NULL, *variant = NULL, *more = NULL;
    char digest[DIGEST_MAX], key[NAME_MAX_SIZE + 16], evaluation_key[3 * NAME_MAX_SIZE];
    struct store_change changes[3];
    uint64_t bytes;
    size_t n = 2;
    int r = models_check_free(j->store, name, id, err);

    if (r == 0) /* once more, under the lock: no document named the file until now */
        r = store_blob_keep_path(j->store, path, digest, &bytes, err);
    if (r == 0)
        r = models_documents(name, digest, bytes, summary, &model, &variant, err);
    if (r < 0)
        return r;
    set_found(variant, job, done, model);
    more = json_pack("{s:o}", "result", result_json(model, variant, done));
    variant_key(name, 1, key, sizeof(key));
    changes[0] = (struct store_change){STORE_MODEL, name, model};
    changes[1] = (struct store_change){STORE_VARIANT, key, variant};
    if (json_is_object(evaluation)) {
        snprintf(evaluation_key, sizeof(evaluation_key), "%s/%s/test", key,
            json_string_value(json_object_get(evaluation, "dataset")));
        changes[n++] =
            (struct store_change){STORE_EVALUATION, evaluation_key, (json_t *)(uintptr_t)evaluation};
    }
    unlink(path); /* nothing half-done stays once the job is seen to end */
    return job_set_state(j, id, JOB_SUCCEEDED, more, changes, n, err);
}

int job_finish_train(struct jobs *j, json_t *job, const char *path, json_t *done, struct error *err) {
    char digest[DIGEST_MAX] = "", key[NAME_MAX_SIZE + 16];
    json_auto_t *summary = NULL;
    uint64_t bytes;
    int r = job_keep_file(j, path, digest, &bytes, &summary, err);

    if (r == 0) {
        store_lock(j->store);
        r = publish_locked(j, job, path, summary, done, err);
        store_unlock(j->store);
    }
    store_blob_release(j->store, digest); /* no effect once the variant names it */
    if (r < 0)
        return r;
    variant_key(json_string_value(json_object_get(job, "model")), 1, key, sizeof(key));
    residency_load(j->residency, key, false, NULL, NULL, NULL); /* stays unloaded when it does not fit */
    return 0;
}
