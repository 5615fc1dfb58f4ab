#include "daemon/job_sensitivity.h"

#include <errno.h>
#include <openssl/evp.h>
#include <string.h>

#include "daemon/job_request.h"
#include "daemon/models.h"

/* Members of the body that are the worker's. */
static const char *const spec_keys[] = {"methods", "samples", "seed", NULL};
/* … and those of the daemon. */
static const char *const own_keys[] = {"kind", "model", "from", "dataset", "limits", "priority", NULL};

bool job_is_sensitivity(const json_t *doc) {
    return !strcmp(json_string_value(json_object_get(doc, "kind")), "sensitivity");
}

static const char *from_of(const json_t *body) {
    const char *from = json_string_value(json_object_get(body, "from"));

    return from ? from : "original";
}

/* ---- the request ---- */

int job_sensitivity_check(struct store *s, const json_t *body, json_t **ret, struct error *err) {
    json_t *methods = json_object_get(body, "methods"), *variant = NULL;
    const char *model, *from;
    int r = job_request_limits(body, err);

    if (r == 0)
        r = job_request_string(body, "model", NULL, &model, err);
    if (r == 0)
        r = job_request_string(body, "from", "original", &from, err);
    if (r == 0)
        r = models_variant(s, model, from, &variant, err);
    json_decref(variant);
    if (r == 0)
        r = job_request_dataset(s, body, true, err);
    if (r < 0)
        return r;
    *ret = job_request_doc(body, "sensitivity", model, json_null(),
        json_is_array(methods) ? json_incref(methods) : json_array());
    return *ret ? 0 : error_oom(err);
}

/* All that is not the daemon's, so that the worker refuses what it does not know. */
static json_t *spec_of(const json_t *body) {
    json_t *spec = json_copy((json_t *)(uintptr_t)body);

    for (size_t i = 0; spec && own_keys[i]; i++)
        json_object_del(spec, own_keys[i]);
    return spec;
}

int job_sensitivity_request(
    struct store *s, const json_t *doc, const char *kind, json_t **ret, struct error *err) {
    const json_t *body = json_object_get(doc, "request");
    const char *name = json_string_value(json_object_get(doc, "model"));
    json_auto_t *variant = NULL, *model = NULL;
    json_t *pack = NULL, *request;
    char path[4096];
    int r = models_variant(s, name, from_of(body), &variant, err);

    if (r == 0)
        r = job_request_pack(s, json_string_value(json_object_get(body, "dataset")), &pack, err);
    if (r < 0)
        return r;
    model = store_get(s, STORE_MODEL, name);
    store_blob_path(s, json_string_value(json_object_get(variant, "digest")), path, sizeof(path));
    request = json_pack("{s:s, s:o, s:s, s:o, s:O?, s:O?, s:O?}", "kind", kind, "sensitivity", spec_of(body),
        "input", path, "pack", pack, "limits", json_object_get(body, "limits"), "labels",
        json_object_get(model, "labels"), "preprocess", json_object_get(model, "preprocess"));
    *ret = request;
    return request ? 0 : error_oom(err);
}

/* ---- questions ---- */

static int digest_of(const json_t *question, char ret[static DIGEST_MAX], struct error *err) {
    char *text = json_dumps(question, JSON_COMPACT | JSON_SORT_KEYS);
    unsigned char sha256[EVP_MAX_MD_SIZE];
    bool ok = text && EVP_Digest(text, strlen(text), sha256, NULL, EVP_sha256(), NULL);

    free(text);
    if (!ok)
        return error_oom(err);
    digest_text(sha256, ret);
    return 0;
}

/* Everything that the answer depends on. */
static int question_of(struct store *s, const json_t *doc, char ret[static DIGEST_MAX], struct error *err) {
    const json_t *body = json_object_get(doc, "request");
    const char *name = json_string_value(json_object_get(doc, "model"));
    json_auto_t *variant = NULL, *model = store_get(s, STORE_MODEL, name), *question = NULL,
                *dataset = store_get(s, STORE_DATASET, json_string_value(json_object_get(body, "dataset")));
    int r = models_variant(s, name, from_of(body), &variant, err);

    if (r < 0)
        return r;
    question = json_pack("{s:s, s:O?, s:O?, s:O?, s:O?}", "version", BONSAI_VERSION, "digest",
        json_object_get(variant, "digest"), "pack", json_object_get(dataset, "pack"), "labels",
        json_object_get(model, "labels"), "preprocess", json_object_get(model, "preprocess"));
    for (size_t i = 0; question && spec_keys[i]; i++)
        if (json_object_get(body, spec_keys[i]))
            json_object_set(question, spec_keys[i], json_object_get(body, spec_keys[i]));
    return question ? digest_of(question, ret, err) : error_oom(err);
}

