/* A little data to learn from: 320 gray pictures of 4 x 4, three classes "a", "b", "c", each with a bright
 * row of its own (the class's; the last row is never bright) in a pattern. */
#ifndef TESTS_UNIT_ROWS_PACK_H
#define TESTS_UNIT_ROWS_PACK_H

#include "image/pack.h"

#define ROWS_PACK_N 320

/* Free with pack_free. Fails the test when it cannot be made. */
struct pack *rows_pack(bool has_labels);

#endif
