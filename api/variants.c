/* Variants: /api/v1/models/{m}/variants … */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zstd.h>

#include "api/body.h"
#include "api/etag.h"
#include "api/routes.h"
#include "api/view.h"
#include "base/cleanup.h"
#include "daemon/judge.h"
#include "daemon/models.h"
#include "daemon/residency.h"
#include "engine/onnx.h"
#include "engine/pass.h"

#define KEY_SIZE (NAME_MAX_SIZE + 16)

static int find(const struct request *r, json_t **ret, char key[static KEY_SIZE], struct error *err) {
    const char *model = request_param(r, "model");
    int e = models_variant(r->api->store, model, request_param(r, "variant"), ret, err);

    if (e == 0)
        variant_key(model, (int)json_integer_value(json_object_get(*ret, "number")), key, KEY_SIZE);
    return e;
}

static int list_variants(struct request *r, struct reply *p, struct error *err) {
    const char *model = request_param(r, "model");
    json_auto_t *doc = store_get(r->api->store, STORE_MODEL, model),
                *all = models_variants(r->api->store, model);
    json_t *views = json_array();

    if (!doc) {
        json_decref(views);
        return error_set(err, -ENOENT, "there is no model '%.64s'", model);
    }
    for (size_t i = json_array_size(all); i-- > 0;)
        json_array_append_new(views, view_variant(r->api, json_array_get(all, i), false));
    return reply_json(p, 200,
        view_page(views, "name", request_query_uint(r, "limit", 100), request_query(r, "cursor")), err);
}

static int reply_variant(
    struct request *r, struct reply *p, unsigned status, const json_t *doc, struct error *err) {
    char etag[ETAG_MAX];

    etag_of(doc, view_variant_keys, etag);
    reply_header(p, "ETag", "\"%s\"", etag);
    return reply_json(p, status, view_variant(r->api, doc, false), err);
}

static int get_variant(struct request *r, struct reply *p, struct error *err) {
    json_auto_t *doc = NULL;
    char key[KEY_SIZE];
    int e = find(r, &doc, key, err);

    return e < 0 ? e : reply_variant(r, p, 200, doc, err);
}

static int get_evaluations(struct request *r, struct reply *p, struct error *err) {
    json_auto_t *doc = NULL;
    char key[KEY_SIZE], prefix[KEY_SIZE + 2];
    int e = find(r, &doc, key, err);

    if (e < 0)
        return e;
    snprintf(prefix, sizeof(prefix), "%s/", key);
    return reply_json(p, 200,
        json_pack("{s:o, s:n}", "items", store_list(r->api->store, STORE_EVALUATION, prefix), "next_cursor"),
        err);
}

static int get_report(struct request *r, struct reply *p, struct error *err) {
    json_auto_t *doc = NULL;
    char key[KEY_SIZE];
    json_t *steps;
    int e = find(r, &doc, key, err);

    if (e < 0)
        return e;
    steps = json_object_get(doc, "report");
    return reply_json(p, 200,
        json_pack("{s:O, s:O, s:O, s:o, s:O}", "variant", json_object_get(doc, "name"), "parent",
            json_object_get(doc, "parent"), "digest", json_object_get(doc, "digest"), "steps",
            steps ? json_incref(steps) : json_array(), "verdicts", json_object_get(doc, "verdicts")),
        err);
}

static int load_variant(struct request *r, struct reply *p, struct error *err) {
    json_auto_t *doc = NULL;
    uint64_t needed = 0, available = 0;
    char key[KEY_SIZE];
    int e = find(r, &doc, key, err);

    if (e == 0)
        e = residency_load(r->api->residency, key, true, &needed, &available, err);
    if (e == -ENOSPC && needed)
        return reply_details(p,
            json_pack(
                "{s:I, s:I}", "needed_bytes", (json_int_t)needed, "available_bytes", (json_int_t)available),
            e);
    return e < 0 ? e : reply_variant(r, p, 200, doc, err);
}

static int unload_variant(struct request *r, struct reply *p, struct error *err) {
    json_auto_t *doc = NULL;
    char key[KEY_SIZE];
    int e = find(r, &doc, key, err);

    if (e == 0)
        e = residency_unload(r->api->residency, key, true, err);
    return e < 0 ? e : reply_variant(r, p, 200, doc, err);
}

/* Entropy-coded by zstd, level 22 with a long window: pinned, so that sizes compare (the last stage of Deep
 * Compression). */
#define CONTAINER_LEVEL  22
#define CONTAINER_WINDOW 27
#define CONTAINER_MAX    ((uint64_t)1 << 30)

