#include "engine/pack.h"

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "engine/hugemem.h"

struct pack_cache {
    pthread_mutex_t mutex; /* protects what follows */
    struct pack **packs;   /* sorted by key */
    size_t n, cap;
    size_t used; /* bytes found or published since pack_take_used */
};

struct pack_cache *pack_cache_new(void) {
    struct pack_cache *c = calloc(1, sizeof(*c));

    if (c)
        pthread_mutex_init(&c->mutex, NULL);
    return c;
}

struct pack_cache *pack_cache_free(struct pack_cache *c) {
    if (!c)
        return NULL;
    for (size_t i = 0; i < c->n; i++)
        pack_drop(c->packs[i]);
    pthread_mutex_destroy(&c->mutex);
    free(c->packs);
    free(c);
    return NULL;
}

/* Index of the first pack whose key is not less; *ret_found says whether it is the key. */
static size_t pack_lower(const struct pack_cache *c, const char *key, bool *ret_found) {
    size_t low = 0, high = c->n;

    while (low < high) {
        size_t mid = low + (high - low) / 2;

        if (strcmp(c->packs[mid]->key, key) < 0)
            low = mid + 1;
        else
            high = mid;
    }
    *ret_found = low < c->n && strcmp(c->packs[low]->key, key) == 0;
    return low;
}

const struct pack *pack_find(struct pack_cache *c, const char *key) {
    const struct pack *p = NULL;
    bool found;
    size_t i;

    pthread_mutex_lock(&c->mutex);
    i = pack_lower(c, key, &found);
    if (found)
        p = c->packs[i];
    c->used += p ? p->size : 0;
    pthread_mutex_unlock(&c->mutex);
    return p;
}

int pack_new(
    const char *key, const void *meta, size_t meta_size, size_t size, struct pack **ret, struct error *err) {
    size_t key_size = strlen(key) + 1;
    struct pack *p = calloc(1, sizeof(*p));
    char *own = malloc(key_size + meta_size);

    if (p)
        p->data = hugemem_new(size);
    if (!p || !own || !p->data) {
        free(p);
        free(own);
        return error_oom(err);
    }
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
    hugemem_free(p->data, p->size);
    free((void *)(uintptr_t)(p->meta ? p->meta : p->key));
    free(p);
}

static bool pack_grow(struct pack_cache *c) {
    size_t cap = c->cap ? 2 * c->cap : 32;
    struct pack **packs;

    if (c->n < c->cap)
        return true;
    packs = realloc(c->packs, cap * sizeof(struct pack *));
    if (!packs)
        return false;
    c->packs = packs;
    c->cap = cap;
    return true;
}

const struct pack *pack_publish(struct pack_cache *c, struct pack *p) {
    const struct pack *result = NULL;
    bool found;
    size_t i;

    pthread_mutex_lock(&c->mutex);
    i = pack_lower(c, p->key, &found);
    if (found) {
        result = c->packs[i];
    } else if (pack_grow(c)) {
        memmove(c->packs + i + 1, c->packs + i, (c->n - i) * sizeof(struct pack *));
        c->packs[i] = p;
        c->n++;
        result = p;
    }
    c->used += result ? result->size : 0;
    pthread_mutex_unlock(&c->mutex);
    if (result != p)
        pack_drop(p);
    return result;
}

size_t pack_count_bytes(struct pack_cache *c) {
    size_t sum = 0;

    pthread_mutex_lock(&c->mutex);
    for (size_t i = 0; i < c->n; i++)
        sum += c->packs[i]->size;
    pthread_mutex_unlock(&c->mutex);
    return sum;
}

size_t pack_take_used(struct pack_cache *c) {
    size_t used;

    pthread_mutex_lock(&c->mutex);
    used = c->used;
    c->used = 0;
    pthread_mutex_unlock(&c->mutex);
    return used;
}
