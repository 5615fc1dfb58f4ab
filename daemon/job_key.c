#include "daemon/job_key.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

int job_key_find(struct store *s, const struct job_key *k, char ret_id[static UUID_MAX], struct error *err) {
    json_auto_t *doc = store_get(s, STORE_IDEMPOTENCY, k->name), *job = NULL;
    const char *id = json_string_value(json_object_get(doc, "job"));

    if (!id || json_integer_value(json_object_get(doc, "at")) + STORE_KEY_SECONDS < (json_int_t)time(NULL))
        return 0;
    if (strcmp(k->body, json_string_value(json_object_get(doc, "body"))) != 0)
        return error_code(
            err, -EEXIST, "idempotency_key_reused", "this Idempotency-Key came with another body before");
    job = store_get(s, STORE_JOB, id);
    if (!job) /* deleted since */
        return 0;
    snprintf(ret_id, UUID_MAX, "%s", id);
    return 1;
}

json_t *job_key_doc(const struct job_key *k, const char *id) {
    return json_pack("{s:s, s:s, s:I}", "job", id, "body", k->body, "at", (json_int_t)time(NULL));
}
