/* A file replaced as a whole: written beside its place, made durable, then renamed. Whoever opens the path
 * sees the old bytes or the new ones, whatever happens in between. */
#ifndef COMPRESS_REPLACE_FILE_H
#define COMPRESS_REPLACE_FILE_H

#include <stddef.h>

#include "base/error.h"

struct replace_file {
    const char *path; /* the caller's, must live as long */
    char temporary[4096];
    int fd;
};

/* Errors: -ENAMETOOLONG, those of open(). */
int replace_file_open(const char *path, struct replace_file *ret, struct error *err);

/* All of it. Errors: disk_budget when the disk is full, -EIO …. */
int replace_file_write(struct replace_file *f, const void *data, size_t size, struct error *err);

/* Durable and in its place. */
int replace_file_commit(struct replace_file *f, struct error *err);

/* What was not committed is gone. */
void replace_file_done(struct replace_file *f);

#endif
