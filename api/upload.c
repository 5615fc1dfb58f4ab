#include "api/upload.h"

#include <errno.h>
#include <fcntl.h>
#include <openssl/evp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"

#define BLOCK_SIZE (512 * 1024)

struct upload {
    uv_loop_t *loop;
    void (*wake)(void *ctx);
    void *ctx;
    struct body_file file;
    EVP_MD_CTX *md;
    char *block[2];
    size_t fill[2];
    int filling;       /* the block the loop fills */
    bool is_writing;   /* the other one is with a pool thread, which alone touches file, md and err then */
    bool is_finishing; /* nothing more will be pushed */
    bool is_dead;      /* upload_free() came while writing */
    struct error err;
    uv_work_t work;
};

static void destroy(struct upload *u) {
    EVP_MD_CTX_free(u->md);
    free(u->block[0]);
    free(u->block[1]);
    if (u->file.fd >= 0)
        close(u->file.fd);
    if (u->file.name)
        unlink(u->file.name);
    free(u->file.name);
    free(u);
}

DEFINE_CLEANUP(struct upload *, upload_free)

/* Without a name where the file system can; a name otherwise, removed by the owner or at the next start. */
static int open_temporary(const char *dir, struct body_file *f, struct error *err) {
    f->fd = open(dir, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
    if (f->fd >= 0)
        return 0;
    if (errno != EOPNOTSUPP && errno != EISDIR && errno != ENOENT)
        return error_errno(err, "cannot make a temporary file");
    if (asprintf(&f->name, "%s/upload-XXXXXX", dir) < 0) {
        f->name = NULL;
        return error_oom(err);
    }
    f->fd = mkostemp(f->name, O_CLOEXEC);
    if (f->fd < 0) {
        free(TAKE(f->name));
        return error_errno(err, "cannot make a temporary file");
    }
    return 0;
}

int upload_new(uv_loop_t *loop, const char *dir, void (*wake)(void *ctx), void *ctx, struct upload **ret,
    struct error *err) {
    _cleanup_(upload_freep) struct upload *u = calloc(1, sizeof(*u));
    int rc;

    if (!u)
        return error_oom(err);
    u->file.fd = -1;
    u->loop = loop;
    u->wake = wake;
    u->ctx = ctx;
    u->md = EVP_MD_CTX_new();
    u->block[0] = malloc(BLOCK_SIZE);
    u->block[1] = malloc(BLOCK_SIZE);
    if (!u->md || !u->block[0] || !u->block[1] || !EVP_DigestInit_ex(u->md, EVP_sha256(), NULL))
        return error_oom(err);
    rc = open_temporary(dir, &u->file, err);
    if (rc)
        return rc;
    *ret = TAKE(u);
    return 0;
}

static void write_block(uv_work_t *work) {
    struct upload *u = work->data;
    const char *p = u->block[!u->filling];
    size_t left = u->fill[!u->filling];

    if (!EVP_DigestUpdate(u->md, p, left)) {
        error_set(&u->err, -EIO, "cannot hash the body");
        return;
    }
    while (left && !u->err.err) {
        ssize_t n = write(u->file.fd, p, left);

        if (n < 0 && errno != EINTR)
            error_errno(&u->err, "cannot store the body");
        if (n <= 0)
            continue;
        p += n;
        left -= (size_t)n;
        u->file.size += (uint64_t)n;
    }
}

static void start_write(struct upload *u);

static void after_write(uv_work_t *work, int status) {
    struct upload *u = work->data;

    (void)status;
    u->is_writing = false;
    u->fill[!u->filling] = 0;
    if (u->is_dead) {
        destroy(u);
        return;
    }
    if (u->is_finishing && u->fill[u->filling])
        start_write(u);
    else
        u->wake(u->ctx);
}

static void start_write(struct upload *u) {
    u->filling = !u->filling;
    u->is_writing = true;
    u->work.data = u;
    uv_queue_work(u->loop, &u->work, write_block, after_write);
}

size_t upload_push(struct upload *u, const void *data, size_t size) {
    size_t taken = 0;

    if (!u->is_writing && u->err.err)
        return size;
    while (taken < size) {
        size_t room = BLOCK_SIZE - u->fill[u->filling];
        size_t n = size - taken < room ? size - taken : room;

        memcpy(u->block[u->filling] + u->fill[u->filling], (const char *)data + taken, n);
        u->fill[u->filling] += n;
        taken += n;
        if (u->fill[u->filling] < BLOCK_SIZE)
            continue;
        if (u->is_writing)
            break;
        start_write(u);
    }
    return taken;
}

void upload_finish(struct upload *u) {
    u->is_finishing = true;
    if (!u->is_writing && u->fill[u->filling])
        start_write(u);
}

bool upload_is_idle(const struct upload *u) {
    return !u->is_writing;
}

int upload_take(struct upload *u, struct body_file *ret, struct error *err) {
    unsigned n = 0;

    if (u->err.err)
        return error_copy(err, &u->err);
    if (!EVP_DigestFinal_ex(u->md, u->file.sha256, &n) || n != sizeof(u->file.sha256))
        return error_set(err, -EIO, "cannot hash the body");
    *ret = u->file;
    u->file.fd = -1;
    u->file.name = NULL;
    return 0;
}

struct upload *upload_free(struct upload *u) {
    if (u && u->is_writing)
        u->is_dead = true;
    else if (u)
        destroy(u);
    return NULL;
}
