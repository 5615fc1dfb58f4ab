/* Idempotency-Key on creations: for 24 h the same key and body answer with what was made then; another body
 * is 409. */
#ifndef API_IDEMPOTENCY_H
#define API_IDEMPOTENCY_H

#include "api/reply.h"
#include "api/request.h"

/* 1: the reply is filled in with the job made before; 0: go on; negative: idempotency_key_reused. */
int idempotency_find(struct request *r, struct reply *p, struct error *err);
void idempotency_keep(struct request *r, const char *job);

#endif
