#include "daemon/models.h"

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

bool name_is_valid(const char *s) {
    size_t n = strlen(s);

    if (n < 1 || n >= NAME_MAX_SIZE || !isalnum((unsigned char)*s))
        return false;
    for (; *s; s++)
        if (!isalnum((unsigned char)*s) && !strchr("._-", *s))
            return false;
    return true;
}

int name_check(const char *name, const char *what, struct error *err) {
    if (name_is_valid(name))
        return 0;
    return error_code(err, -EINVAL, "bad_name",
        "%s '%.80s' is not a name: 1 to 64 letters, digits, '.', '_' or '-', the first a letter or digit",
        what, name);
}

int name_check_model(const char *name, struct error *err) {
    if (!strcmp(name, "stats"))
        return error_code(err, -EINVAL, "bad_name", "the model name 'stats' is reserved");
    return name_check(name, "model", err);
}

static bool is_number(const char *s) {
    return *s && strspn(s, "0123456789") == strlen(s);
}

int name_check_variant(const char *name, struct error *err) {
    if (!strcmp(name, "original") || !strcmp(name, "parent") || is_number(name))
        return error_code(err, -EINVAL, "bad_name", "the variant name '%.64s' is reserved", name);
    return name_check(name, "variant", err);
}

void variant_key(const char *model, int number, char *ret, size_t size) {
    snprintf(ret, size, "%s/%d", model, number);
}

void time_text(char ret[static TIME_TEXT_MAX]) {
    struct timespec t;
    struct tm tm;
    size_t n;

    clock_gettime(CLOCK_REALTIME, &t);
    gmtime_r(&t.tv_sec, &tm);
    n = strftime(ret, TIME_TEXT_MAX, "%Y-%m-%dT%H:%M:%S", &tm);
    snprintf(ret + n, TIME_TEXT_MAX - n, ".%03ldZ", t.tv_nsec / 1000000);
}

static int by_number(const void *a, const void *b) {
    json_int_t x = json_integer_value(json_object_get(*(json_t *const *)a, "number"));
    json_int_t y = json_integer_value(json_object_get(*(json_t *const *)b, "number"));

    return (x > y) - (x < y);
}

json_t *models_variants(struct store *s, const char *model) {
    char prefix[NAME_MAX_SIZE + 2];
    json_t *list, *sorted = json_array();
    _cleanup_(freep) json_t **docs = NULL;
    size_t n;

    snprintf(prefix, sizeof(prefix), "%.64s/", model);
    list = store_list(s, STORE_VARIANT, prefix);
    n = json_array_size(list);
    docs = calloc(n + 1, sizeof(json_t *));
    for (size_t i = 0; docs && i < n; i++)
        docs[i] = json_array_get(list, i);
    if (docs)
        qsort(docs, n, sizeof(json_t *), by_number); /* keys sort as text: 10 before 2 */
    for (size_t i = 0; docs && i < n; i++)
        json_array_append(sorted, docs[i]);
    json_decref(list);
    return sorted;
}

static bool has_alias(const json_t *variant, const char *name) {
    json_t *aliases = json_object_get(variant, "aliases");

    for (size_t i = 0; i < json_array_size(aliases); i++)
        if (!strcmp(json_string_value(json_array_get(aliases, i)), name))
            return true;
    return false;
}

static bool is_called(const json_t *variant, const char *name) {
    const char *own = json_string_value(json_object_get(variant, "name"));

    if (is_number(name))
        return strlen(name) < 10 && json_integer_value(json_object_get(variant, "number")) == atoi(name);
    return (own && !strcmp(own, name)) || has_alias(variant, name);
}

int models_variant(struct store *s, const char *model, const char *variant, json_t **ret, struct error *err) {
    json_t *list, *found = NULL, *m = store_get(s, STORE_MODEL, model);

    if (!m)
        return error_set(err, -ENOENT, "there is no model '%.64s'", model);
    json_decref(m);
    list = models_variants(s, model);
    for (size_t i = 0; i < json_array_size(list) && !found; i++)
        if (is_called(json_array_get(list, i), variant))
            found = json_incref(json_array_get(list, i));
    json_decref(list);
    if (!found)
        return error_set(err, -ENOENT, "model '%.64s' has no variant '%.64s'", model, variant);
    *ret = found;
    return 0;
}

