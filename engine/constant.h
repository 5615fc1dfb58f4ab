/* Reading constants of a graph: initialisers lie in the file, unaligned. */
#ifndef ENGINE_CONSTANT_H
#define ENGINE_CONSTANT_H

#include <string.h>

#include "engine/graph.h"

/* The constant behind a value id; NULL: left out (-1), computed, or without bytes. */
static inline const struct tensor *constant_of(const struct graph *g, int value) {
    const struct tensor *t = value < 0 ? NULL : g->values[value].init;

    return t && t->data ? t : NULL;
}

/* Element i of a DT_F32 tensor. */
static inline float constant_f32(const struct tensor *t, int64_t i) {
    float f;

    memcpy(&f, (const uint8_t *)t->data + (size_t)i * sizeof(f), sizeof(f));
    return f;
}

/* The integers of a DT_S64 or DT_S32 constant: their number, or -1 when it is none or has more than `max`. */
int constant_ints(const struct graph *g, int value, int64_t *ret, int max);

#endif
