#include "engine/name_index.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

void name_index_init(struct name_index *x) {
    *x = (struct name_index){0};
    if (getrandom(&x->seed, sizeof(x->seed), GRND_NONBLOCK) != (ssize_t)sizeof(x->seed))
        x->seed = 0x9e3779b97f4a7c15u;
}

void name_index_done(struct name_index *x) {
    free(x->slots);
    *x = (struct name_index){0};
}

/* Multiply and fold (as in wyhash) per byte pair would be faster; names are short. */
static uint32_t hash_name(uint64_t seed, const char *name) {
    uint64_t h = seed;

    for (const unsigned char *p = (const unsigned char *)name; *p; p++) {
        __extension__ unsigned __int128 m =
            (unsigned __int128)(h ^ *p ^ 0xa0761d6478bd642fu) * (0xe7037ed1a0b428dbu ^ seed);

        h = (uint64_t)m ^ (uint64_t)(m >> 64) ^ h;
    }
    return (uint32_t)(h ^ (h >> 32));
}

static struct name_slot *find_slot(const struct name_index *x, const char *name, uint32_t hash) {
    size_t mask = x->n_slots - 1;

    for (size_t i = hash & mask;; i = (i + 1) & mask) {
        struct name_slot *s = &x->slots[i];

        if (!s->name || (s->hash == hash && strcmp(s->name, name) == 0))
            return s;
    }
}

bool name_index_find(const struct name_index *x, const char *name, int *ret) {
    const struct name_slot *s;

    if (!x->n_slots)
        return false;
    s = find_slot(x, name, hash_name(x->seed, name));
    if (!s->name)
        return false;
    *ret = s->value;
    return true;
}

static int grow(struct name_index *x) {
    struct name_index bigger = {.n_slots = x->n_slots ? x->n_slots * 2 : 64, .seed = x->seed};

    bigger.slots = calloc(bigger.n_slots, sizeof(*bigger.slots));
    if (!bigger.slots)
        return -ENOMEM;
    for (size_t i = 0; i < x->n_slots; i++)
        if (x->slots[i].name)
            *find_slot(&bigger, x->slots[i].name, x->slots[i].hash) = x->slots[i];
    bigger.n_used = x->n_used;
    free(x->slots);
    *x = bigger;
    return 0;
}

int name_index_add(struct name_index *x, const char *name, int value) {
    struct name_slot *s;
    uint32_t hash = hash_name(x->seed, name);

    /* at most three quarters full: a free slot always ends a search */
    if (x->n_used + 1 > x->n_slots / 4 * 3) {
        int r = grow(x);

        if (r < 0)
            return r;
    }
    s = find_slot(x, name, hash);
    if (s->name)
        return -EEXIST;
    *s = (struct name_slot){.name = name, .hash = hash, .value = value};
    x->n_used++;
    return 0;
}

void name_index_set(struct name_index *x, const char *name, int value) {
    struct name_slot *s = x->n_slots ? find_slot(x, name, hash_name(x->seed, name)) : NULL;

    if (s && s->name)
        s->value = value;
}

int name_index_copy(const struct name_index *x, struct name_index *ret) {
    struct name_index copy = *x;

    copy.slots = NULL;
    if (x->n_slots) {
        copy.slots = calloc(x->n_slots, sizeof(*copy.slots));
        if (!copy.slots)
            return -ENOMEM;
        memcpy(copy.slots, x->slots, x->n_slots * sizeof(*copy.slots));
    }
    *ret = copy;
    return 0;
}
