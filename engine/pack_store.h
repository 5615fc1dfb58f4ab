/* The bytes of packs, each once for all nets that share a store: variants of a model that differ in few
 * layers have the packed weights of all others in common. Equal is equal byte by byte; a hash of samples
 * finds candidates.
 *
 * Safe from any thread. Whoever gave bytes into the store does not write to them any more. */
#ifndef ENGINE_PACK_STORE_H
#define ENGINE_PACK_STORE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct pack_store;

struct pack_bytes {
    void *data; /* aligned to 64 bytes; on huge pages where big */
    size_t size;

    /* the store's */
    struct pack_store *store; /* NULL: not in one */
    struct pack_bytes *next;
    uint64_t hash;
    unsigned refs;
    unsigned counted; /* references met by the count that runs */
    uint64_t tally;   /* the last one it was counted in */
};

/* Counted: freed with its last holder. NULL: out of memory. */
struct pack_store *pack_store_new(void);
struct pack_store *pack_store_ref(struct pack_store *s);
struct pack_store *pack_store_unref(struct pack_store *s);

/* `size` zeroed bytes of the caller's own; NULL: out of memory. */
struct pack_bytes *pack_bytes_new(size_t size);

/* Takes `b` and gives a reference to bytes equal to it: `b` itself, or what another net has already. */
struct pack_bytes *pack_bytes_share(struct pack_store *s, struct pack_bytes *b);

/* Gives a reference back, or bytes that were never shared. */
void pack_bytes_drop(struct pack_bytes *b);

struct pack; /* pack.h */

/* What the packs of one net come to, each bytes once: those no other net has, and the others. `first`: a list
 * by next_in_net. */
struct pack_count {
    size_t own, shared;
};
struct pack_count pack_bytes_count(struct pack_store *s, const struct pack *first);

/* Several nets together: a new number, then of each the bytes that none before it had. */
uint64_t pack_store_new_tally(struct pack_store *s);
size_t pack_bytes_tally(struct pack_store *s, const struct pack *first, uint64_t tally);

#endif