int models_resolve(struct store *s, const char *name, const char *version, json_t **ret, struct error *err) {
    const char *tilde = strchr(name, '~');
    char model[NAME_MAX_SIZE];
    json_t *v;
    int r;

    if (!tilde)
        return models_variant(s, name, version ? version : "original", ret, err);
    if ((size_t)(tilde - name) >= sizeof(model))
        return error_set(err, -ENOENT, "there is no model '%.64s'", name);
    memcpy(model, name, (size_t)(tilde - name));
    model[tilde - name] = 0;
    r = models_variant(s, model, tilde + 1, &v, err);
    if (r < 0)
        return r;
    if (version && !(is_number(version) && is_called(v, version))) {
        json_decref(v);
        return error_set(
            err, -ENOENT, "variant '%.64s' of model '%.64s' is not version %.16s", tilde + 1, model, version);
    }
    *ret = v;
    return 0;
}

/* Does the job read from this model, or make it, or a variant of it? */
bool models_job_uses(const json_t *job, const char *model) {
    const char *of = json_string_value(json_object_get(job, "model"));
    const char *kind = json_string_value(json_object_get(job, "kind"));
    const char *from = json_string_value(json_object_get(json_object_get(job, "request"), "from"));
    size_t n = strlen(model);

    if (of && !strcmp(of, model))
        return true;
    /* elsewhere `from` is a variant of the same model */
    return kind && !strcmp(kind, "train") && from && !strncmp(from, model, n) && (!from[n] || from[n] == '~');
}

static bool is_unfinished(const json_t *job) {
    const char *state = json_string_value(json_object_get(job, "state"));

    return strcmp(state, "succeeded") && strcmp(state, "failed") && strcmp(state, "cancelled");
}

json_t *models_users(struct store *s, const char *model, bool with_variants) {
    json_t *users = json_array(), *jobs = store_list(s, STORE_JOB, NULL),
           *variants = models_variants(s, model), *doc;
    size_t i;

    json_array_foreach(jobs, i, doc) {
        if (models_job_uses(doc, model) && is_unfinished(doc))
            json_array_append_new(
                users, json_pack("{s:s, s:O}", "kind", "job", "id", json_object_get(doc, "id")));
    }
    json_array_foreach(
        variants, i, doc) if (with_variants && json_integer_value(json_object_get(doc, "number")) != 1)
        json_array_append_new(
            users, json_pack("{s:s, s:O}", "kind", "variant", "id", json_object_get(doc, "name")));
    json_decref(jobs);
    json_decref(variants);
    return users;
}

/* An unfinished training that will make the model. */
static bool is_reserved(struct store *s, const char *model, const char *but_job) {
    json_auto_t *jobs = store_list(s, STORE_JOB, NULL);

    for (size_t i = 0; i < json_array_size(jobs); i++) {
        const json_t *doc = json_array_get(jobs, i);
        const char *of = json_string_value(json_object_get(doc, "model"));

        if (!strcmp(json_string_value(json_object_get(doc, "kind")), "train") && of && !strcmp(of, model) &&
            is_unfinished(doc) &&
            !(but_job && !strcmp(but_job, json_string_value(json_object_get(doc, "id")))))
            return true;
    }
    return false;
}

int models_check_free(struct store *s, const char *name, const char *but_job, struct error *err) {
    json_auto_t *have = store_get(s, STORE_MODEL, name);

    if (!have && !is_reserved(s, name, but_job))
        return 0;
    return error_code(
        err, -EEXIST, "name_taken", "there is a model '%.64s', or a job that will make it", name);
}

/* What a file's metadata says of its use belongs to the model (api.md 2), not to the summary. */
static json_t *summary_alone(const json_t *summary) {
    json_t *copy = json_deep_copy(summary);

    json_object_del(copy, "labels");
    json_object_del(copy, "preprocess");
    return copy;
}

static json_t *or_null(json_t *j) {
    return j ? json_incref(j) : json_null();
}

static json_t *original_doc(const char *model, const char *digest, uint64_t bytes, const json_t *summary) {
    char now[TIME_TEXT_MAX];
    json_t *copy = summary_alone(summary);

    time_text(now);
    return json_pack(
        "{s:s, s:s, s:i, s:n, s:[], s:s, s:s, s:[], s:b, s:s, s:n, s:I, s:n, s:o, s:[], s:n, s:n, s:[], s:b, s:n}",
        "model", model, "name", "original", "number", 1, "parent", "steps", "digest", digest, "created", now,
        "aliases", "pinned", 0, "policy", "speed", "note", "bytes_file", (json_int_t)bytes,
        "bytes_file_compressed", "summary", copy, "layers", "evaluation", "latency", "verdicts",
        "is_unloaded", 0, "job");
}

