/* Data sets: /api/v1/datasets. An archive is on disk when its handler runs; a worker makes the pack, which is
 * kept by its digest; the archive goes.
 *
 * dataset {"name","created","digest" (of the
 * archive),"pack","bytes","count","classes","shape","splits":{S:{"count",
 *          "classes":{name:n}}},"divided":bool} */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "api/dataset_item.h"
#include "api/routes.h"
#include "api/upload_path.h"
#include "api/view.h"
#include "base/cleanup.h"
#include "daemon/jobs.h"
#include "daemon/models.h"
#include "daemon/uuid.h"

static json_t *view_dataset(const json_t *doc) {
    json_t *copy = json_copy((json_t *)(uintptr_t)doc);

    json_object_del(copy, "pack");
    return copy;
}

static int find(const struct request *r, json_t **ret, struct error *err) {
    const char *name = request_param(r, "dataset");

    *ret = store_get(r->api->store, STORE_DATASET, name);
    return *ret ? 0 : error_set(err, -ENOENT, "there is no data set '%.64s'", name);
}

/* Unfinished jobs that use it: [{"kind","id"}]. */
static json_t *users_of(struct request *r, const char *name) {
    json_auto_t *jobs = store_list(r->api->store, STORE_JOB, NULL);
    json_t *users = json_array(), *j;
    size_t i;

    json_array_foreach(jobs, i, j) {
        const char *d = json_string_value(json_object_get(json_object_get(j, "request"), "dataset"));
        const char *state = json_string_value(json_object_get(j, "state"));

        if (d && !strcmp(d, name) && strcmp(state, "succeeded") && strcmp(state, "failed") &&
            strcmp(state, "cancelled"))
            json_array_append_new(
                users, json_pack("{s:s, s:O}", "kind", "job", "id", json_object_get(j, "id")));
    }
    return users;
}

static int refuse_in_use(struct request *r, struct reply *p, const char *name, struct error *err) {
    json_t *users = users_of(r, name);

    if (json_array_size(users) == 0) {
        json_decref(users);
        return 0;
    }
    return reply_details(p, json_pack("{s:o}", "users", users),
        error_set(err, -EBUSY, "an unfinished job uses data set '%.64s'", name));
}

static int check_put(struct request *r, struct reply *p, struct error *err) {
    const char *name = request_param(r, "dataset"), *split = request_query(r, "split");
    int e = name_check(name, "data set", err);

    if (e == 0 && split)
        e = name_check(split, "split", err);
    return e < 0 ? e : upload_check_disk(r, p, err);
}

/* Runs the worker; the pack stands at `pack` afterwards. */
static int import(struct request *r, const json_t *have, const char *input, const char *pack, json_t **ret,
    struct error *err) {
    const char *format = request_query(r, "format"), *split = request_query(r, "split");
    const struct api_limits *l = &r->api->limits;
    char old[4096];
    json_t *request = json_pack("{s:s, s:s, s:s, s:s?, s:s?, s:{s:I, s:I}}", "kind", "dataset", "input",
        input, "output", pack, "format", format, "split", split, "limits", "expanded_bytes",
        (json_int_t)l->dataset_bytes, "members", (json_int_t)l->dataset_members);
    int e;

    if (!request)
        return error_oom(err);
    if (have && split) {
        store_blob_path(r->api->store, json_string_value(json_object_get(have, "pack")), old, sizeof(old));
        json_object_set_new(request, "old_pack", json_string(old));
    }
    e = jobs_import_dataset(r->api->jobs, request, ret, err);
    json_decref(request);
    return e;
}

/* What the worker's time may have changed: another's upload of that name, a job that reads the old pack. */
static int check_still(
    struct request *r, struct reply *p, const json_t *have, const char *name, struct error *err) {
    json_auto_t *now = store_get(r->api->store, STORE_DATASET, name);

    if (now ? !have || !json_equal(now, have) : have != NULL)
        return error_set(err, -EEXIST, "the data set '%.64s' was changed by another upload meanwhile", name);
    return have ? refuse_in_use(r, p, name, err) : 0;
}

