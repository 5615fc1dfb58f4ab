/* Our own threads: a fixed team that runs the parts of one piece of work, the caller among them. They spin
 * for some 50 us between two pieces of work and then sleep; no OpenMP. One caller at a time; a second one
 * runs all its parts itself. */
#ifndef ENGINE_POOL_H
#define ENGINE_POOL_H

#include "base/cleanup.h"
#include "base/error.h"

struct pool;

/* `n_threads` counts the caller: 1 makes no thread at all. */
int pool_new(unsigned n_threads, struct pool **ret, struct error *err);
struct pool *pool_free(struct pool *p);
DEFINE_CLEANUP(struct pool *, pool_free)

unsigned pool_size(const struct pool *p);

/* fn(ctx, 0), …, fn(ctx, n_parts - 1), each once, on any thread; returns when all are done. `p` NULL: on the
 * calling thread. */
void pool_run(struct pool *p, unsigned n_parts, void (*fn)(void *ctx, unsigned part), void *ctx);

#endif
