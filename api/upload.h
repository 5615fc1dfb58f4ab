/* A body on its way to disk: two blocks, one being filled by the loop while the other is written and hashed
 * on a pool thread; when both are full the connection waits. All functions on the loop thread. */
#ifndef API_UPLOAD_H
#define API_UPLOAD_H

#include <stdint.h>
#include <uv.h>

#include "api/request.h"

struct upload;

/* `dir`: folder of the temporary file. `wake` is called on the loop when a push can go on, or when
 * upload_finish() is through. */
int upload_new(uv_loop_t *loop, const char *dir, void (*wake)(void *ctx), void *ctx, struct upload **ret,
    struct error *err);

/* Bytes taken; less than `size`: wait for `wake` and push the rest. Once writing has failed all is taken. */
size_t upload_push(struct upload *u, const void *data, size_t size);

/* Writes what is left. */
void upload_finish(struct upload *u);

/* True when nothing is under way: after upload_finish() the result is there. */
bool upload_is_idle(const struct upload *u);

/* Moves the file out. Errors: disk_budget when the disk is full. */
int upload_take(struct upload *u, struct body_file *ret, struct error *err);

/* Also in the middle: what is under way ends first; no wake comes any more. Always NULL. */
struct upload *upload_free(struct upload *u);

#endif
