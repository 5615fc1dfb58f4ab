/* Scope-bound release: a variable marked _cleanup_(fn) is released when its scope ends, on every path.
 * TAKE() moves ownership out, so the success path ends with `*ret = TAKE(x); return 0;`. */
#ifndef BASE_CLEANUP_H
#define BASE_CLEANUP_H

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#define _cleanup_(fn) __attribute__((cleanup(fn)))

/* Returns the pointer and leaves NULL behind. */
#define TAKE(p)                                                                                              \
    ({                                                                                                       \
        __typeof__(p) *take_p_ = &(p);                                                                       \
        __typeof__(p) take_v_ = *take_p_;                                                                    \
        *take_p_ = NULL;                                                                                     \
        take_v_;                                                                                             \
    })

/* Returns the descriptor and leaves -1 behind. */
static inline int take_fd(int *fd) {
    int v = *fd;

    *fd = -1;
    return v;
}

/* Defines fnp(), the cleanup function of a type whose destructor is fn() and accepts NULL. */
#define DEFINE_CLEANUP(type, fn)                                                                             \
    static inline void fn##p(type *p) {                                                                      \
        if (*p)                                                                                              \
            fn(*p);                                                                                          \
    }

static inline void freep(void *p) {
    free(*(void **)p);
}

static inline void closep(const int *fd) {
    if (*fd >= 0)
        close(*fd);
}

static inline void fclosep(FILE **f) {
    if (*f)
        fclose(*f);
}

#endif
