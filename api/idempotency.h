/* Idempotency-Key on the creation of jobs: for 24 h the same key and body mean the job made then; another
 * body is 409. */
#ifndef API_IDEMPOTENCY_H
#define API_IDEMPOTENCY_H

#include "api/request.h"
#include "daemon/job_key.h"

/* 1: *ret is the request's key; 0: it has none; negative: it cannot be one. */
int idempotency_key(const struct request *r, struct job_key *ret, struct error *err);

#endif
