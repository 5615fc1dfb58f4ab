#include "compress/checkpoint.h"

#include <fcntl.h>
#include <openssl/evp.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include "base/cleanup.h"
#include "compress/replace_file.h"

#define MAGIC       "bonsaick"
#define MAGIC_SIZE  8
#define DIGEST_SIZE 32
#define HEAD_MAX    ((size_t)64 << 20)

static void md_freep(EVP_MD_CTX **md) {
    EVP_MD_CTX_free(*md);
}

static EVP_MD_CTX *md_new(void) {
    EVP_MD_CTX *md = EVP_MD_CTX_new();

    if (md && !EVP_DigestInit_ex(md, EVP_sha256(), NULL)) {
        EVP_MD_CTX_free(md);
        return NULL;
    }
    return md;
}

/* ---- writing ---- */

static char *head_text(const char *key, const json_t *state, const struct checkpoint_block *block, size_t n) {
    json_t *sizes = json_array(), *head;
    char *text;

    for (size_t i = 0; i < n; i++)
        json_array_append_new(sizes, json_integer((json_int_t)block[i].size));
    head = json_pack("{s:s, s:O, s:o}", "key", key, "state", state, "blocks", sizes);
    text = head ? json_dumps(head, JSON_COMPACT) : NULL;
    json_decref(head);
    return text;
}

static int put(struct replace_file *f, EVP_MD_CTX *md, const void *data, size_t size, struct error *err) {
    if (!EVP_DigestUpdate(md, data, size))
        return error_oom(err);
    return replace_file_write(f, data, size, err);
}

int checkpoint_write(const char *path, const char *key, const json_t *state,
    const struct checkpoint_block *block, size_t n, struct error *err) {
    _cleanup_(replace_file_done) struct replace_file f = {.fd = -1};
    _cleanup_(freep) char *head = head_text(key, state, block, n);
    _cleanup_(md_freep) EVP_MD_CTX *md = md_new();
    unsigned char length[8], digest[EVP_MAX_MD_SIZE];
    size_t size;
    int r;

    if (!head || !md)
        return error_oom(err);
    size = strlen(head);
    for (int i = 0; i < 8; i++)
        length[i] = (unsigned char)((uint64_t)size >> 8 * i);
    r = replace_file_open(path, &f, err);
    if (r == 0)
        r = put(&f, md, MAGIC, MAGIC_SIZE, err);
    if (r == 0)
        r = put(&f, md, length, sizeof(length), err);
    if (r == 0)
        r = put(&f, md, head, size, err);
    for (size_t i = 0; r == 0 && i < n; i++)
        r = put(&f, md, block[i].data, block[i].size, err);
    if (r == 0 && !EVP_DigestFinal_ex(md, digest, NULL))
        r = error_oom(err);
    if (r == 0)
        r = replace_file_write(&f, digest, DIGEST_SIZE, err);
    return r == 0 ? replace_file_commit(&f, err) : r;
}

/* ---- reading ---- */

struct mapped {
    const unsigned char *data;
    size_t size;
};

static void mapped_done(struct mapped *m) {
    if (m->data)
        munmap((void *)(uintptr_t)m->data, m->size);
}

static bool map(const char *path, struct mapped *ret) {
    _cleanup_(closep) int fd = open(path, O_RDONLY | O_CLOEXEC);
    struct stat st;
    void *p;

    if (fd < 0 || fstat(fd, &st) < 0 || !S_ISREG(st.st_mode) || st.st_size < MAGIC_SIZE + 8 + DIGEST_SIZE)
        return false;
    p = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
    if (p == MAP_FAILED)
        return false;
    *ret = (struct mapped){p, (size_t)st.st_size};
    return true;
}

static bool is_whole(const struct mapped *m) {
    unsigned char digest[EVP_MAX_MD_SIZE];
    size_t size = m->size - DIGEST_SIZE;

    return !memcmp(m->data, MAGIC, MAGIC_SIZE) &&
           EVP_Digest(m->data, size, digest, NULL, EVP_sha256(), NULL) &&
           !memcmp(digest, m->data + size, DIGEST_SIZE);
}

/* The sizes in the head are those wanted, and together what lies between head and digest. */
static bool sizes_fit(const json_t *sizes, const struct checkpoint_block *block, size_t n, size_t room) {
    if (json_array_size(sizes) != n)
        return false;
    for (size_t i = 0; i < n; i++) {
        if (json_integer_value(json_array_get(sizes, i)) != (json_int_t)block[i].size || block[i].size > room)
            return false;
        room -= block[i].size;
    }
    return room == 0;
}

bool checkpoint_read(
    const char *path, const char *key, const struct checkpoint_block *block, size_t n, json_t **ret) {
    _cleanup_(mapped_done) struct mapped m = {0};
    const unsigned char *at;
    uint64_t size = 0;
    json_t *head;
    bool fits;

    if (!map(path, &m) || !is_whole(&m))
        return false;
    for (int i = 0; i < 8; i++)
        size |= (uint64_t)m.data[MAGIC_SIZE + i] << 8 * i;
    at = m.data + MAGIC_SIZE + 8;
    if (size > HEAD_MAX || size > m.size - MAGIC_SIZE - 8 - DIGEST_SIZE)
        return false;
    head = json_loadb((const char *)at, (size_t)size, 0, NULL);
    at += size;
    fits = json_is_string(json_object_get(head, "key")) &&
           !strcmp(json_string_value(json_object_get(head, "key")), key) &&
           sizes_fit(json_object_get(head, "blocks"), block, n, (size_t)(m.data + m.size - DIGEST_SIZE - at));
    for (size_t i = 0; fits && i < n; at += block[i++].size)
        if (block[i].size)
            memcpy(block[i].data, at, block[i].size);
    if (fits)
        *ret = json_incref(json_object_get(head, "state"));
    json_decref(head);
    return fits;
}
