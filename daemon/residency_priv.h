/* What residency's files share: the table (residency.c), what counts against the budget (residency_room.c)
 * and loading (residency_load.c). Functions named _locked want the lock held. */
#ifndef DAEMON_RESIDENCY_PRIV_H
#define DAEMON_RESIDENCY_PRIV_H

#include <jansson.h>
#include <pthread.h>
#include <stdatomic.h>

#include "daemon/residency.h"
#include "daemon/store.h"
#include "engine/pack_store.h"

/* What the table knows of a variant, loaded or not. */
struct entry {
    struct entry *next;
    enum variant_state state;
    struct resident *resident; /* one reference while READY */
    uint64_t used_ns;          /* last acquire */
    char reason[RESIDENCY_REASON_MAX];
    char key[];
};

struct residency {
    struct store *store;
    struct residency_options options;
    struct cpu cpu;
    struct pack_store *packs; /* of all nets */
    pthread_mutex_t lock;     /* protects the entries; never held while loading */
    pthread_cond_t changed;
    struct entry *first;
    atomic_size_t max_arena; /* what a slot may take for a run at a size that was not seen before */
    void (*unloaded)(void *ctx);
    void *unloaded_ctx;
    unsigned (*spare_threads)(void *ctx);
    void *spare_ctx;
};

struct resident_usage {
    _Atomic unsigned refs;
    struct resident *next; /* of those taken out of the table, to be let go outside the lock */
};

/* ---- residency.c ---- */

/* Waits while another thread loads it. Returns the entry in any other state, the lock held; NULL: out of
 * memory, the lock held as well. */
struct entry *residency_wait_settled(struct residency *r, const char *key);

/* Writes to the store whether it is unloaded by request. */
int residency_mark_unloaded(struct residency *r, const char *key, bool is_unloaded, struct error *err);

/* Drops the table's references of a list of what was taken out of it, outside the lock. */
void residency_let_go(struct residency *r, struct resident *gone);

/* ---- residency_room.c ---- */

/* With the arenas of all slots. */
size_t residency_net_bytes(struct net *n, unsigned slots);

/* Of all in the table, and of `net`, which is not in it yet (may be NULL). */
uint64_t residency_used_locked(const struct residency *r, struct net *net);

/* Leaves each slot what of the budget is not weights and plans. */
void residency_limit_arenas_locked(struct residency *r);

/* Evicts the least recently used first, only if that is enough; nothing changes otherwise. They go to *gone:
 * freeing many megabytes under the lock would hold up the requests that look for others. */
bool residency_make_room_locked(
    struct residency *r, struct net *net, bool may_evict, uint64_t *ret_available, struct resident **gone);

#endif
