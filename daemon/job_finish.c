/* What a worker's result becomes: a checked file, a variant's document, evaluations, verdicts. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "daemon/job_request.h"
#include "daemon/jobs_priv.h"
#include "daemon/models.h"
#include "daemon/verdict.h"

static json_t *variant_doc(const json_t *job, const json_t *parent, int number, const char *digest,
    uint64_t bytes, json_t *summary, const json_t *done) {
    char now[TIME_TEXT_MAX];

    time_text(now);
    return json_pack(
        "{s:O, s:O, s:i, s:O, s:O, s:s, s:s, s:[], s:b, s:s, s:n, s:I, s:n, s:o, s:O, s:O, s:n, s:n, s:[], s:b, s:O}",
        "model", json_object_get(job, "model"), "name", json_object_get(job, "variant"), "number", number,
        "parent", json_object_get(parent, "name"), "steps", json_object_get(job, "steps"), "digest", digest,
        "created", now, "aliases", "pinned", 0, "policy", "speed", "note", "bytes_file", (json_int_t)bytes,
        "bytes_file_compressed", "summary", summary, "layers", json_object_get(done, "layers"), "report",
        json_object_get(done, "steps"), "evaluation", "latency", "verdicts", "is_unloaded", 0, "job",
        json_object_get(job, "id"));
}

int job_keep_file(struct jobs *j, const char *path, char digest[static DIGEST_MAX], uint64_t *ret_bytes,
    json_t **ret_summary, struct error *err) {
    int r = jobs_check_model(j, path, ret_summary, err);

    if (r < 0)
        return error_prefix(err, r, "the worker's result");
    return store_blob_keep_path(j->store, path, digest, ret_bytes, err);
}

/* Evaluates parent (when it has no evaluation on this data set yet) and result, before either is known to
 * others. A data set without labels is no failure. */
static int evaluate_pair(struct jobs *j, const json_t *job, const json_t *parent, const json_t *result,
    json_t **ret, struct error *err) {
    const json_t *body = json_object_get(job, "request");
    const char *dataset = json_string_value(json_object_get(body, "dataset"));
    json_t *list, *request = NULL;
    int r;

    *ret = NULL;
    if (!dataset || !*dataset || json_is_false(json_object_get(body, "evaluate")))
        return 0;
    if (!verdict_has_labels(j->store, dataset, "test"))
        return 0;
    list = json_pack("[O, O]", parent, result);
    r = job_request_evaluate(
        j->store, json_string_value(json_object_get(job, "model")), list, dataset, "test", &request, err);
    json_decref(list);
    if (r == 0) {
        json_object_set(request, "reference", json_object_get(parent, "name"));
        if (json_object_get(body, "limits"))
            json_object_set(request, "limits", json_object_get(body, "limits"));
        r = job_call(j, json_string_value(json_object_get(job, "id")), request, ret, err);
    }
    json_decref(request);
    return r;
}

static void set_evaluation(json_t *variant, const json_t *found) {
    static const char *const keys[] = {"evaluation", "latency", "layer_us"};

    for (size_t i = 0; i < sizeof(keys) / sizeof(keys[0]); i++)
        json_object_set(variant, keys[i], json_object_get(found, keys[i]));
}

/* A copy of a variant's document with what an evaluation found. */
static json_t *with_evaluation(const json_t *variant, const json_t *found) {
    json_t *copy = json_copy((json_t *)(uintptr_t)variant);

    set_evaluation(copy, found);
    return copy;
}

static json_t *found_for(const json_t *evaluated, const json_t *variant) {
    return json_object_get(
        json_object_get(evaluated, "variants"), json_string_value(json_object_get(variant, "name")));
}

static json_t *result_json(const json_t *variant, const json_t *parent, const json_t *done) {
    return json_pack("{s:O, s:O, s:O, s:O, s:O, s:O, s:O, s:O}", "variant", json_object_get(variant, "name"),
        "number", json_object_get(variant, "number"), "digest", json_object_get(variant, "digest"),
        "bytes_file", json_object_get(variant, "bytes_file"), "parent_bytes_file",
        json_object_get(parent, "bytes_file"), "evaluation", json_object_get(variant, "evaluation"),
        "latency", json_object_get(variant, "latency"), "layers", json_object_get(done, "layers"));
}

