/* JSON bodies of our own requests. */
#ifndef API_BODY_H
#define API_BODY_H

#include <jansson.h>

#include "api/request.h"

/* The body as a JSON object, without duplicate keys, nested at most limits.json_depth deep. An empty body is
 * {} when `may_be_empty`. New reference. Errors: bad_json. */
int body_json(const struct request *r, bool may_be_empty, json_t **ret, struct error *err);

/* unknown_field with its JSON path for a key not in `keys` ("a b c"). `path`: of the object, "" for the root.
 */
int body_check_keys(const json_t *object, const char *keys, const char *path, struct error *err);

#endif