static int compress_file(int fd, uint64_t size, char **ret, size_t *ret_size, struct error *err) {
    size_t bound = ZSTD_compressBound(size), n;
    void *from = mmap(NULL, size, PROT_READ, MAP_PRIVATE, fd, 0);
    ZSTD_CCtx *ctx = ZSTD_createCCtx();
    char *to = malloc(bound);

    if (from == MAP_FAILED || !ctx || !to) {
        free(to);
        ZSTD_freeCCtx(ctx);
        if (from != MAP_FAILED)
            munmap(from, size);
        return error_oom(err);
    }
    ZSTD_CCtx_setParameter(ctx, ZSTD_c_compressionLevel, CONTAINER_LEVEL);
    ZSTD_CCtx_setParameter(ctx, ZSTD_c_windowLog, CONTAINER_WINDOW);
    ZSTD_CCtx_setParameter(ctx, ZSTD_c_enableLongDistanceMatching, 1);
    n = ZSTD_compress2(ctx, to, bound, from, size);
    ZSTD_freeCCtx(ctx);
    munmap(from, size);
    if (ZSTD_isError(n)) {
        free(to);
        return error_set(err, -EIO, "zstd: %s", ZSTD_getErrorName(n));
    }
    *ret = to;
    *ret_size = n;
    return 0;
}

/* How small it becomes is known once it has been asked for, and kept; a disk that is full is no reason to
 * refuse the download. */
static void keep_container_size(struct store *s, const char *key, const char *digest, size_t n) {
    json_auto_t *doc = NULL, *copy = NULL;

    store_lock(s);
    doc = store_get(s, STORE_VARIANT, key);
    if (doc && !strcmp(json_string_value(json_object_get(doc, "digest")), digest) &&
        !json_is_integer(json_object_get(doc, "bytes_file_compressed"))) {
        copy = json_copy(doc);
        json_object_set_new(copy, "bytes_file_compressed", json_integer((json_int_t)n));
        store_apply(s, &(struct store_change){STORE_VARIANT, key, copy}, 1, NULL);
    }
    store_unlock(s);
}

static int reply_container(
    struct request *r, struct reply *p, int fd, const char *key, const json_t *doc, struct error *err) {
    uint64_t size = (uint64_t)json_integer_value(json_object_get(doc, "bytes_file"));
    const char *digest = json_string_value(json_object_get(doc, "digest"));
    _cleanup_(closep) int file = fd;
    char etag[DIGEST_MAX + 8], *bytes = NULL;
    size_t n = 0;
    int e;

    snprintf(etag, sizeof(etag), "%s-zst", digest + 7);
    if (reply_unchanged(r, p, etag))
        return 0;
    if (size > CONTAINER_MAX)
        return error_set(err, -EFBIG, "files of more than %llu bytes are not entropy-coded",
            (unsigned long long)CONTAINER_MAX);
    e = compress_file(file, size, &bytes, &n, err);
    p->no_encoding = true;
    if (e < 0)
        return e;
    keep_container_size(r->api->store, key, digest, n);
    return reply_bytes(p, 200, "application/zstd", bytes, n);
}