/* The parent as it is now (others may have changed its aliases while the job ran) with what was found. */
static int judged_parent(struct jobs *j, const char *model, const json_t *old, const json_t *found,
    json_t **ret, struct error *err) {
    char key[NAME_MAX_SIZE + 16];
    json_t *now;

    variant_key(model, (int)json_integer_value(json_object_get(old, "number")), key, sizeof(key));
    now = store_get(j->store, STORE_VARIANT, key);
    if (!now)
        return error_set(err, -ENOENT, "the parent of the variant has gone");
    *ret = found ? with_evaluation(now, found) : json_incref(now);
    json_decref(now);
    return *ret ? 0 : error_oom(err);
}

static char *evaluation_key(const json_t *variant, const json_t *evaluation) {
    char *key;

    if (asprintf(&key, "%s/%d/%s/%s", json_string_value(json_object_get(variant, "model")),
            (int)json_integer_value(json_object_get(variant, "number")),
            json_string_value(json_object_get(evaluation, "dataset")),
            json_string_value(json_object_get(evaluation, "split"))) < 0)
        return NULL;
    return key;
}

/* The variant's present evaluation is also kept among all of them. */
static void add_evaluation(json_t *variant, char **key, struct store_change *changes, size_t *n) {
    json_t *e = json_object_get(variant, "evaluation");

    if (json_is_object(e) && (*key = evaluation_key(variant, e)))
        changes[(*n)++] = (struct store_change){STORE_EVALUATION, *key, e};
}

/* Called with the store locked. */
static int publish_locked(struct jobs *j, const json_t *job, const char *path, json_t *parent,
    json_t *variant, const json_t *done, char ret_key[static NAME_MAX_SIZE + 16], struct error *err) {
    const char *model = json_string_value(json_object_get(job, "model")),
               *id = json_string_value(json_object_get(job, "id"));
    const json_t *requirement = json_object_get(json_object_get(job, "request"), "require");
    char key[NAME_MAX_SIZE + 16], parent_key[NAME_MAX_SIZE + 16];
    char digest[DIGEST_MAX];
    _cleanup_(freep) char *kept = NULL, *kept_parent = NULL;
    struct store_change changes[5];
    struct error unmet = {0};
    json_t *m = NULL, *more;
    size_t n = 2;
    uint64_t bytes;
    bool ok, keeps;
    int number, r;

    /* once more, under the lock: no document named the file until now, and another's removal may have taken
     * it */
    r = store_blob_keep_path(j->store, path, digest, &bytes, err);
    if (r == 0)
        r = models_take_number(j->store, model, &number, &m, err);
    if (r < 0)
        return r;
    unlink(path); /* nothing half-done stays once the job is seen to end */
    json_object_set_new(variant, "number", json_integer(number));
    variant_key(model, number, key, sizeof(key));
    variant_key(
        model, (int)json_integer_value(json_object_get(parent, "number")), parent_key, sizeof(parent_key));
    changes[0] = (struct store_change){STORE_MODEL, model, m};
    changes[1] = (struct store_change){STORE_VARIANT, parent_key, parent};
    verdict_set(variant, parent, done, m);
    ok = verdict_meets(variant, parent, requirement, &unmet);
    keeps = ok || !json_is_true(json_object_get(requirement, "discard"));
    more = json_pack("{s:o}", "result", result_json(variant, parent, done));
    if (!ok)
        json_object_set_new(
            more, "error", json_pack("{s:s, s:s}", "code", "requirement_not_met", "message", unmet.text));
    add_evaluation(parent, &kept_parent, changes, &n);
    if (keeps) {
        changes[n++] = (struct store_change){STORE_VARIANT, key, variant};
        add_evaluation(variant, &kept, changes, &n);
    }
    r = job_set_state(j, id, ok ? JOB_SUCCEEDED : JOB_FAILED, more, changes, n, err);
    json_decref(more);
    json_decref(m);
    memcpy(ret_key, keeps ? key : "", keeps ? sizeof(key) : 1);
    return r;
}