static int keep(struct request *r, struct reply *p, const json_t *have, const char *digest,
    const char *pack_path, json_t *doc, struct error *err) {
    const char *name = request_param(r, "dataset");
    char pack[DIGEST_MAX], now[TIME_TEXT_MAX];
    uint64_t bytes;
    int e;

    time_text(now);
    store_lock(r->api->store);
    e = check_still(r, p, have, name, err);
    if (e == 0)
        e = store_blob_keep_path(r->api->store, pack_path, pack, &bytes, err);
    if (e == 0) {
        json_object_set_new(doc, "name", json_string(name));
        json_object_set_new(doc, "created", json_string(now));
        json_object_set_new(doc, "digest", json_string(digest));
        json_object_set_new(doc, "pack", json_string(pack));
        json_object_set_new(doc, "bytes", json_integer((json_int_t)bytes));
        e = store_apply(r->api->store, &(struct store_change){STORE_DATASET, name, doc}, 1, err);
        if (e < 0)
            store_blob_release(r->api->store, pack);
    }
    if (e == 0 && have)
        store_blob_release(r->api->store, json_string_value(json_object_get(have, "pack")));
    store_unlock(r->api->store);
    return e;
}

static int put_with(
    struct request *r, struct reply *p, const json_t *have, const char *input, struct error *err) {
    char digest[DIGEST_MAX], pack[4096], id[UUID_MAX];
    json_t *doc = NULL;
    int e;

    digest_text(r->file.sha256, digest);
    uuid_v7(id);
    snprintf(pack, sizeof(pack), "%s/pack-%s", store_tmp(r->api->store), id);
    e = import(r, have, input, pack, &doc, err);
    if (e == 0)
        e = keep(r, p, have, digest, pack, doc, err);
    unlink(pack);
    if (e < 0) {
        json_decref(doc);
        return e;
    }
    reply_header(p, "Location", "/api/v1/datasets/%s", request_param(r, "dataset"));
    e = reply_json(p, have ? 200 : 201, view_dataset(doc), err);
    json_decref(doc);
    return e;
}

static int put_dataset(struct request *r, struct reply *p, struct error *err) {
    const char *name = request_param(r, "dataset"), *split = request_query(r, "split");
    json_auto_t *have = store_get(r->api->store, STORE_DATASET, name);
    char digest[DIGEST_MAX], input[4096];
    int e;

    digest_text(r->file.sha256, digest);
    if (have && !split && !strcmp(json_string_value(json_object_get(have, "digest")), digest))
        return reply_json(p, 200, view_dataset(have), err);
    if (have && !split && !request_query_bool(r, "replace", false))
        return error_set(
            err, -EEXIST, "there is a data set '%.64s' with other content; ?replace=true replaces it", name);
    e = have ? refuse_in_use(r, p, name, err) : 0;
    if (e == 0)
        e = upload_path(r, "data", input, sizeof(input), err);
    if (e < 0)
        return e;
    e = put_with(r, p, have, input, err);
    unlink(input);
    return e;
}

static int list_datasets(struct request *r, struct reply *p, struct error *err) {
    json_auto_t *all = view_newest_first(store_list(r->api->store, STORE_DATASET, NULL));
    json_t *views = json_array();

    for (size_t i = 0; i < json_array_size(all); i++)
        json_array_append_new(views, view_dataset(json_array_get(all, i)));
    return reply_json(p, 200,
        view_page(views, "name", request_query_uint(r, "limit", 100), request_query(r, "cursor")), err);
}

static int get_dataset(struct request *r, struct reply *p, struct error *err) {
    json_auto_t *doc = NULL;
    int e = find(r, &doc, err);

    return e < 0 ? e : reply_json(p, 200, view_dataset(doc), err);
}

