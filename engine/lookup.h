/* The engine's own operator Lookup: bytes through a table of 256. Any elementwise function between two
 * quantised values is one (pass_qdq makes them). It is never in a file. */
#ifndef ENGINE_LOOKUP_H
#define ENGINE_LOOKUP_H

#include "engine/ops.h"

struct lookup_param {
    uint8_t table[256]; /* by the input's byte; outputs as bytes, whatever their sign */
    enum dtype out;
};

extern const struct op op_lookup;

#endif
