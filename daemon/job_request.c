#include "daemon/job_request.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "daemon/job_sensitivity.h"
#include "daemon/job_train.h"
#include "daemon/models.h"
#include "daemon/verdict.h"

static const char *const compress_keys[] = {"kind", "model", "from", "variant", "dataset", "steps", "recipe",
    "evaluate", "limits", "require", "priority", "seed", NULL};
static const char *const evaluate_keys[] = {
    "kind", "model", "variants", "dataset", "split", "priority", "seed", NULL};
static const char *const limit_keys[] = {"seconds", "memory_bytes", NULL};
static const char *const require_keys[] = {"max_accuracy_drop", "min_speedup", "max_bytes", "discard", NULL};

static int check_keys(const json_t *j, const char *path, const char *const *known, struct error *err) {
    json_t *any = (json_t *)(uintptr_t)j, *value; /* the iterator wants it mutable and changes nothing */
    const char *key;

    if (!json_is_object(j))
        return error_set(err, -EINVAL, "%s is not an object", *path ? path : "the body");
    json_object_foreach(any, key, value) {
        const char *const *k = known;

        while (*k && strcmp(*k, key))
            k++;
        if (!*k)
            return error_code(
                err, -EINVAL, "unknown_field", "%s%s%.64s is not known here", path, *path ? "." : "", key);
    }
    return 0;
}

int job_request_string(
    const json_t *body, const char *key, const char *dflt, const char **ret, struct error *err) {
    const json_t *v = json_object_get(body, key);

    if (v && !json_is_string(v) && !(dflt && json_is_null(v)))
        return error_set(err, -EINVAL, "%s is not a string", key);
    *ret = v && json_is_string(v) ? json_string_value(v) : dflt;
    return *ret || dflt ? 0 : error_set(err, -EINVAL, "%s is missing", key);
}

static int check_number(
    const json_t *o, const char *path, const char *key, double min, double max, struct error *err) {
    const json_t *v = json_object_get(o, key);

    if (!v || json_is_null(v) ||
        (json_is_number(v) && json_number_value(v) >= min && json_number_value(v) <= max))
        return 0;
    return error_set(
        err, -EINVAL, "%s%s%s is not a number from %g to %g", path, *path ? "." : "", key, min, max);
}

int job_request_limits(const json_t *body, struct error *err) {
    const json_t *limits = json_object_get(body, "limits");
    int r = limits && !json_is_null(limits) ? check_keys(limits, "limits", limit_keys, err) : 0;

    if (r == 0)
        r = check_number(limits, "limits", "seconds", 1, 1e7, err);
    if (r == 0)
        r = check_number(limits, "limits", "memory_bytes", 1e6, 1e13, err);
    return r < 0 ? r : check_number(body, "", "priority", -1000, 1000, err);
}

static int check_options(const json_t *body, struct error *err) {
    const json_t *require = json_object_get(body, "require"), *evaluate = json_object_get(body, "evaluate");
    int r = job_request_limits(body, err);

    if (r == 0 && require && !json_is_null(require))
        r = check_keys(require, "require", require_keys, err);
    if (r == 0)
        r = check_number(require, "require", "max_accuracy_drop", 0, 1, err);
    if (r == 0)
        r = check_number(require, "require", "min_speedup", 0, 1e4, err);
    if (r == 0)
        r = check_number(require, "require", "max_bytes", 0, 1e13, err);
    if (r == 0)
        r = check_number(body, "", "seed", 0, 9e15, err);
    if (r == 0 && evaluate && !json_is_boolean(evaluate))
        r = error_set(err, -EINVAL, "evaluate is not true or false");
    return r;
}

int job_request_dataset(struct store *s, const json_t *body, bool is_needed, struct error *err) {
    const char *name;
    json_t *doc;
    int r = job_request_string(body, "dataset", is_needed ? NULL : "", &name, err);

    if (r < 0 || !*name)
        return r;
    doc = store_get(s, STORE_DATASET, name);
    json_decref(doc);
    return doc ? 0 : error_set(err, -ENOENT, "dataset: there is no data set '%.64s'", name);
}

/* Neither a variant nor a reservation of an unfinished job has the name. */
static int check_variant_free(
    struct store *s, const char *model, const char *name, const char *but_job, struct error *err) {
    json_t *have = NULL, *jobs, *doc;
    bool is_taken = models_variant(s, model, name, &have, NULL) == 0;
    size_t i;

    json_decref(have);
    jobs = store_list(s, STORE_JOB, NULL);
    json_array_foreach(jobs, i, doc) {
        const char *m = json_string_value(json_object_get(doc, "model")),
                   *v = json_string_value(json_object_get(doc, "variant"));
        const char *state = json_string_value(json_object_get(doc, "state")),
                   *id = json_string_value(json_object_get(doc, "id"));

        if (m && v && !strcmp(m, model) && !strcmp(v, name) && (!but_job || strcmp(but_job, id)) &&
            strcmp(state, "succeeded") && strcmp(state, "failed") && strcmp(state, "cancelled"))
            is_taken = true;
    }
    json_decref(jobs);
    return is_taken ? error_code(err, -EEXIST, "name_taken",
                          "model '%s' has a variant '%s', or a job that will make it", model, name)
                    : 0;
}

