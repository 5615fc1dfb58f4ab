#include "engine/pack.h"

#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/fnv.h"

#define N_BUCKETS 256

struct pack_cache {
    struct pack_store *store;
    pthread_mutex_t mutex; /* protects what follows, and the links of every pack */
    struct pack *bucket[N_BUCKETS];
    struct pack *first; /* all, by next_in_net */
};

static _Thread_local size_t used; /* bytes this thread found or published since pack_take_used */

struct pack_cache *pack_cache_new(struct pack_store *store) {
    struct pack_cache *c = calloc(1, sizeof(*c));

    if (!c)
        return NULL;
    c->store = store ? pack_store_ref(store) : pack_store_new();
    if (!c->store) {
        free(c);
        return NULL;
    }
    pthread_mutex_init(&c->mutex, NULL);
    return c;
}

struct pack_cache *pack_cache_free(struct pack_cache *c) {
    if (!c)
        return NULL;
    while (c->first) {
        struct pack *p = c->first;

        c->first = p->next_in_net;
        pack_drop(p);
    }
    pthread_mutex_destroy(&c->mutex);
    pack_store_unref(c->store);
    free(c);
    return NULL;
}

static size_t bucket_of(const char *key) {
    return fnv_text(FNV_START, key) % N_BUCKETS;
}

static struct pack *find_locked(struct pack_cache *c, const char *key) {
    struct pack *p = c->bucket[bucket_of(key)];

    while (p && strcmp(p->key, key) != 0)
        p = p->next;
    if (p)
        used += p->size;
    return p;
}

const struct pack *pack_find(struct pack_cache *c, const char *key) {
    const struct pack *p;

    pthread_mutex_lock(&c->mutex);
    p = find_locked(c, key);
    pthread_mutex_unlock(&c->mutex);
    return p;
}

int pack_new(
    const char *key, const void *meta, size_t meta_size, size_t size, struct pack **ret, struct error *err) {
    size_t key_size = strlen(key) + 1;
    struct pack *p = calloc(1, sizeof(*p));
    char *own = malloc(key_size + meta_size);

    if (p)
        p->bytes = pack_bytes_new(size);
    if (!p || !own || !p->bytes) {
        if (p)
            pack_bytes_drop(p->bytes);
        free(p);
        free(own);
        return error_oom(err);
    }
    p->data = p->bytes->data;
    /* the description first: it is aligned then */
    if (meta_size)
        memcpy(own, meta, meta_size);
    memcpy(own + meta_size, key, key_size);
    p->key = own + meta_size;
    p->meta = meta_size ? own : NULL;
    p->meta_size = meta_size;
    p->size = size;
    *ret = p;
    return 0;
}

void pack_drop(struct pack *p) {
    if (!p)
        return;
    pack_bytes_drop(p->bytes);
    free((void *)(uintptr_t)(p->meta ? p->meta : p->key));
    free(p);
}

const struct pack *pack_publish(struct pack_cache *c, struct pack *p) {
    struct pack *result;

    p->bytes = pack_bytes_share(c->store, p->bytes);
    p->data = p->bytes->data;
    pthread_mutex_lock(&c->mutex);
    result = find_locked(c, p->key);
    if (!result) {
        struct pack **bucket = &c->bucket[bucket_of(p->key)];

        p->next = *bucket;
        *bucket = p;
        p->next_in_net = c->first;
        c->first = p;
        used += p->size;
        result = p;
    }
    pthread_mutex_unlock(&c->mutex);
    if (result != p)
        pack_drop(p);
    return result;
}

/* Packs stay until the net goes: only the list's head is another's to change. */
static const struct pack *first_of(struct pack_cache *c) {
    const struct pack *first;

    pthread_mutex_lock(&c->mutex);
    first = c->first;
    pthread_mutex_unlock(&c->mutex);
    return first;
}

struct pack_count pack_count_bytes(struct pack_cache *c) {
    return pack_bytes_count(c->store, first_of(c));
}

size_t pack_tally_bytes(struct pack_cache *c, uint64_t tally) {
    return pack_bytes_tally(c->store, first_of(c), tally);
}

size_t pack_take_used(void) {
    size_t bytes = used;

    used = 0;
    return bytes;
}
