#include "compress/replace_file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"

/* A full disk is no fault of ours and has a code of its own. */
static int failed(struct error *err, const char *path) {
    const char *slash = strrchr(path, '/');

    if (errno == ENOSPC || errno == EDQUOT)
        return error_code(err, -ENOSPC, "disk_budget", "the disk is full: '%s' cannot be written",
            slash ? slash + 1 : path);
    return error_errno(err, "'%s' cannot be written", slash ? slash + 1 : path);
}

int replace_file_open(const char *path, struct replace_file *ret, struct error *err) {
    *ret = (struct replace_file){.path = path, .fd = -1};
    if (snprintf(ret->temporary, sizeof(ret->temporary), "%s.tmp", path) >= (int)sizeof(ret->temporary))
        return error_set(err, -ENAMETOOLONG, "the path of a file to be written is too long");
    ret->fd = open(ret->temporary, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    return ret->fd < 0 ? failed(err, path) : 0;
}

int replace_file_write(struct replace_file *f, const void *data, size_t size, struct error *err) {
    const char *p = data;

    while (size > 0) {
        ssize_t n = write(f->fd, p, size);

        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return failed(err, f->path);
        p += n;
        size -= (size_t)n;
    }
    return 0;
}

static int sync_directory(const char *path, struct error *err) {
    _cleanup_(freep) char *dir = strdup(path);
    _cleanup_(closep) int fd = -1;
    char *slash;

    if (!dir)
        return error_oom(err);
    slash = strrchr(dir, '/');
    if (slash)
        *slash = 0;
    fd = open(slash ? (*dir ? dir : "/") : ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    return fd < 0 || fsync(fd) < 0 ? failed(err, path) : 0;
}

int replace_file_commit(struct replace_file *f, struct error *err) {
    if (fsync(f->fd) < 0 || rename(f->temporary, f->path) < 0)
        return failed(err, f->path);
    close(f->fd);
    f->fd = -1;
    return sync_directory(f->path, err);
}

void replace_file_done(struct replace_file *f) {
    if (f->fd < 0)
        return;
    close(f->fd);
    unlink(f->temporary);
    f->fd = -1;
}
