#include "api/idempotency.h"

#include <errno.h>
#include <openssl/evp.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "api/api.h"
#include "daemon/jobs.h"
#include "daemon/store.h"

#define KEPT_SECONDS (24 * 3600)
#define KEY_MAX      256

static bool key_of(const struct request *r, char ret[static KEY_MAX + 80]) {
    const char *key = request_header(r, "Idempotency-Key");

    if (!key || !*key || strlen(key) > KEY_MAX)
        return false;
    snprintf(ret, KEY_MAX + 80, "%s/%s", r->principal, key);
    return true;
}

static void body_digest(const struct request *r, char ret[static DIGEST_MAX]) {
    uint8_t sha256[32] = {0};

    EVP_Digest(r->body ? r->body : "", r->body_size, sha256, NULL, EVP_sha256(), NULL);
    digest_text(sha256, ret);
}

int idempotency_find(struct request *r, struct reply *p, struct error *err) {
    char key[KEY_MAX + 80], digest[DIGEST_MAX];
    json_t *doc, *job;
    int e = 0;

    if (!key_of(r, key))
        return 0;
    doc = store_get(r->api->store, STORE_IDEMPOTENCY, key);
    if (!doc || json_integer_value(json_object_get(doc, "at")) + KEPT_SECONDS < (json_int_t)time(NULL)) {
        json_decref(doc);
        return 0;
    }
    body_digest(r, digest);
    job = jobs_get(r->api->jobs, json_string_value(json_object_get(doc, "job")));
    if (strcmp(digest, json_string_value(json_object_get(doc, "body"))) != 0)
        e = error_code(
            err, -EEXIST, "idempotency_key_reused", "this Idempotency-Key came with another body before");
    else if (job) {
        reply_header(p, "Location", "/api/v1/jobs/%s", json_string_value(json_object_get(job, "id")));
        e = reply_json(p, 202, json_incref(job), err);
        e = e < 0 ? e : 1;
    }
    json_decref(job);
    json_decref(doc);
    return e;
}

void idempotency_keep(struct request *r, const char *job) {
    char key[KEY_MAX + 80], digest[DIGEST_MAX];
    json_t *doc;

    if (!key_of(r, key))
        return;
    body_digest(r, digest);
    doc = json_pack("{s:s, s:s, s:I}", "job", job, "body", digest, "at", (json_int_t)time(NULL));
    store_apply(r->api->store, &(struct store_change){STORE_IDEMPOTENCY, key, doc}, 1, NULL);
    json_decref(doc);
}
