/* Big zeroed memory on huge pages: a fresh 4 KiB page costs 15 to 20 us on the virtual machines this runs on,
 * a huge one as much for 2 MiB. Small requests are rounded up to pages. */
#ifndef ENGINE_HUGEMEM_H
#define ENGINE_HUGEMEM_H

#include <stddef.h>

/* NULL: out of memory. Aligned to 64 bytes at least; released with the same size. */
void *hugemem_new(size_t size);
void hugemem_free(void *p, size_t size);

#endif
