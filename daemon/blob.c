/* Files named by their digest: blobs/<64 hex>. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <openssl/evp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "daemon/store_priv.h"

void digest_text(const uint8_t sha256[32], char ret[static DIGEST_MAX]) {
    int n = sprintf(ret, "sha256:");

    for (int i = 0; i < 32; i++)
        n += sprintf(ret + n, "%02x", sha256[i]);
}

bool digest_is_valid(const char *digest) {
    return !strncmp(digest, "sha256:", 7) && strlen(digest) == 71 &&
           strspn(digest + 7, "0123456789abcdef") == 64;
}

void store_blob_path(struct store *s, const char *digest, char *ret, size_t size) {
    snprintf(ret, size, "%s/%s", s->blobs, digest_is_valid(digest) ? digest + 7 : "none");
}

static int sync_folder(const char *path, struct error *err) {
    _cleanup_(closep) int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

    if (fd < 0 || fsync(fd) < 0)
        return error_errno(err, "the blobs' folder");
    return 0;
}

int store_blob_keep(struct store *s, int fd, const char *path, const char *digest, struct error *err) {
    char to[4096], from[64];
    int r;

    store_blob_path(s, digest, to, sizeof(to));
    if (fsync(fd) < 0)
        return errno == ENOSPC ? error_code(err, -ENOSPC, "disk_budget", "the disk is full")
                               : error_errno(err, "the upload cannot be written");
    snprintf(from, sizeof(from), "/proc/self/fd/%d", fd);
    r = path ? linkat(AT_FDCWD, path, AT_FDCWD, to, 0)
             : linkat(AT_FDCWD, from, AT_FDCWD, to, AT_SYMLINK_FOLLOW);
    if (r < 0 && errno != EEXIST)
        return errno == ENOSPC ? error_code(err, -ENOSPC, "disk_budget", "the disk is full")
                               : error_errno(err, "the upload cannot be kept");
    return sync_folder(s->blobs, err);
}

static int hash_fd(int fd, uint8_t ret[32], uint64_t *ret_size, struct error *err) {
    EVP_MD_CTX *ctx = EVP_MD_CTX_new();
    _cleanup_(freep) char *block = malloc(1 << 20);
    uint64_t size = 0;
    ssize_t n = 0;
    bool ok = ctx && block && EVP_DigestInit_ex(ctx, EVP_sha256(), NULL);

    while (ok && (n = pread(fd, block, 1 << 20, (off_t)size)) > 0) {
        ok = EVP_DigestUpdate(ctx, block, (size_t)n) != 0;
        size += (uint64_t)n;
    }
    ok = ok && n == 0 && EVP_DigestFinal_ex(ctx, ret, NULL);
    EVP_MD_CTX_free(ctx);
    *ret_size = size;
    return ok ? 0 : error_set(err, -EIO, "a file could not be digested");
}

int store_blob_keep_path(struct store *s, const char *path, char digest[static DIGEST_MAX],
    uint64_t *ret_size, struct error *err) {
    _cleanup_(closep) int fd = open(path, O_RDWR | O_CLOEXEC);
    uint8_t sha256[32];
    int r;

    if (fd < 0)
        return error_errno(err, "a result cannot be opened");
    r = hash_fd(fd, sha256, ret_size, err);
    if (r < 0)
        return r;
    digest_text(sha256, digest);
    return store_blob_keep(s, fd, path, digest, err);
}

int store_blob_open(struct store *s, const char *digest, struct error *err) {
    char path[4096];
    int fd;

    store_blob_path(s, digest, path, sizeof(path));
    fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return error_set(err, -ENOENT, "the file %s is missing in the store", digest);
    return fd;
}

/* Does any document hold this string? Documents name blobs in plain members only. */
static bool names_digest(const json_t *j, const char *digest) {
    json_t *any = (json_t *)(uintptr_t)j, *value; /* the iterators want it mutable and change nothing */
    const char *key;
    size_t i;

    if (json_is_string(j))
        return !strcmp(json_string_value(j), digest);
    json_object_foreach(
        any, key, value) if (!json_is_array(value) && names_digest(value, digest)) return true;
    json_array_foreach(any, i, value) if (names_digest(value, digest)) return true;
    return false;
}

bool store_blob_is_named(struct store *s, const char *digest) {
    bool found = false;

    pthread_rwlock_rdlock(&s->read);
    for (int t = STORE_MODEL; t <= STORE_DATASET && !found; t++) {
        const char *key;
        json_t *doc;

        json_object_foreach(s->table[t], key, doc) if ((found = names_digest(doc, digest))) break;
    }
    pthread_rwlock_unlock(&s->read);
    return found;
}

void store_blob_release(struct store *s, const char *digest) {
    char path[4096];

    if (!digest_is_valid(digest))
        return;
    store_lock(s);
    if (!store_blob_is_named(s, digest)) {
        store_blob_path(s, digest, path, sizeof(path));
        unlink(path);
        store_pictures_drop(s, digest);
    }
    store_unlock(s);
}

static int sweep_folder(struct store *s, const char *folder, bool is_blobs, struct error *err) {
    DIR *d = opendir(folder);
    struct dirent *e;

    if (!d)
        return error_errno(err, "the state directory");
    while ((e = readdir(d))) {
        char digest[DIGEST_MAX + 256], path[4608];

        if (e->d_name[0] == '.')
            continue;
        snprintf(digest, sizeof(digest), "sha256:%s", e->d_name);
        snprintf(path, sizeof(path), "%s/%s", folder, e->d_name);
        if (!is_blobs || !store_blob_is_named(s, digest))
            unlink(path);
    }
    closedir(d);
    return 0;
}

int store_sweep(struct store *s, struct error *err) {
    int r = sweep_folder(s, s->tmp, false, err);

    return r < 0 ? r : sweep_folder(s, s->blobs, true, err);
}

void store_disk(struct store *s, uint64_t *ret_used, uint64_t *ret_budget) {
    struct statvfs v;

    *ret_used = *ret_budget = 0;
    if (statvfs(s->dir, &v) < 0)
        return;
    *ret_used = (uint64_t)(v.f_blocks - v.f_bfree) * v.f_frsize;
    *ret_budget = (uint64_t)((double)(*ret_used + (uint64_t)v.f_bavail * v.f_frsize) * s->disk_share);
}

int store_check_disk(struct store *s, uint64_t bytes, struct error *err) {
    uint64_t used, budget;

    store_disk(s, &used, &budget);
    if (used <= budget && bytes <= budget - used)
        return 0;
    return error_code(err, -ENOSPC, "disk_budget",
        "%llu bytes are needed and %llu are free within the disk's budget", (unsigned long long)bytes,
        (unsigned long long)(budget > used ? budget - used : 0));
}
