/* Names to small integers: a hash table with open addressing over strings owned by others. */
#ifndef ENGINE_NAME_INDEX_H
#define ENGINE_NAME_INDEX_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/cleanup.h"

struct name_slot {
    const char *name; /* NULL: free. Not owned */
    uint32_t hash;
    int value;
};

struct name_index {
    struct name_slot *slots; /* owned; a power of two of them */
    size_t n_slots, n_used;
    uint64_t seed; /* random: a file cannot be made to collide */
};

void name_index_init(struct name_index *x);
void name_index_done(struct name_index *x);

/* The value of a name; false: absent. */
bool name_index_find(const struct name_index *x, const char *name, int *ret);

/* 0; -EEXIST: there already (unchanged); -ENOMEM. `name` must outlive the index. */
int name_index_add(struct name_index *x, const char *name, int value);

/* Changes the value of a name that is there. */
void name_index_set(struct name_index *x, const char *name, int value);

int name_index_copy(const struct name_index *x, struct name_index *ret);

#endif
