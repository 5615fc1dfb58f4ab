/* Archives made in memory files for the tests of the data set import. */
#ifndef TESTS_UNIT_ARCHIVE_MAKE_H
#define TESTS_UNIT_ARCHIVE_MAKE_H

#include <stdbool.h>
#include <stddef.h>

enum made_format { MADE_TAR, MADE_TAR_GZ, MADE_TAR_ZST, MADE_ZIP };

struct member {
    const char *name;
    const void *data; /* NULL: a folder when the name ends in '/' */
    size_t size;
    unsigned type;    /* AE_IFREG …; 0: regular, or a folder by its name */
    const char *link; /* target */
    bool is_hard;     /* a hard link */
};

/* A descriptor of a memory file that holds the archive, at its beginning; close it. */
int archive_make(enum made_format format, const struct member *m, size_t n);

/* An empty memory file. */
int memory_file(void);

#endif
