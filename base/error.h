/* base/: what everything uses and what uses nothing of ours.
 *   error.h    one error: a negative errno, a code of the closed list (api.md) and a sentence
 *   cleanup.h  scope-bound release
 *   buf.h      byte buffer with a maximum fixed at its start
 *   reader.h   bounds-checked little-endian reader over foreign bytes
 *   clock.h    monotonic and wall clock
 *   stats.h    Wilson interval, exact McNemar
 * Functions of the libraries (base, config, image, engine, compress) return 0 or a negative errno and fill
 * `struct error`; they never log. The first error wins: setting again is a no-op. */
#ifndef BASE_ERROR_H
#define BASE_ERROR_H

#include <stdarg.h>

#define ERROR_TEXT_MAX 512

struct error {
    int err;          /* negative errno; 0: no error yet */
    const char *code; /* a static string of the API's closed list, or NULL: derived from err */
    char text[ERROR_TEXT_MAX];
};

/* Both return `err`, so that `return error_set(...)` is one line. `e` may be NULL. */
int error_set(struct error *e, int err, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
int error_code(struct error *e, int err, const char *code, const char *fmt, ...)
    __attribute__((format(printf, 4, 5)));

/* Puts "context: " before the sentence that is there; before one that begins with ".key: " the context alone:
 * the path goes on. Returns `err`. */
int error_prefix(struct error *e, int err, const char *fmt, ...) __attribute__((format(printf, 3, 4)));

int error_oom(struct error *e);

/* "what: strerror(errno)"; returns -errno. */
int error_errno(struct error *e, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

void error_clear(struct error *e);

/* Copies `src` into `dst` unless dst already holds an error. */
int error_copy(struct error *dst, const struct error *src);

#endif
