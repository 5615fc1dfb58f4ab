/* A growing byte buffer whose maximum is fixed when it is made: nothing from outside grows it without bound.
 */
#ifndef BASE_BUF_H
#define BASE_BUF_H

#include <stddef.h>

struct buf {
    char *data; /* owned; always zero-terminated after the first append, the zero not counted in size */
    size_t size;
    size_t cap;
    size_t max;
};

void buf_init(struct buf *b, size_t max);
void buf_done(struct buf *b);

/* 0; -EFBIG: over the maximum; -ENOMEM. The buffer is unchanged on failure. */
int buf_append(struct buf *b, const void *data, size_t size);
int buf_puts(struct buf *b, const char *s);
int buf_printf(struct buf *b, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
int buf_reserve(struct buf *b, size_t more);

/* Hands the bytes over (free() them) and empties the buffer; "" is never NULL unless out of memory. */
char *buf_take(struct buf *b);

#endif