static json_t *steps_of(const json_t *body, struct error *err) {
    json_t *steps = json_object_get(body, "steps"), *recipe = json_object_get(body, "recipe");

    if (!steps == !recipe) {
        error_set(err, -EINVAL, "exactly one of steps and recipe is needed");
        return NULL;
    }
    if (recipe && !json_is_string(recipe))
        error_set(err, -EINVAL, "recipe is not a string");
    else if (steps && !json_is_array(steps))
        error_set(err, -EINVAL, "steps is not a list");
    else
        return steps ? json_incref(steps) : json_array();
    return NULL;
}

json_t *job_request_doc(
    const json_t *body, const char *kind, const char *model, json_t *variant, json_t *steps) {
    char now[TIME_TEXT_MAX];

    time_text(now);
    return json_pack(
        "{s:n, s:s, s:s, s:s, s:o, s:o, s:{s:i, s:i, s:f, s:s, s:n}, s:[], s:s, s:n, s:n, s:i, s:n, s:n, s:O}",
        "id", "kind", kind, "state", "queued", "model", model, "variant", variant, "steps", steps, "progress",
        "step", 0, "of", (int)json_array_size(steps), "fraction", 0.0, "message", "", "eta_seconds",
        "metrics", "created", now, "started", "finished", "attempts", 0, "error", "result", "request", body);
}

static int check_compress(struct store *s, const json_t *body, json_t **ret, struct error *err) {
    const char *model, *from, *variant;
    json_t *parent = NULL, *steps;
    int r = check_keys(body, "", compress_keys, err);

    if (r == 0)
        r = check_options(body, err);
    if (r == 0)
        r = job_request_string(body, "model", NULL, &model, err);
    if (r == 0)
        r = job_request_string(body, "from", "original", &from, err);
    if (r == 0)
        r = job_request_string(body, "variant", NULL, &variant, err);
    if (r == 0)
        r = name_check_variant(variant, err);
    if (r < 0 || !(steps = steps_of(body, err)))
        return r < 0 ? r : -EINVAL;
    r = models_variant(s, model, from, &parent, err);
    json_decref(parent);
    if (r == 0)
        r = job_request_dataset(s, body, false, err);
    if (r == 0)
        r = check_variant_free(s, model, variant, NULL, err);
    if (r < 0) {
        json_decref(steps);
        return r;
    }
    *ret = job_request_doc(body, "compress", model, json_string(variant), steps);
    return *ret ? 0 : error_oom(err);
}

static int check_evaluate(struct store *s, const json_t *body, json_t **ret, struct error *err) {
    const json_t *variants = json_object_get(body, "variants");
    const char *model, *split, *dataset;
    json_t *doc;
    int r = check_keys(body, "", evaluate_keys, err);

    if (r == 0)
        r = job_request_string(body, "model", NULL, &model, err);
    if (r == 0)
        r = job_request_string(body, "split", "test", &split, err);
    if (r == 0)
        r = job_request_dataset(s, body, true, err);
    if (r == 0 && variants && !json_is_array(variants) && !json_is_null(variants))
        r = error_set(err, -EINVAL, "variants is not a list of names");
    if (r < 0)
        return r;
    doc = store_get(s, STORE_MODEL, model);
    json_decref(doc);
    if (!doc)
        return error_set(err, -ENOENT, "there is no model '%.64s'", model);
    dataset = json_string_value(json_object_get(body, "dataset"));
    if (!verdict_has_labels(s, dataset, split))
        return error_code(err, -EBADMSG, "bad_dataset",
            "dataset: '%.64s' has no pictures of two classes or more in its split '%.64s'", dataset, split);
    for (size_t i = 0; i < json_array_size(variants); i++) {
        const char *name = json_string_value(json_array_get(variants, i));
        json_t *v = NULL;

        if (!name)
            return error_set(err, -EINVAL, "variants[%zu] is not a string", i);
        r = models_variant(s, model, name, &v, err);
        json_decref(v);
        if (r < 0)
            return r;
    }
    *ret = job_request_doc(body, "evaluate", model, json_null(), json_array());
    return *ret ? 0 : error_oom(err);
}

static const struct {
    const char *kind;
    int (*check)(struct store *s, const json_t *body, json_t **ret,
        struct error *err); /* NULL: of the contract, not built */
} kinds[] = {
    {"auto", NULL},
    {"compress", check_compress},
    {"evaluate", check_evaluate},
    {"sensitivity", job_sensitivity_check},
    {"train", job_train_check},
};

bool job_is_training(const json_t *doc) {
    return !strcmp(json_string_value(json_object_get(doc, "kind")), "train");
}

