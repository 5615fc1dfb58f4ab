#include "engine/pack_store.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "engine/hugemem.h"
#include "engine/pack.h"

#define N_BUCKETS    1024
#define SAMPLE       ((size_t)64) /* hashed out of every STRIDE bytes: candidates are compared anyway */
#define STRIDE       ((size_t)1024)
#define SAMPLED_FROM ((size_t)64 << 10)

struct pack_store {
    atomic_uint refs;
    pthread_mutex_t mutex; /* protects the buckets and all of struct pack_bytes but data and size */
    struct pack_bytes *bucket[N_BUCKETS];
    uint64_t tally;
};

struct pack_store *pack_store_new(void) {
    struct pack_store *s = calloc(1, sizeof(*s));

    if (!s)
        return NULL;
    atomic_init(&s->refs, 1);
    pthread_mutex_init(&s->mutex, NULL);
    return s;
}

struct pack_store *pack_store_ref(struct pack_store *s) {
    atomic_fetch_add(&s->refs, 1);
    return s;
}

struct pack_store *pack_store_unref(struct pack_store *s) {
    if (!s || atomic_fetch_sub(&s->refs, 1) > 1)
        return NULL;
    pthread_mutex_destroy(&s->mutex);
    free(s);
    return NULL;
}

struct pack_bytes *pack_bytes_new(size_t size) {
    struct pack_bytes *b = calloc(1, sizeof(*b));

    if (!b)
        return NULL;
    b->size = size;
    b->data = hugemem_new(size);
    if (!b->data) {
        free(b);
        return NULL;
    }
    return b;
}

static void bytes_free(struct pack_bytes *b) {
    hugemem_free(b->data, b->size);
    free(b);
}

static uint64_t mix(uint64_t h, const uint8_t *p, size_t n) {
    for (size_t i = 0; i + 8 <= n; i += 8) {
        uint64_t v;

        memcpy(&v, p + i, 8);
        h = (h ^ v) * 0x9e3779b97f4a7c15u;
        h ^= h >> 32;
    }
    for (size_t i = n / 8 * 8; i < n; i++)
        h = (h ^ p[i]) * 0x9e3779b97f4a7c15u;
    return h;
}

static uint64_t hash_of(const struct pack_bytes *b) {
    const uint8_t *p = b->data;
    uint64_t h = b->size;

    if (b->size < SAMPLED_FROM)
        return mix(h, p, b->size);
    for (size_t at = 0; at + SAMPLE <= b->size; at += STRIDE)
        h = mix(h, p + at, SAMPLE);
    return h;
}

static struct pack_bytes **bucket_of(struct pack_store *s, uint64_t hash) {
    return &s->bucket[(hash >> 40) % N_BUCKETS];
}

static struct pack_bytes *next_candidate(struct pack_bytes *at, const struct pack_bytes *b) {
    while (at && (at->hash != b->hash || at->size != b->size))
        at = at->next;
    return at;
}

static void unlink_locked(struct pack_bytes *b) {
    struct pack_bytes **p = bucket_of(b->store, b->hash);

    while (*p != b)
        p = &(*p)->next;
    *p = b->next;
}

/* Drops a reference; true: it was the last one, the caller frees. */
static bool unref_locked(struct pack_bytes *b) {
    if (--b->refs > 0)
        return false;
    unlink_locked(b);
    return true;
}

/* Comparing hundreds of megabytes must not hold up the others: a candidate is held by a reference meanwhile,
 * which keeps its place in the list, too. */
struct pack_bytes *pack_bytes_share(struct pack_store *s, struct pack_bytes *b) {
    struct pack_bytes *c, **bucket;

    b->hash = hash_of(b);
    bucket = bucket_of(s, b->hash);
    pthread_mutex_lock(&s->mutex);
    c = next_candidate(*bucket, b);
    while (c) {
        struct pack_bytes *next;

        c->refs++;
        pthread_mutex_unlock(&s->mutex);
        if (memcmp(c->data, b->data, b->size) == 0) {
            bytes_free(b);
            return c;
        }
        pthread_mutex_lock(&s->mutex);
        next = next_candidate(c->next, b);
        if (unref_locked(c))
            bytes_free(c);
        c = next;
    }
    b->store = s;
    b->refs = 1;
    b->next = *bucket;
    *bucket = b;
    pthread_mutex_unlock(&s->mutex);
    return b;
}

void pack_bytes_drop(struct pack_bytes *b) {
    bool is_last = true;

    if (!b)
        return;
    if (b->store) {
        pthread_mutex_lock(&b->store->mutex);
        is_last = unref_locked(b);
        pthread_mutex_unlock(&b->store->mutex);
    }
    if (is_last)
        bytes_free(b);
}

struct pack_count pack_bytes_count(struct pack_store *s, const struct pack *first) {
    struct pack_count c = {0};

    pthread_mutex_lock(&s->mutex);
    for (const struct pack *p = first; p; p = p->next_in_net)
        p->bytes->counted = 0;
    for (const struct pack *p = first; p; p = p->next_in_net)
        p->bytes->counted++;
    for (const struct pack *p = first; p; p = p->next_in_net) {
        if (p->bytes->counted == p->bytes->refs)
            c.own += p->size;
        else if (p->bytes->counted)
            c.shared += p->size;
        p->bytes->counted = 0;
    }
    pthread_mutex_unlock(&s->mutex);
    return c;
}

uint64_t pack_store_new_tally(struct pack_store *s) {
    uint64_t tally;

    pthread_mutex_lock(&s->mutex);
    tally = ++s->tally;
    pthread_mutex_unlock(&s->mutex);
    return tally;
}

size_t pack_bytes_tally(struct pack_store *s, const struct pack *first, uint64_t tally) {
    size_t sum = 0;

    pthread_mutex_lock(&s->mutex);
    for (const struct pack *p = first; p; p = p->next_in_net) {
        sum += p->bytes->tally == tally ? 0 : p->size;
        p->bytes->tally = tally;
    }
    pthread_mutex_unlock(&s->mutex);
    return sum;
}
