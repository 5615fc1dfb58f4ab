#include "api/idempotency.h"

#include <errno.h>
#include <openssl/evp.h>
#include <stdio.h>
#include <string.h>

int idempotency_key(const struct request *r, struct job_key *ret, struct error *err) {
    const char *key = request_header(r, "Idempotency-Key");
    uint8_t sha256[32];

    if (!key || !*key)
        return 0;
    if (strlen(key) > JOB_KEY_MAX)
        return error_set(err, -EINVAL, "Idempotency-Key has more than %d bytes", JOB_KEY_MAX);
    if (!EVP_Digest(r->body ? r->body : "", r->body_size, sha256, NULL, EVP_sha256(), NULL))
        return error_set(err, -EIO, "the body could not be digested");
    snprintf(ret->name, sizeof(ret->name), "%s/%s", r->principal, key);
    digest_text(sha256, ret->body);
    return 1;
}
