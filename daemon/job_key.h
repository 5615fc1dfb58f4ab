/* The Idempotency-Key that a job was asked for with: the same request sent again means the same job, also
 * after a kill. */
#ifndef DAEMON_JOB_KEY_H
#define DAEMON_JOB_KEY_H

#include "daemon/store.h"
#include "daemon/uuid.h"

#define JOB_KEY_MAX 256 /* of the client's part */

struct job_key {
    char name[JOB_KEY_MAX + 80]; /* principal/Idempotency-Key */
    char body[DIGEST_MAX];       /* digest of the body it came with */
};

/* 1: ret_id is the job made with this key; 0: there is none; negative: idempotency_key_reused. */
int job_key_find(struct store *s, const struct job_key *k, char ret_id[static UUID_MAX], struct error *err);

/* What is stored with the job, in its transaction. New reference. */
json_t *job_key_doc(const struct job_key *k, const char *id);

#endif