static int publish(struct jobs *j, const json_t *job, const char *path, const json_t *parent, json_t *variant,
    const json_t *found, const json_t *done, struct error *err) {
    char key[NAME_MAX_SIZE + 16];
    json_t *judged = NULL;
    int r;

    store_lock(j->store);
    r = judged_parent(j, json_string_value(json_object_get(job, "model")), parent, found, &judged, err);
    if (r == 0)
        r = publish_locked(j, job, path, judged, variant, done, key, err);
    store_unlock(j->store);
    json_decref(judged);
    if (r == 0 && *key)
        residency_load(j->residency, key, false, NULL, NULL, NULL); /* stays unloaded when it does not fit */
    return r;
}

int job_finish_compress(struct jobs *j, json_t *job, const char *path, json_t *done, struct error *err) {
    const char *from = json_string_value(json_object_get(json_object_get(job, "request"), "from"));
    json_t *summary = NULL, *parent = NULL, *variant = NULL, *evaluated = NULL, *found;
    char digest[DIGEST_MAX] = "";
    uint64_t bytes = 0;
    int r = job_keep_file(j, path, digest, &bytes, &summary, err);

    if (r == 0)
        r = models_variant(j->store, json_string_value(json_object_get(job, "model")),
            from ? from : "original", &parent, err);
    if (r == 0) {
        variant = variant_doc(job, parent, 0, digest, bytes, summary, done);
        r = variant ? evaluate_pair(j, job, parent, variant, &evaluated, err) : error_oom(err);
    }
    if (r == 0) {
        found = found_for(evaluated, variant);
        if (found)
            set_evaluation(variant, found);
        r = publish(j, job, path, parent, variant, found_for(evaluated, parent), done, err);
    }
    store_blob_release(j->store, digest); /* no effect once the variant names it */
    json_decref(parent);
    json_decref(variant);
    json_decref(evaluated);
    return r;
}

static int keep_evaluation(
    struct jobs *j, const json_t *model, const char *name, const json_t *found, struct error *err) {
    const char *m = json_string_value(json_object_get(model, "name"));
    json_t *variant = NULL, *copy, *original = NULL;
    _cleanup_(freep) char *evaluation = NULL;
    char key[NAME_MAX_SIZE + 16];
    int r;

    store_lock(j->store);
    r = models_variant(j->store, m, name, &variant, err);
    if (r == 0)
        r = models_variant(j->store, m, "original", &original, err);
    if (r == 0) {
        copy = with_evaluation(variant, found);
        verdict_set(copy, original, NULL, model);
        variant_key(m, (int)json_integer_value(json_object_get(variant, "number")), key, sizeof(key));
        evaluation = evaluation_key(variant, json_object_get(found, "evaluation"));
        r = evaluation ? store_apply(j->store,
                             (struct store_change[]){{STORE_VARIANT, key, copy},
                                 {STORE_EVALUATION, evaluation, json_object_get(found, "evaluation")}},
                             2, err)
                       : error_oom(err);
        json_decref(copy);
    }
    store_unlock(j->store);
    json_decref(variant);
    json_decref(original);
    return r;
}

int job_finish_evaluate(struct jobs *j, json_t *job, json_t *done, struct error *err) {
    json_t *model = store_get(j->store, STORE_MODEL, json_string_value(json_object_get(job, "model"))),
           *found, *more;
    const char *name;
    int r = model ? 0 : error_set(err, -ENOENT, "the model has gone");

    json_object_foreach(json_object_get(done, "variants"), name, found) if (r == 0) r =
        keep_evaluation(j, model, name, found, err);
    json_decref(model);
    if (r < 0)
        return r;
    more = json_pack("{s:O}", "result", done);
    r = job_set_state(j, json_string_value(json_object_get(job, "id")), JOB_SUCCEEDED, more, NULL, 0, err);
    json_decref(more);
    return r;
}
