/* Which variants are in memory. A resident is a loaded net: immutable, counted, shared by all who run it;
 * unloading takes it out of the table and the memory goes with the last reference. All functions block for
 * loading at most: call them from pool or slot threads, never from the loop (residency_get, _state and _count
 * excepted). */
#ifndef DAEMON_RESIDENCY_H
#define DAEMON_RESIDENCY_H

#include <jansson.h>
#include <stdint.h>

#include "base/cleanup.h"
#include "base/error.h"
#include "engine/net.h"

struct residency;
struct store;

enum variant_state { VARIANT_UNLOADED, VARIANT_LOADING, VARIANT_READY, VARIANT_FAILED };
const char *variant_state_name(enum variant_state s);

struct resident {
    char *model, *variant; /* names when it was loaded */
    int number;
    unsigned threads; /* of a run on a slot */
    char *key;        /* "model/number" */
    struct net *net;
    size_t bytes; /* counted: packed weights that no other has, plans, touched pages, arenas of all slots */
    struct resident_usage *usage;
};

struct resident *resident_ref(struct resident *r);
struct resident *resident_unref(struct resident *r);
DEFINE_CLEANUP(struct resident *, resident_unref)

struct residency_options {
    uint64_t budget;     /* bytes of all together */
    unsigned slots;      /* how many arenas each variant costs */
    unsigned threads;    /* of a run on a slot */
    struct tuner *tuner; /* as net_options.tuner */
};
int residency_new(
    struct store *s, const struct residency_options *o, struct residency **ret, struct error *err);
struct residency *residency_free(struct residency *r);

/* Called whenever a network was taken out, so that what it ran in can go too; under the residency's lock: it
 * must not come back here. NULL: nobody. */
void residency_on_unload(struct residency *r, void (*unloaded)(void *ctx), void *ctx);

/* Says how many threads may load just now (net_options.spare_threads); also under the residency's lock. NULL,
 * as at first: one. */
void residency_on_load(struct residency *r, unsigned (*spare_threads)(void *ctx), void *ctx);

/* A counted reference when it is ready. Loads on demand what was evicted (blocks); not_loaded when it was
 * unloaded by request, loading while another thread loads it and `may_wait` is false. */
int residency_acquire(
    struct residency *r, const char *key, bool may_wait, struct resident **ret, struct error *err);

/* As acquire but never loads: NULL unless ready. Any thread. */
struct resident *residency_get(struct residency *r, const char *key);

/* Loads (evicting others by the rules of api.md section 1): 0 when ready, memory_budget with needed and
 * available bytes in the two pointers (may be NULL). `is_request`: clears "unloaded by request". */
int residency_load(struct residency *r, const char *key, bool is_request, uint64_t *ret_needed,
    uint64_t *ret_available, struct error *err);
/* Takes it out; with `is_request` it stays out until it is loaded by request. Memory goes back to the system.
 */
int residency_unload(struct residency *r, const char *key, bool is_request, struct error *err);
/* Forgets a deleted variant. */
void residency_forget(struct residency *r, const char *key);

/* After a restart: loads what the store says was loaded, one after the other; call on a thread of its own. */
void residency_restore(struct residency *r);

/* State, counted bytes (0 unless ready) and why it failed ("" otherwise). Any thread. */
#define RESIDENCY_REASON_MAX 256
enum variant_state residency_state(
    struct residency *r, const char *key, uint64_t *ret_bytes, char reason[static RESIDENCY_REASON_MAX]);
/* Packed weights that a variant of the model has in common with any other one in memory, each once. */
uint64_t residency_shared(struct residency *r, const char *model);
/* The ready one whose key comes next after `key` ("": the first), counted; NULL: there is none. */
struct resident *residency_next(struct residency *r, const char *key);
bool residency_is_loading(struct residency *r);

void residency_count(struct residency *r, uint64_t *ret_used, uint64_t *ret_budget);

#endif
