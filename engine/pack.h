/* Packed weights of one net: made by the first plan that needs them, kept until the net goes, used by every
 * later plan. Where another net with the same store has the same bytes, they are there once (pack_store.h).
 * What a pack looks like (blocked layout, sums of columns, …) is its maker's business: `meta` holds the
 * description. That the first plan fixes the layout and the later ones take it is what makes a batch give the
 * answers of single images.
 *
 * Safe from any thread; a pack is immutable once published. */
#ifndef ENGINE_PACK_H
#define ENGINE_PACK_H

#include <stddef.h>

#include "base/error.h"
#include "engine/pack_store.h"

struct pack_cache;

struct pack {
    const char *key;
    const void *meta;
    size_t meta_size;
    void *data; /* aligned to 64 bytes; on huge pages where big */
    size_t size;

    /* the cache's */
    struct pack *next, *next_in_net;
    struct pack_bytes *bytes;
};

/* `store` is held as long as the cache; NULL: one of its own. */
struct pack_cache *pack_cache_new(struct pack_store *store);
struct pack_cache *pack_cache_free(struct pack_cache *c);

/* NULL: not there. The key names kernel, node and whatever else decides the bytes:
 * "conv_f32_onednn/conv1/w". */
const struct pack *pack_find(struct pack_cache *c, const char *key);

/* A new pack with `size` zeroed bytes and a copy of `meta`, for the caller to fill and then publish. */
int pack_new(
    const char *key, const void *meta, size_t meta_size, size_t size, struct pack **ret, struct error *err);
void pack_drop(struct pack *p); /* of one never published */

/* Takes `p`; when another thread was first, `p` is dropped and the other's returned. Nobody writes to the
 * bytes from here on, and they may lie elsewhere: p->data of before is gone. Cannot fail. */
const struct pack *pack_publish(struct pack_cache *c, struct pack *p);

struct pack_count pack_count_bytes(struct pack_cache *c);

/* Of several nets together (pack_store.h). */
size_t pack_tally_bytes(struct pack_cache *c, uint64_t tally);

/* Bytes of the packs this thread found or published since its last call: what one kernel's prepare used. */
size_t pack_take_used(void);

#endif
