/* What a request of /v2 means by its path: a model, or one variant of it. */
#ifndef API_TARGET_H
#define API_TARGET_H

#include <jansson.h>

#include "api/request.h"

#define TARGET_KEY_MAX 96

struct target {
    json_t *variant, *model;               /* documents, owned */
    const char *model_name, *variant_name; /* in them */
    int number;
    char version[12];         /* the number as text */
    char key[TARGET_KEY_MAX]; /* "model/number" */
    bool is_pinned;           /* a version or ~variant was given */
};

/* From the path's {model} and {version}. not_found. */
int target_find(const struct request *r, struct target *ret, struct error *err);
void target_done(struct target *t);

/* The target as a variant's document has it; takes the reference. */
int target_of_variant(const struct request *r, json_t *variant, struct target *ret, struct error *err);

/* True when every input's first dimension is free: requests may be batched. */
bool target_is_batched(const struct target *t);

/* A limit of the model (max_batch, queue, timeout_ms), or the option of that name when it sets none. */
unsigned target_limit(const struct api *api, const json_t *model, const char *name);

/* bad_request for a batch of more than limits.max_batch. */
int target_check_batch(
    const struct api *api, const json_t *model, const char *input, int64_t n, struct error *err);

/* Calls fn for each variant meant: of `m~v` or a version that one, of a model all; by number. Stops at the
 * first error. */
int target_each(const struct request *r,
    int (*fn)(const struct request *r, const struct target *t, void *ctx, struct error *err), void *ctx,
    struct error *err);

#endif
