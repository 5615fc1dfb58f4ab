#include "engine/hugemem.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#define HUGE_PAGE ((size_t)2 << 20)
#define PAGE      ((size_t)4096)
#define SMALL_MAX ((size_t)64 << 10) /* below: the heap */

/* To small pages: what is left over behind the last whole 2 MiB lies on small ones, so that memory in use is
 * what was asked for. */
static size_t hugemem_round(size_t size) {
    return size > SIZE_MAX - HUGE_PAGE - PAGE ? 0 : (size + PAGE - 1) / PAGE * PAGE;
}

/* The kernel gives huge pages only to whole aligned 2 MiB pieces: map more and give the ends back. */
static void *hugemem_map_aligned(size_t size) {
    char *p = mmap(NULL, size + HUGE_PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    size_t head;

    if (p == MAP_FAILED)
        return NULL;
    head = (HUGE_PAGE - (uintptr_t)p % HUGE_PAGE) % HUGE_PAGE;
    if (head)
        munmap(p, head);
    munmap(p + head + size, HUGE_PAGE - head);
    (void)madvise(p + head, size, MADV_HUGEPAGE);
    return p + head;
}

void *hugemem_new(size_t size) {
    size_t rounded = hugemem_round(size ? size : 1);
    void *p;

    if (!rounded)
        return NULL;
    if (size <= SMALL_MAX) {
        size_t n = (size + 64) / 64 * 64;

        p = aligned_alloc(64, n);
        return p ? memset(p, 0, n) : NULL;
    }
    if (rounded >= HUGE_PAGE)
        return hugemem_map_aligned(rounded);
    p = mmap(NULL, rounded, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    return p == MAP_FAILED ? NULL : p;
}

void hugemem_free(void *p, size_t size) {
    if (!p)
        return;
    if (size <= SMALL_MAX)
        free(p);
    else
        munmap(p, hugemem_round(size));
}