static json_t *model_doc(const char *name, const char *digest, uint64_t bytes, const json_t *summary) {
    char now[TIME_TEXT_MAX];

    time_text(now);
    return json_pack("{s:s, s:s, s:s, s:n, s:o, s:o, s:{}, s:b, s:o, s:i, s:I}", "name", name, "digest",
        digest, "created", now, "description", "labels", or_null(json_object_get(summary, "labels")),
        "preprocess", or_null(json_object_get(summary, "preprocess")), "limits", "pinned", 0, "summary",
        summary_alone(summary), "next_number", 2, "bytes", (json_int_t)bytes);
}

int models_documents(const char *name, const char *digest, uint64_t bytes, const json_t *summary,
    json_t **ret_model, json_t **ret_original, struct error *err) {
    *ret_model = model_doc(name, digest, bytes, summary);
    *ret_original = original_doc(name, digest, bytes, summary);
    return *ret_model && *ret_original ? 0 : error_oom(err);
}

static int put_model(struct store *s, json_t *model, json_t *original, struct error *err) {
    const char *name = json_string_value(json_object_get(model, "name"));
    char key[NAME_MAX_SIZE + 16];
    int r;

    if (!model || !original)
        return error_oom(err);
    variant_key(name, 1, key, sizeof(key));
    r = store_apply(
        s, (struct store_change[]){{STORE_MODEL, name, model}, {STORE_VARIANT, key, original}}, 2, err);
    return r;
}

int models_create(struct store *s, const char *name, const char *digest, uint64_t bytes, json_t *summary,
    bool *ret_is_new, struct error *err) {
    json_t *have, *model = NULL, *original = NULL;
    int r = name_check_model(name, err);

    if (r < 0)
        return r;
    store_lock(s);
    have = store_get(s, STORE_MODEL, name);
    if (have) {
        bool same = !strcmp(json_string_value(json_object_get(have, "digest")), digest);

        json_decref(have);
        store_unlock(s);
        *ret_is_new = false;
        return same ? 0
                    : error_set(err, -EEXIST,
                          "there is a model '%s' with other content; ?replace=true replaces it", name);
    }
    r = models_check_free(s, name, NULL, err);
    if (r == 0)
        r = models_documents(name, digest, bytes, summary, &model, &original, err);
    if (r == 0)
        r = put_model(s, model, original, err);
    store_unlock(s);
    json_decref(model);
    json_decref(original);
    *ret_is_new = r == 0;
    return r;
}

/* Changes that delete every variant but the original, and all evaluations (a later model of that name must
 * not find them). digest[i] is NULL where change[i] names no file. */
struct removal {
    struct store_change *change;
    char **key, **digest;
    size_t n;
};

static void removal_done(struct removal *d) {
    for (size_t i = 0; i < d->n; i++) {
        free(d->key[i]);
        free(d->digest[i]);
    }
    free(d->change);
    free(d->key);
    free(d->digest);
}

static json_t *evaluation_keys(struct store *s, const char *model) {
    char prefix[NAME_MAX_SIZE + 16];

    snprintf(prefix, sizeof(prefix), "%s/", model);
    return store_keys(s, STORE_EVALUATION, prefix);
}

static int removal_fill(
    struct removal *d, struct store *s, const char *model, bool with_original, struct error *err) {
    json_t *list = models_variants(s, model), *v;
    json_auto_t *evaluations = evaluation_keys(s, model);
    size_t n = json_array_size(list) + json_array_size(evaluations), i;

    d->change = calloc(n + 2, sizeof(*d->change));
    d->key = calloc(n + 1, sizeof(*d->key));
    d->digest = calloc(n + 1, sizeof(*d->digest));
    if (!d->change || !d->key || !d->digest) {
        json_decref(list);
        return error_oom(err);
    }
    json_array_foreach(list, i, v) {
        char key[NAME_MAX_SIZE + 16];
        int number = (int)json_integer_value(json_object_get(v, "number"));

        if (number == 1 && !with_original)
            continue;
        variant_key(model, number, key, sizeof(key));
        d->key[d->n] = strdup(key);
        d->digest[d->n] = strdup(json_string_value(json_object_get(v, "digest")));
        d->change[d->n] = (struct store_change){STORE_VARIANT, d->key[d->n], NULL};
        d->n++;
    }
    json_decref(list);
    json_array_foreach(evaluations, i, v) {
        d->key[d->n] = strdup(json_string_value(v));
        d->change[d->n] = (struct store_change){STORE_EVALUATION, d->key[d->n], NULL};
        d->n++;
    }
    return 0;
}

