/* Files of tests/data, and graphs written to memory. */
#ifndef TESTS_UNIT_MODEL_FILE_H
#define TESTS_UNIT_MODEL_FILE_H

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "engine/onnx.h"

/* All bytes of an open file; free() them. NULL on failure. */
static inline uint8_t *file_bytes(int fd, size_t *ret_size) {
    struct stat st;
    uint8_t *p = fstat(fd, &st) == 0 ? malloc((size_t)st.st_size + 1) : NULL;

    if (p && pread(fd, p, (size_t)st.st_size, 0) == st.st_size) {
        *ret_size = (size_t)st.st_size;
        return p;
    }
    free(p);
    return NULL;
}

static inline uint8_t *data_bytes(const char *path, size_t *ret_size) {
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    uint8_t *p = fd < 0 ? NULL : file_bytes(fd, ret_size);

    if (fd >= 0)
        close(fd);
    return p;
}

/* What onnx_write_fd makes of a graph; free() it. */
static inline uint8_t *written_bytes(const struct graph *g, size_t *ret_size, struct error *err) {
    int fd = memfd_create("model", MFD_CLOEXEC);
    uint8_t *p = fd >= 0 && onnx_write_fd(g, fd, err) == 0 ? file_bytes(fd, ret_size) : NULL;

    if (fd >= 0)
        close(fd);
    return p;
}

#endif
