#include "compress/picture_cache.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <openssl/evp.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <time.h>

#define MAGIC          "BONSPICS"
#define VERSION        1 /* of the file and of what decoding gives: one more when either changes */
#define HEAD_SIZE      128
#define FILES_MAX      4096 /* looked at in a folder */
#define UNNAMED_SUFFIX ".new"
#define UNNAMED_S      60 /* a file without its name for so long has nobody who will name it */

struct head {
    char magic[8];
    uint32_t version, zero;
    uint64_t n, size;
    uint8_t key[32];
    uint8_t zeros[HEAD_SIZE - 64];
};
_Static_assert(sizeof(struct head) == HEAD_SIZE, "the head of the file");

struct picture_cache {
    int fd;
    const uint8_t *map; /* the whole file, read only */
    size_t map_size;
    uint64_t n;
    size_t size, stride; /* of a picture, of a record */
    atomic_bool is_full; /* the disk is: nothing more is written */
};

/* ---- records ---- */

static uint64_t add_word(uint64_t h, const uint8_t *at) {
    uint64_t word;

    memcpy(&word, at, sizeof(word));
    h = (h ^ word) * 0x9e3779b97f4a7c15u;
    return h ^ h >> 32;
}

/* Four sums side by side, a word each, so that multiplying does not wait. */
static uint64_t sum_of(const uint8_t *pixels, size_t size, uint64_t number) {
    uint64_t h[4] = {number + 1, 2, 3, 4}, sum = size;
    size_t i = 0;

    for (; i + 32 <= size; i += 32)
        for (size_t k = 0; k < 4; k++)
            h[k] = add_word(h[k], pixels + i + 8 * k);
    for (; i + 8 <= size; i += 8)
        h[0] = add_word(h[0], pixels + i);
    memcpy(&sum, pixels + i, size - i);
    for (size_t k = 0; k < 4; k++) {
        sum = (sum ^ h[k]) * 0xbf58476d1ce4e5b9u;
        sum ^= sum >> 29;
    }
    return sum ? sum : 1; /* a hole's is 0 */
}

bool picture_cache_get(const struct picture_cache *c, uint64_t i, uint8_t *ret) {
    const uint8_t *record = c->map + HEAD_SIZE + i * c->stride;
    uint64_t sum;

    memcpy(&sum, record, sizeof(sum));
    if (sum == 0)
        return false;
    memcpy(ret, record + sizeof(sum), c->size); /* of the copy: others may be writing */
    return sum_of(ret, c->size, i) == sum;
}

static bool write_at(int fd, const void *data, size_t size, uint64_t at) {
    return pwrite(fd, data, size, (off_t)at) == (ssize_t)size;
}

void picture_cache_put(struct picture_cache *c, uint64_t i, const uint8_t *pixels) {
    uint64_t sum = sum_of(pixels, c->size, i), at = HEAD_SIZE + i * c->stride;

    if (!atomic_load_explicit(&c->is_full, memory_order_relaxed) &&
        !(write_at(c->fd, pixels, c->size, at + sizeof(sum)) && write_at(c->fd, &sum, sizeof(sum), at)))
        atomic_store_explicit(&c->is_full, true, memory_order_relaxed);
}

/* ---- the folder ---- */

struct file {
    char name[160];
    uint64_t bytes;
    struct timespec used;
};

static int by_age(const void *a, const void *b) {
    const struct timespec *x = &((const struct file *)a)->used, *y = &((const struct file *)b)->used;

    if (x->tv_sec != y->tv_sec)
        return x->tv_sec < y->tv_sec ? -1 : 1;
    return (x->tv_nsec > y->tv_nsec) - (x->tv_nsec < y->tv_nsec);
}

static bool is_forsaken(const struct file *f) {
    size_t n = strlen(f->name), suffix = strlen(UNNAMED_SUFFIX);

    return n > suffix && !strcmp(f->name + n - suffix, UNNAMED_SUFFIX) &&
           f->used.tv_sec + UNNAMED_S < time(NULL);
}