/* The float network in a file that has no name any more. */
static int expand_file(struct request *r, int fd, int *ret, uint64_t *ret_size, struct error *err) {
    _cleanup_(graph_freep) struct graph *g = NULL;
    _cleanup_(closep) int out = open(store_tmp(r->api->store), O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
    struct stat st;
    int e = out < 0 ? error_errno(err, "the expanded file") : onnx_read_fd(fd, &g, err);

    if (e == 0)
        e = pass_expand(g, err);
    if (e == 0)
        e = onnx_write_fd(g, out, err);
    if (e == 0 && fstat(out, &st) < 0)
        e = error_errno(err, "the expanded file");
    if (e < 0)
        return e;
    *ret_size = (uint64_t)st.st_size;
    *ret = take_fd(&out);
    return 0;
}

static int reply_expanded(struct request *r, struct reply *p, int fd, const char *digest, struct error *err) {
    char etag[DIGEST_MAX + 8];
    uint64_t size = 0;
    int out = -1, e = expand_file(r, fd, &out, &size, err);

    close(fd);
    snprintf(etag, sizeof(etag), "%s-dense", digest + 7);
    return e < 0 ? e : reply_file(r, p, out, size, "application/octet-stream", etag, err);
}

static int get_onnx(struct request *r, struct reply *p, struct error *err) {
    json_auto_t *doc = NULL;
    const char *digest, *container = request_query(r, "container");
    char key[KEY_SIZE];
    int fd, e = find(r, &doc, key, err);
    uint64_t size;

    if (e < 0)
        return e;
    digest = json_string_value(json_object_get(doc, "digest"));
    size = (uint64_t)json_integer_value(json_object_get(doc, "bytes_file"));
    fd = store_blob_open(r->api->store, digest, err);
    if (fd < 0)
        return fd;
    reply_header(p, "Content-Disposition", "attachment; filename=\"%s~%s.onnx%s\"", request_param(r, "model"),
        json_string_value(json_object_get(doc, "name")), container ? ".zst" : "");
    if (container && request_query(r, "form")) {
        close(fd);
        return error_set(err, -EINVAL, "form and container do not go together");
    }
    if (container)
        return reply_container(r, p, fd, key, doc, err);
    if (request_query(r, "form"))
        return reply_expanded(r, p, fd, digest, err);
    return reply_file(r, p, fd, size, "application/octet-stream", digest + 7, err);
}

/* Is the alias free within the model, or this variant's own? */
static int check_alias(
    struct store *s, const char *model, const char *alias, const json_t *self, struct error *err) {
    json_auto_t *have = NULL;
    int e = name_check_variant(alias, err);

    if (e < 0 || models_variant(s, model, alias, &have, NULL) < 0)
        return e;
    if (json_equal(json_object_get(have, "number"), json_object_get(self, "number")) &&
        strcmp(json_string_value(json_object_get(self, "name")), alias) != 0)
        return 0;
    return error_code(
        err, -EEXIST, "name_taken", "'%.64s' names a variant of model '%.64s' already", alias, model);
}

static int check_patch(struct request *r, const json_t *doc, const json_t *patch, struct error *err) {
    const json_t *aliases = json_object_get(patch, "aliases"), *note = json_object_get(patch, "note");
    const json_t *pinned = json_object_get(patch, "pinned"), *policy = json_object_get(patch, "policy");
    const char *word = json_string_value(policy);
    int e = body_check_keys(patch, "aliases pinned note policy", "", err);

    if (e == 0 && aliases && !json_is_array(aliases))
        e = error_set(err, -EINVAL, "aliases is not a list of names");
    for (size_t i = 0; e == 0 && i < json_array_size(aliases); i++) {
        const char *a = json_string_value(json_array_get(aliases, i));

        e = a ? check_alias(r->api->store, request_param(r, "model"), a, doc, err)
              : error_set(err, -EINVAL, "aliases[%zu] is not a string", i);
    }
    if (e == 0 && pinned && !json_is_boolean(pinned))
        e = error_set(err, -EINVAL, "pinned is not true or false");
    if (e == 0 && note && !json_is_string(note) && !json_is_null(note))
        e = error_set(err, -EINVAL, "note is not a string");
    if (e == 0 && policy && (!word || (strcmp(word, "speed") && strcmp(word, "memory"))))
        e = error_set(err, -EINVAL, "policy is neither speed nor memory");
    return e;
}

static int patch_variant(struct request *r, struct reply *p, struct error *err) {
    json_auto_t *patch = NULL, *doc = NULL, *copy = NULL;
    char key[KEY_SIZE], etag[ETAG_MAX];
    bool has_new_policy = false;
    int e = body_json(r, false, &patch, err);

    if (e < 0)
        return e;
    store_lock(r->api->store);
    e = find(r, &doc, key, err);
    if (e == 0) {
        etag_of(doc, view_variant_keys, etag);
        e = reply_check_if_match(r, etag, err);
    }
    if (e == 0)
        e = check_patch(r, doc, patch, err);
    if (e == 0) {
        json_t *policy = json_object_get(patch, "policy");

        has_new_policy = policy && !json_equal(policy, json_object_get(doc, "policy"));
        copy = json_copy(doc);
        json_object_update(copy, patch);
        e = store_apply(r->api->store, &(struct store_change){STORE_VARIANT, key, copy}, 1, err);
    }
    store_unlock(r->api->store);
    if (e == 0 && has_new_policy) { /* packed anew */
        residency_unload(r->api->residency, key, false, NULL);
        residency_load(r->api->residency, key, false, NULL, NULL, NULL);
    }
    return e < 0 ? e : reply_variant(r, p, 200, copy, err);
}

/* Jobs that start from this variant and are not done. */
static json_t *users_of(struct request *r, const json_t *doc) {
    json_auto_t *jobs = models_users(r->api->store, request_param(r, "model"), false);
    json_t *users = json_array(), *u;
    size_t i;

    json_array_foreach(jobs, i, u) {
        json_auto_t *job = store_get(r->api->store, STORE_JOB, json_string_value(json_object_get(u, "id")));
        const char *from = json_string_value(json_object_get(json_object_get(job, "request"), "from"));

        if (from && !strcmp(from, json_string_value(json_object_get(doc, "name"))))
            json_array_append(users, u);
    }
    return users;
}

static int delete_variant(struct request *r, struct reply *p, struct error *err) {
    json_auto_t *doc = NULL;
    char key[KEY_SIZE];
    json_t *users;
    int e;

    store_lock(r->api->store);
    e = find(r, &doc, key, err);
    users = e == 0 ? users_of(r, doc) : json_array();
    if (e == 0 && json_integer_value(json_object_get(doc, "number")) == 1)
        e = error_set(err, -EBUSY, "'original' goes only with its model");
    else if (e == 0 && json_array_size(users) > 0)
        e = reply_details(
            p, json_pack("{s:O}", "users", users), error_set(err, -EBUSY, "a job starts from this variant"));
    if (e == 0)
        e = store_apply(r->api->store, &(struct store_change){STORE_VARIANT, key, NULL}, 1, err);
    if (e == 0)
        store_blob_release(r->api->store, json_string_value(json_object_get(doc, "digest")));
    store_unlock(r->api->store);
    json_decref(users);
    if (e < 0)
        return e;
    residency_forget(r->api->residency, key);
    judge_forget(r->api->judge, key);
    return reply_empty(p, 204);
}

#define VARIANT "/api/v1/models/{model}/variants/{variant}"

const struct route variants_routes[] = {
    {.method = HTTP_GET,
        .path = "/api/v1/models/{model}/variants",
        .scope = SCOPE_READ,
        .run = RUN_POOL,
        .handle = list_variants,
        .query = {{"limit", QUERY_UINT, 1, 1000, NULL, "How many (100)."},
            {"cursor", QUERY_STRING, 0, 0, NULL, "Where to go on."}},
        .id = "listVariants",
        .summary = "A model's variants, newest first.",
        .statuses = "200 404"},
    {.method = HTTP_GET,
        .path = VARIANT,
        .scope = SCOPE_READ,
        .run = RUN_POOL,
        .handle = get_variant,
        .id = "getVariant",
        .summary =
            "A variant: how it was made, its layers with form and kernel, what was measured. `decoded`: the "
            "layer's kernel cannot take the form and has its weights as floats.",
        .statuses = "200 404"},
    {.method = HTTP_GET,
        .path = VARIANT "/evaluations",
        .scope = SCOPE_READ,
        .run = RUN_POOL,
        .handle = get_evaluations,
        .id = "listEvaluations",
        .summary = "All evaluations kept of a variant.",
        .statuses = "200 404"},
    {.method = HTTP_GET,
        .path = VARIANT "/report",
        .scope = SCOPE_READ,
        .run = RUN_POOL,
        .handle = get_report,
        .id = "getReport",
        .summary = "What was done to each layer.",
        .statuses = "200 404"},
    {.method = HTTP_POST,
        .path = VARIANT "/load",
        .scope = SCOPE_COMPRESS,
        .run = RUN_POOL,
        .handle = load_variant,
        .id = "loadVariant",
        .summary = "Loads a variant into memory.",
        .statuses = "200 404 507"},
    {.method = HTTP_POST,
        .path = VARIANT "/unload",
        .scope = SCOPE_COMPRESS,
        .run = RUN_POOL,
        .handle = unload_variant,
        .id = "unloadVariant",
        .summary = "Takes a variant out of memory until it is loaded by request.",
        .statuses = "200 404"},
    {.method = HTTP_GET,
        .path = VARIANT "/onnx",
        .scope = SCOPE_READ,
        .run = RUN_POOL,
        .handle = get_onnx,
        .query = {{"container", QUERY_ENUM, 0, 0, "zst", "Entropy-coded by zstd."},
            {"form", QUERY_ENUM, 0, 0, "dense", "Expanded to the float network it stands for."}},
        .id = "getOnnx",
        .summary = "The variant's standard ONNX file.",
        .statuses = "200 206 304 404 416",
        .produces = "application/octet-stream"},
    {.method = HTTP_PATCH,
        .path = VARIANT,
        .scope = SCOPE_COMPRESS,
        .body = BODY_MEMORY,
        .limit = LIMIT_SMALL,
        .run = RUN_POOL,
        .handle = patch_variant,
        .id = "patchVariant",
        .summary = "Sets aliases, pinned, note, policy.",
        .statuses = "200 404 409 412"},
    {.method = HTTP_DELETE,
        .path = VARIANT,
        .scope = SCOPE_COMPRESS,
        .run = RUN_POOL,
        .handle = delete_variant,
        .id = "deleteVariant",
        .summary = "Removes a variant.",
        .statuses = "204 404 409"},
    {0},
};