static void release_blobs(struct store *s, const struct removal *d) {
    for (size_t i = 0; i < d->n; i++)
        if (d->digest[i])
            store_blob_release(s, d->digest[i]);
}

static int refuse_users(
    struct store *s, const char *name, bool cascade, json_t **ret_users, struct error *err) {
    json_t *users = models_users(s, name, true);

    if (cascade || json_array_size(users) == 0) {
        json_decref(users);
        return 0;
    }
    if (ret_users)
        *ret_users = users;
    else
        json_decref(users);
    return error_set(err, -EBUSY,
        "model '%s' is used by other variants or unfinished jobs; ?cascade=true removes them", name);
}

int models_delete(struct store *s, const char *name, bool cascade, json_t **ret_users, struct error *err) {
    _cleanup_(removal_done) struct removal d = {0};
    json_t *have;
    int r;

    store_lock(s);
    have = store_get(s, STORE_MODEL, name);
    r = have ? 0 : error_set(err, -ENOENT, "there is no model '%.64s'", name);
    json_decref(have);
    if (r == 0)
        r = refuse_users(s, name, cascade, ret_users, err);
    if (r == 0)
        r = removal_fill(&d, s, name, true, err);
    if (r == 0) {
        d.change[d.n] = (struct store_change){STORE_MODEL, name, NULL};
        r = store_apply(s, d.change, d.n + 1, err);
    }
    if (r == 0)
        release_blobs(s, &d);
    store_unlock(s);
    return r;
}

/* Labels, preprocess and limits stay when inputs and outputs are the same. */
static void carry_over(const json_t *old, json_t *model) {
    static const char *const kept[] = {"labels", "preprocess", "limits"};
    json_t *a = json_object_get(old, "summary"), *b = json_object_get(model, "summary");
    bool same = json_equal(json_object_get(a, "inputs"), json_object_get(b, "inputs")) &&
                json_equal(json_object_get(a, "outputs"), json_object_get(b, "outputs"));

    for (size_t i = 0; same && i < sizeof(kept) / sizeof(kept[0]); i++)
        if (!json_is_null(json_object_get(old, kept[i])))
            json_object_set(model, kept[i], json_object_get(old, kept[i]));
    json_object_set(model, "description", json_object_get(old, "description"));
    json_object_set(model, "next_number", json_object_get(old, "next_number"));
}

static int replace_locked(struct store *s, const char *name, const char *digest, uint64_t bytes,
    json_t *summary, bool cascade, struct error *err) {
    _cleanup_(removal_done) struct removal d = {0};
    json_t *old = store_get(s, STORE_MODEL, name), *model, *original;
    char key[NAME_MAX_SIZE + 16], *old_digest;
    bool is_new;
    int r;

    if (!old)
        return models_create(s, name, digest, bytes, summary, &is_new, err);
    r = refuse_users(s, name, cascade, NULL, err);
    if (r == 0)
        r = removal_fill(&d, s, name, false, err);
    if (r < 0) {
        json_decref(old);
        return r;
    }
    model = model_doc(name, digest, bytes, summary);
    original = original_doc(name, digest, bytes, summary);
    carry_over(old, model);
    old_digest = strdup(json_string_value(json_object_get(old, "digest")));
    variant_key(name, 1, key, sizeof(key));
    d.change[d.n] = (struct store_change){STORE_MODEL, name, model};
    d.change[d.n + 1] = (struct store_change){STORE_VARIANT, key, original};
    r = store_apply(s, d.change, d.n + 2, err);
    if (r == 0) {
        release_blobs(s, &d);
        if (old_digest)
            store_blob_release(s, old_digest);
    }
    free(old_digest);
    json_decref(old);
    json_decref(model);
    json_decref(original);
    return r;
}

int models_replace(struct store *s, const char *name, const char *digest, uint64_t bytes, json_t *summary,
    bool cascade, struct error *err) {
    int r = name_check_model(name, err);

    if (r < 0)
        return r;
    store_lock(s);
    r = replace_locked(s, name, digest, bytes, summary, cascade, err);
    store_unlock(s);
    return r;
}

int models_take_number(struct store *s, const char *model, int *ret, json_t **ret_model, struct error *err) {
    json_t *m = store_get(s, STORE_MODEL, model), *copy;

    if (!m)
        return error_set(err, -ENOENT, "there is no model '%.64s'", model);
    copy = json_copy(m);
    json_decref(m);
    if (!copy)
        return error_oom(err);
    *ret = (int)json_integer_value(json_object_get(copy, "next_number"));
    json_object_set_new(copy, "next_number", json_integer(*ret + 1));
    *ret_model = copy;
    return 0;
}
