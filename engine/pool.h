/* Our own threads: a fixed team that runs the parts of one piece of work, the caller among them. They spin
 * for some 50 us between two pieces of work and then sleep; no OpenMP. One caller at a time; a second one
 * runs all its parts itself. */
#ifndef ENGINE_POOL_H
#define ENGINE_POOL_H

#include <stdbool.h>

#include "base/cleanup.h"
#include "base/error.h"

struct pool;

/* `n_threads` counts the caller: 1 makes no thread at all. */
int pool_new(unsigned n_threads, struct pool **ret, struct error *err);
struct pool *pool_free(struct pool *p);
DEFINE_CLEANUP(struct pool *, pool_free)

unsigned pool_size(const struct pool *p);

/* From now on only as many threads work as allowed() says, the caller among them; at least the caller. It is
 * asked often, on any of them, and may change its mind at any time: who is one too many stops between two
 * parts, and who sat out comes back in the middle of the work. Before the first pool_run(). */
void pool_follow(struct pool *p, unsigned (*allowed)(void *ctx), void *ctx);

/* For long parts, to be asked now and then: true on a thread that is one too many now. The part may then
 * return unfinished, if whoever called pool_run() calls it again for the rest. Never true on the caller. */
bool pool_should_leave(struct pool *p);

/* fn(ctx, 0), …, fn(ctx, n_parts - 1), each once, on any thread; returns when all are done. `p` NULL: on the
 * calling thread. */
void pool_run(struct pool *p, unsigned n_parts, void (*fn)(void *ctx, unsigned part), void *ctx);

#endif