static int get_item(struct request *r, struct reply *p, struct error *err) {
    json_auto_t *doc = NULL;
    const char *index = request_param(r, "index"), *split = request_query(r, "split");
    char *end;
    long long i = strtoll(index, &end, 10);
    _cleanup_(closep) int fd = -1;
    int e = find(r, &doc, err);

    if (e < 0)
        return e;
    if (*end || !*index || i < 0)
        return error_set(err, -EINVAL, "'%.32s' is not the number of an item", index);
    fd = store_blob_open(r->api->store, json_string_value(json_object_get(doc, "pack")), err);
    return fd < 0 ? fd : dataset_item_reply(fd, split, (uint64_t)i, p, err);
}

static int delete_dataset(struct request *r, struct reply *p, struct error *err) {
    const char *name = request_param(r, "dataset");
    json_auto_t *doc = NULL;
    int e;

    store_lock(r->api->store);
    e = find(r, &doc, err);
    if (e == 0)
        e = refuse_in_use(r, p, name, err);
    if (e == 0)
        e = store_apply(r->api->store, &(struct store_change){STORE_DATASET, name, NULL}, 1, err);
    if (e == 0)
        store_blob_release(r->api->store, json_string_value(json_object_get(doc, "pack")));
    store_unlock(r->api->store);
    return e < 0 ? e : reply_empty(p, 204);
}

const struct route datasets_routes[] = {
    {.method = HTTP_GET,
        .path = "/api/v1/datasets",
        .scope = SCOPE_READ,
        .run = RUN_POOL,
        .handle = list_datasets,
        .query = {{"limit", QUERY_UINT, 1, 1000, NULL, "How many (100)."},
            {"cursor", QUERY_STRING, 0, 0, NULL, "Where to go on."}},
        .id = "listDatasets",
        .summary = "All data sets.",
        .statuses = "200"},
    {.method = HTTP_PUT,
        .path = "/api/v1/datasets/{dataset}",
        .scope = SCOPE_UPLOAD,
        .body = BODY_DISK,
        .limit = LIMIT_DATASET,
        .run = RUN_POOL,
        .is_upload = true,
        .check = check_put,
        .handle = put_dataset,
        .query = {{"format", QUERY_ENUM, 0, 0, "folders|npz|idx",
                      "The kind, when it should not be detected."},
            {"split", QUERY_NAME, 0, 0, NULL, "Adds or replaces this split only."},
            {"replace", QUERY_BOOL, 0, 0, NULL, "Other content takes the place of what is there."}},
        .id = "putDataset",
        .summary = "Uploads a data set: an archive of class folders, an npz, or IDX files.",
        .statuses = "200 201 409 413 422 507",
        .consumes = "application/octet-stream"},
    {.method = HTTP_GET,
        .path = "/api/v1/datasets/{dataset}",
        .scope = SCOPE_READ,
        .run = RUN_POOL,
        .handle = get_dataset,
        .id = "getDataset",
        .summary = "A data set with its class histogram per split.",
        .statuses = "200 404"},
    {.method = HTTP_GET,
        .path = "/api/v1/datasets/{dataset}/items/{index}",
        .scope = SCOPE_READ,
        .run = RUN_POOL,
        .handle = get_item,
        .query = {{"split", QUERY_NAME, 0, 0, NULL, "Of this split; the first without it."}},
        .id = "getDatasetItem",
        .summary = "One item as PNG, its label in Bonsai-Label.",
        .statuses = "200 404",
        .produces = "image/png"},
    {.method = HTTP_DELETE,
        .path = "/api/v1/datasets/{dataset}",
        .scope = SCOPE_UPLOAD,
        .run = RUN_POOL,
        .handle = delete_dataset,
        .id = "deleteDataset",
        .summary = "Removes a data set.",
        .statuses = "204 404 409"},
    {0},
};