/* The job that has answered it; NULL: none. New reference. */
static json_t *find_answered(struct store *s, const char *question) {
    json_t *jobs = store_list(s, STORE_JOB, NULL), *doc, *found = NULL;
    size_t i;

    json_array_foreach(jobs, i, doc) {
        const char *asked = json_string_value(json_object_get(doc, "question"));

        if (!found && asked && !strcmp(asked, question) && job_state_of(doc) == JOB_SUCCEEDED)
            found = json_incref(doc);
    }
    json_decref(jobs);
    return found;
}

/* ---- the result ---- */

static int end(struct jobs *j, const json_t *doc, const json_t *table, const json_t *by, struct error *err) {
    const json_t *body = json_object_get(doc, "request");
    json_auto_t *result = NULL, *more = NULL, *variant = NULL;
    char question[DIGEST_MAX];
    int r = question_of(j->store, doc, question, err);

    if (r == 0)
        r = models_variant(
            j->store, json_string_value(json_object_get(doc, "model")), from_of(body), &variant, err);
    if (r < 0)
        return r;
    result = json_copy((json_t *)(uintptr_t)table);
    if (!result)
        return error_oom(err);
    json_object_set(result, "model", json_object_get(doc, "model"));
    json_object_set(result, "from", json_object_get(variant, "name"));
    json_object_set(result, "digest", json_object_get(variant, "digest"));
    json_object_set(result, "dataset", json_object_get(body, "dataset"));
    if (by)
        json_object_set(result, "answered_by", (json_t *)(uintptr_t)by);
    more = json_pack("{s:O, s:s}", "result", result, "question", question);
    return more ? job_set_state(
                      j, json_string_value(json_object_get(doc, "id")), JOB_SUCCEEDED, more, NULL, 0, err)
                : error_oom(err);
}

/* The first one to answer it, however many repeated it since. */
static const json_t *answered_by(const json_t *doc) {
    const json_t *by = json_object_get(json_object_get(doc, "result"), "answered_by");

    return by ? by : json_object_get(doc, "id");
}

int job_sensitivity_answer(struct jobs *j, const json_t *doc, struct error *err) {
    json_auto_t *found = NULL;
    char question[DIGEST_MAX];
    int r = question_of(j->store, doc, question, err);

    if (r < 0)
        return r;
    found = find_answered(j->store, question);
    if (!found)
        return 0;
    r = end(j, doc, json_object_get(found, "result"), answered_by(found), err);
    return r < 0 ? r : 1;
}

void job_sensitivity_try(struct jobs *j, const char *id) {
    json_auto_t *doc = store_get(j->store, STORE_JOB, id), *found = NULL;
    char question[DIGEST_MAX];

    if (!doc || !job_is_sensitivity(doc) || question_of(j->store, doc, question, NULL) < 0)
        return;
    found = find_answered(j->store, question);
    /* the runner may be faster, and finds the answer, too */
    if (found && job_set_state(j, id, JOB_RUNNING, NULL, NULL, 0, NULL) == 0 &&
        end(j, doc, json_object_get(found, "result"), answered_by(found), NULL) < 0)
        job_set_state(j, id, JOB_QUEUED, NULL, NULL, 0, NULL);
}

int job_finish_sensitivity(struct jobs *j, const json_t *doc, const json_t *done, struct error *err) {
    return end(j, doc, done, NULL, err);
}

json_t *job_sensitivity_row(const json_t *result) {
    static const char *const keys[] = {
        "model", "from", "digest", "dataset", "damage", "samples", "advice", "answered_by"};
    json_t *row = json_object();

    for (size_t i = 0; row && i < sizeof(keys) / sizeof(keys[0]); i++)
        if (json_object_get(result, keys[i]))
            json_object_set(row, keys[i], json_object_get(result, keys[i]));
    return row;
}
