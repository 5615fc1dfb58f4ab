/* What the API shows of models and variants: their documents with what is only known now (state, memory,
 * kernels). */
#ifndef API_VIEW_H
#define API_VIEW_H

#include <jansson.h>

#include "api/api.h"
#include "api/reply.h"
#include "api/request.h"

/* All return new references, NULL: out of memory. Rows of lists leave the long members out. */
json_t *view_model(struct api *api, const json_t *model, bool is_row);
json_t *view_variant(struct api *api, const json_t *variant, bool is_row);

/* The documents by their "created", newest first: a new array for `all`, which is taken. */
json_t *view_newest_first(json_t *all);

/* {"items":[…],"next_cursor":…} of `all` (new array, taken), newest first as it is; `key` is the member that
 * cursors name. `limit` and `cursor` from the query. */
json_t *view_page(json_t *all, const char *key, size_t limit, const char *cursor);

/* A document that changes seldom, with an ETag over all of it. */
int view_tagged(struct request *r, struct reply *p, const json_t *doc, struct error *err);

extern const char *const view_model_keys[]; /* what clients can set: for ETags */
extern const char *const view_variant_keys[];

#endif