static size_t list_files(int folder, struct file *ret) {
    int fd = openat(folder, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *d = fd < 0 ? NULL : fdopendir(fd);
    const struct dirent *e;
    size_t n = 0;

    if (!d) {
        if (fd >= 0)
            close(fd);
        return 0;
    }
    while (n < FILES_MAX && (e = readdir(d))) {
        struct file *f = &ret[n];
        struct stat st;

        if (strlen(e->d_name) >= sizeof(f->name) ||
            fstatat(folder, e->d_name, &st, AT_SYMLINK_NOFOLLOW) < 0 || !S_ISREG(st.st_mode))
            continue;
        strcpy(f->name, e->d_name);
        f->bytes = (uint64_t)st.st_size;
        f->used = st.st_mtim;
        if (is_forsaken(f))
            unlinkat(folder, f->name, 0);
        else
            n++;
    }
    closedir(d);
    return n;
}

/* Removes what was not used for longest until `need` more bytes are within the budget. */
static void make_room(int folder, uint64_t budget, uint64_t need) {
    _cleanup_(freep) struct file *file = calloc(FILES_MAX, sizeof(*file));
    size_t n = file ? list_files(folder, file) : 0;
    uint64_t sum = need;

    for (size_t i = 0; i < n; i++)
        sum += file[i].bytes;
    if (n)
        qsort(file, n, sizeof(*file), by_age);
    for (size_t i = 0; i < n && sum > budget; i++)
        if (unlinkat(folder, file[i].name, 0) == 0)
            sum -= file[i].bytes;
}

/* ---- opening ---- */

/* Is it the file that `want` heads, in full? Then it counts as just used. */
static bool is_good(int fd, const struct head *want, uint64_t bytes) {
    struct head have;
    struct stat st;

    return fstat(fd, &st) == 0 && S_ISREG(st.st_mode) && (uint64_t)st.st_size == bytes &&
           pread(fd, &have, sizeof(have), 0) == sizeof(have) && !memcmp(&have, want, sizeof(have)) &&
           write_at(fd, want, sizeof(*want), 0);
}

static bool fill_new(int fd, const struct head *head, uint64_t bytes) {
    return ftruncate(fd, (off_t)bytes) == 0 && write_at(fd, head, sizeof(*head), 0);
}

/* A new file, under its name once it has head and size; what has the name already is replaced. */
static int create(int folder, const char *name, const struct head *head, uint64_t bytes) {
    char unnamed[192];
    _cleanup_(closep) int fd = -1;

    snprintf(unnamed, sizeof(unnamed), "%s.%d" UNNAMED_SUFFIX, name, (int)getpid());
    fd = openat(folder, unnamed, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd < 0)
        return -1;
    if (!fill_new(fd, head, bytes) || renameat(folder, unnamed, folder, name) < 0) {
        unlinkat(folder, unnamed, 0);
        return -1;
    }
    return take_fd(&fd);
}

static bool has_space(const char *folder, uint64_t bytes) {
    struct statvfs v;

    return statvfs(folder, &v) == 0 && bytes <= (uint64_t)v.f_bavail * v.f_frsize / 2;
}

static int open_in_folder(const struct picture_cache_place *at, const struct head *head, uint64_t bytes) {
    _cleanup_(closep) int folder = open(at->folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    const char *owner = at->owner ? at->owner : "none";
    char name[128];
    int fd;

    if (folder < 0 || strlen(owner) > 64 || strchr(owner, '/'))
        return -1;
    snprintf(name, sizeof(name), "%s-%02x%02x%02x%02x%02x%02x%02x%02x", owner, head->key[0], head->key[1],
        head->key[2], head->key[3], head->key[4], head->key[5], head->key[6], head->key[7]);
    fd = openat(folder, name, O_RDWR | O_CLOEXEC | O_NOFOLLOW);
    if (fd >= 0 && is_good(fd, head, bytes))
        return fd;
    if (fd >= 0)
        close(fd);
    unlinkat(folder, name, 0);
    make_room(folder, at->budget, bytes);
    return has_space(at->folder, bytes) ? create(folder, name, head, bytes) : -1;
}

static int open_temporary(const struct head *head, uint64_t bytes) {
    _cleanup_(fclosep) FILE *f = has_space(P_tmpdir, bytes) ? tmpfile() : NULL;
    _cleanup_(closep) int fd = f ? fcntl(fileno(f), F_DUPFD_CLOEXEC, 0) : -1;

    return fd >= 0 && fill_new(fd, head, bytes) ? take_fd(&fd) : -1;
}

/* A small address space is for computing in. */
static bool may_map(uint64_t bytes) {
    struct rlimit limit;

    return bytes <= SIZE_MAX && getrlimit(RLIMIT_AS, &limit) == 0 &&
           (limit.rlim_cur == RLIM_INFINITY || bytes <= limit.rlim_cur / 4);
}

static bool file_size(uint64_t n, size_t size, uint64_t *ret) {
    uint64_t stride = sizeof(uint64_t) + (size + 7) / 8 * 8;

    return n > 0 && size > 0 && size <= INT32_MAX && !__builtin_mul_overflow(n, stride, ret) &&
           !__builtin_add_overflow(*ret, (uint64_t)HEAD_SIZE, ret) && *ret <= INT64_MAX;
}

/* False: there is more to say of the pictures than a key holds. */
static bool set_key(struct head *head, const char *owner, const char *what) {
    char text[1024];
    int n = snprintf(text, sizeof(text), "%s %llu %llu %s", owner ? owner : "", (unsigned long long)head->n,
        (unsigned long long)head->size, what);

    return n > 0 && (size_t)n < sizeof(text) &&
           EVP_Digest(text, (size_t)n, head->key, NULL, EVP_sha256(), NULL) == 1;
}

struct picture_cache *picture_cache_open(
    const struct picture_cache_place *at, const char *what, uint64_t n, size_t size) {
    _cleanup_(picture_cache_freep) struct picture_cache *c = calloc(1, sizeof(*c));
    struct head head = {.magic = MAGIC, .version = VERSION, .n = n, .size = size};
    uint64_t bytes;
    void *map;

    if (!c)
        return NULL;
    c->fd = -1;
    if (!file_size(n, size, &bytes) || bytes > at->budget || !may_map(bytes) ||
        !set_key(&head, at->owner, what))
        return NULL;
    c->fd = at->folder ? open_in_folder(at, &head, bytes) : open_temporary(&head, bytes);
    if (c->fd < 0)
        return NULL;
    map = mmap(NULL, (size_t)bytes, PROT_READ, MAP_SHARED, c->fd, 0);
    if (map == MAP_FAILED)
        return NULL;
    c->map = map;
    c->map_size = (size_t)bytes;
    c->n = n;
    c->size = size;
    c->stride = sizeof(uint64_t) + (size + 7) / 8 * 8;
    return TAKE(c);
}

struct picture_cache *picture_cache_free(struct picture_cache *c) {
    if (!c)
        return NULL;
    if (c->map)
        munmap((void *)(uintptr_t)c->map, c->map_size);
    if (c->fd >= 0)
        close(c->fd);
    free(c);
    return NULL;
}