int job_request_check(struct store *s, const json_t *body, json_t **ret, struct error *err) {
    const char *kind = json_string_value(json_object_get(body, "kind"));

    if (!json_is_object(body))
        return error_set(err, -EINVAL, "the body is not an object");
    for (size_t i = 0; kind && i < sizeof(kinds) / sizeof(kinds[0]); i++)
        if (!strcmp(kinds[i].kind, kind))
            return kinds[i].check ? kinds[i].check(s, body, ret, err)
                                  : error_set(err, -EOPNOTSUPP,
                                        "jobs of kind '%s' are not built into this version", kind);
    return error_set(err, -EINVAL, "kind is not one of compress, evaluate, train, sensitivity, auto");
}

int job_request_check_again(struct store *s, const json_t *doc, struct error *err) {
    const char *model = json_string_value(json_object_get(doc, "model"));
    const char *variant = json_string_value(json_object_get(doc, "variant"));
    const char *from = json_string_value(json_object_get(json_object_get(doc, "request"), "from"));
    json_t *v = NULL;
    int r;

    if (job_is_training(doc))
        return job_train_check_again(s, doc, err);
    r = models_variant(s, model, from ? from : "original", &v, err);
    json_decref(v);
    if (r == 0)
        r = job_request_dataset(s, json_object_get(doc, "request"), false, err);
    if (r == 0 && variant)
        r = check_variant_free(s, model, variant, json_string_value(json_object_get(doc, "id")), err);
    return r;
}

/* Path of the data set's pack, or null. */
int job_request_pack(struct store *s, const char *dataset, json_t **ret, struct error *err) {
    json_t *doc = dataset && *dataset ? store_get(s, STORE_DATASET, dataset) : NULL;
    const char *digest = json_string_value(json_object_get(doc, "pack"));
    char path[4096];

    if (dataset && *dataset && !digest) {
        json_decref(doc);
        return error_set(err, -ENOENT, "there is no data set '%.64s'", dataset);
    }
    if (digest)
        store_blob_path(s, digest, path, sizeof(path));
    *ret = digest ? json_string(path) : json_null();
    json_decref(doc);
    return 0;
}

static void set_model_members(const json_t *model, json_t *request) {
    json_object_set(request, "labels", json_object_get(model, "labels"));
    json_object_set(request, "preprocess", json_object_get(model, "preprocess"));
}

int job_request_for_worker(struct store *s, const json_t *doc, const char *kind, const char *output,
    json_t **ret, struct error *err) {
    const json_t *body = json_object_get(doc, "request"), *seed = json_object_get(body, "seed");
    const char *name = json_string_value(json_object_get(doc, "model"));
    const char *from = json_string_value(json_object_get(body, "from"));
    json_t *parent = NULL, *pack = NULL, *model = NULL, *request;
    char path[4096];
    int r;

    if (job_is_training(doc))
        return job_train_request(s, doc, kind, output, ret, err);
    if (job_is_sensitivity(doc))
        return job_sensitivity_request(s, doc, kind, ret, err);
    r = models_variant(s, name, from ? from : "original", &parent, err);
    if (r == 0)
        r = job_request_pack(s, json_string_value(json_object_get(body, "dataset")), &pack, err);
    if (r < 0) {
        json_decref(parent);
        return r;
    }
    model = store_get(s, STORE_MODEL, name);
    store_blob_path(s, json_string_value(json_object_get(parent, "digest")), path, sizeof(path));
    request = json_pack("{s:s, s:s, s:s?, s:o, s:O, s:I, s:O}", "kind", kind, "input", path, "output", output,
        "pack", pack, "steps", json_object_get(doc, "steps"), "seed", json_integer_value(seed),
        "parent_digest", json_object_get(parent, "digest"));
    if (json_object_get(body, "recipe"))
        json_object_set(request, "recipe", json_object_get(body, "recipe"));
    if (json_object_get(body, "limits"))
        json_object_set(request, "limits", json_object_get(body, "limits"));
    set_model_members(model, request);
    json_decref(model);
    json_decref(parent);
    *ret = request;
    return request ? 0 : error_oom(err);
}

int job_request_evaluate(struct store *s, const char *model, const json_t *variants, const char *dataset,
    const char *split, json_t **ret, struct error *err) {
    json_t *list = json_array(), *pack = NULL, *m = store_get(s, STORE_MODEL, model), *request;
    int r = job_request_pack(s, dataset, &pack, err);

    if (r < 0 || !m) {
        json_decref(list);
        json_decref(m);
        return r < 0 ? r : error_set(err, -ENOENT, "there is no model '%.64s'", model);
    }
    for (size_t i = 0; i < json_array_size(variants); i++) {
        const json_t *v = json_array_get(variants, i);
        char path[4096];

        store_blob_path(s, json_string_value(json_object_get(v, "digest")), path, sizeof(path));
        json_array_append_new(
            list, json_pack("{s:O, s:s}", "name", json_object_get(v, "name"), "path", path));
    }
    request = json_pack("{s:s, s:o, s:s, s:o, s:s}", "kind", "evaluate", "variants", list, "reference",
        "original", "pack", pack, "split", split);
    set_model_members(m, request);
    json_object_set_new(request, "dataset", json_string(dataset));
    json_decref(m);
    *ret = request;
    return request ? 0 : error_oom(err);
}
