/* The program's allocations, one of which can be made to fail. Linked with the allocator wrapped
 * (wrap_alloc_dep in meson.build); allocations inside shared libraries are not touched. */
#ifndef TESTS_UNIT_FAILING_ALLOC_H
#define TESTS_UNIT_FAILING_ALLOC_H

#include <stdbool.h>

/* The n-th allocation from now fails (0: the next one); -1: none. */
void fail_alloc_at(long n);

/* The one that is to fail has not come yet. */
bool fail_alloc_pending(void);

#endif
