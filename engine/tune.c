#include "engine/tune.h"

#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/fnv.h"
#include "engine/kernel/kernel.h"

#define FIRST_LINE "bonsaid timings 1"
/* Of the kernels' code: count it up when one becomes faster or slower, so that old times are forgotten. */
#define KERNELS_VERSION 1

#define MAX_KEYS  65536
#define MAX_FILE  ((size_t)64 << 20)
#define N_BUCKETS 1024

struct row {
    struct row *next;
    struct timing timing;
    char key[];
};

struct tuner {
    char *path;
    pthread_mutex_t mutex; /* protects the rest */
    struct row *bucket[N_BUCKETS];
    size_t n_rows;
    bool is_changed;
};

static uint64_t kernels_hash(void) {
    uint64_t h = FNV_START + KERNELS_VERSION;

    for (size_t i = 0; i < kernel_table_size; i++)
        h = fnv_text(h, kernel_table[i]->name);
    for (size_t i = 0; i < kernel_convert_table_size; i++)
        h = fnv_text(h, kernel_convert_table[i]->name);
    return h;
}

/* "model name" of the first processor; "" when the system does not say. */
static void cpu_name(char *ret, size_t size) {
    _cleanup_(fclosep) FILE *f = fopen("/proc/cpuinfo", "re");
    char line[512];

    ret[0] = 0;
    while (f && fgets(line, sizeof(line), f)) {
        const char *value = strchr(line, ':');

        if (strncmp(line, "model name", 10) != 0 || !value)
            continue;
        snprintf(ret, size, "%s", value + 1 + strspn(value + 1, " "));
        ret[strcspn(ret, "\n")] = 0;
        return;
    }
}

static struct row *find(struct tuner *t, const char *key, struct row ***ret_at) {
    struct row **at = &t->bucket[fnv_text(FNV_START, key) % N_BUCKETS];

    while (*at && strcmp((*at)->key, key) != 0)
        at = &(*at)->next;
    *ret_at = at;
    return *at;
}

static int put_locked(struct tuner *t, const char *key, const struct timing *timing) {
    size_t size = strlen(key) + 1;
    struct row **at, *row = find(t, key, &at);

    if (!row) {
        if (t->n_rows == MAX_KEYS || size > TUNE_KEY_MAX)
            return 0;
        row = calloc(1, sizeof(*row) + size);
        if (!row)
            return -ENOMEM;
        memcpy(row->key, key, size);
        *at = row;
        t->n_rows++;
    }
    row->timing = *timing;
    return 0;
}

/* "t ROUNDS US US KEY" */
static bool read_row(const char *line, struct timing *ret, const char **ret_key) {
    char *p;
    long n;

    if (strncmp(line, "t ", 2) != 0)
        return false;
    n = strtol(line + 2, &p, 10);
    if (n < 1 || n > TUNE_ROUNDS)
        return false;
    *ret = (struct timing){.n_rounds = (int)n};
    for (int i = 0; i < TUNE_ROUNDS; i++) {
        char *end;

        ret->us[i] = strtof(p, &end);
        if (end == p || isnan(ret->us[i]) || ret->us[i] < 0)
            return false;
        p = end;
    }
    if (*p != ' ' || !p[1] || strlen(p + 1) >= TUNE_KEY_MAX)
        return false;
    *ret_key = p + 1;
    return true;
}

static int check_head(char **lines, struct error *why) {
    char want[640], cpu[512];

    if (strcmp(strsep(lines, "\n"), FIRST_LINE) != 0 || !*lines)
        return error_set(why, -EINVAL, "it is not a file of timings");
    cpu_name(cpu, sizeof(cpu));
    snprintf(want, sizeof(want), "cpu %s", cpu);
    if (strcmp(strsep(lines, "\n"), want) != 0 || !*lines)
        return error_set(why, -EINVAL, "it was measured on another processor");
    snprintf(want, sizeof(want), "kernels %016llx", (unsigned long long)kernels_hash());
    if (strcmp(strsep(lines, "\n"), want) != 0)
        return error_set(why, -EINVAL, "it was measured with other kernels");
    return 0;
}

static int read_text(struct tuner *t, char *text, struct error *why) {
    char *lines = text, *line;
    int r = check_head(&lines, why), n = 4;

    for (; r == 0 && lines && (line = strsep(&lines, "\n")); n++) {
        struct timing timing;
        const char *key;

        if (!*line)
            continue;
        if (!read_row(line, &timing, &key))
            return error_set(why, -EINVAL, "line %d is damaged; what stands before it is used", n);
        r = put_locked(t, key, &timing);
    }
    return r;
}

static int read_file(struct tuner *t, struct error *why) {
    _cleanup_(closep) int fd = open(t->path, O_RDONLY | O_CLOEXEC);
    _cleanup_(freep) char *text = NULL;
    struct stat st;
    size_t at = 0;

    if (fd < 0)
        return errno == ENOENT ? 0 : error_errno(why, "open");
    if (fstat(fd, &st) < 0 || !S_ISREG(st.st_mode) || st.st_size < 0 || (size_t)st.st_size > MAX_FILE)
        return error_set(why, -EINVAL, "it is not a file of timings");
    text = calloc(1, (size_t)st.st_size + 1);
    if (!text)
        return -ENOMEM;
    while (at < (size_t)st.st_size) {
        ssize_t n = read(fd, text + at, (size_t)st.st_size - at);

        if (n < 0)
            return error_errno(why, "read");
        if (n == 0)
            break;
        at += (size_t)n;
    }
    return read_text(t, text, why);
}

int tuner_new(const char *path, struct tuner **ret, struct error *why) {
    _cleanup_(tuner_freep) struct tuner *t = calloc(1, sizeof(*t));
    int r = 0;

    if (!t)
        return -ENOMEM;
    pthread_mutex_init(&t->mutex, NULL);
    if (path && !(t->path = strdup(path)))
        return -ENOMEM;
    if (path)
        r = read_file(t, why);
    if (r == -ENOMEM)
        return r;
    if (r < 0)
        error_prefix(why, r, "timings of kernels in '%s' are not used", path);
    *ret = TAKE(t);
    return 0;
}

struct tuner *tuner_free(struct tuner *t) {
    if (!t)
        return NULL;
    for (size_t i = 0; i < N_BUCKETS; i++) {
        for (struct row *r = t->bucket[i], *next; r; r = next) {
            next = r->next;
            free(r);
        }
    }
    pthread_mutex_destroy(&t->mutex);
    free(t->path);
    free(t);
    return NULL;
}

struct timing tuner_get(struct tuner *t, const char *key) {
    struct timing found = {0};
    struct row **at, *row;

    pthread_mutex_lock(&t->mutex);
    row = find(t, key, &at);
    if (row)
        found = row->timing;
    pthread_mutex_unlock(&t->mutex);
    return found;
}

int tuner_put(struct tuner *t, const char *key, const struct timing *timing) {
    int r;

    pthread_mutex_lock(&t->mutex);
    r = put_locked(t, key, timing);
    t->is_changed = true;
    pthread_mutex_unlock(&t->mutex);
    return r;
}

size_t tuner_count(struct tuner *t) {
    size_t n;

    pthread_mutex_lock(&t->mutex);
    n = t->n_rows;
    pthread_mutex_unlock(&t->mutex);
    return n;
}

static bool write_rows(struct tuner *t, FILE *f) {
    char cpu[512];

    cpu_name(cpu, sizeof(cpu));
    fprintf(f, "%s\ncpu %s\nkernels %016llx\n", FIRST_LINE, cpu, (unsigned long long)kernels_hash());
    for (size_t i = 0; i < N_BUCKETS; i++) {
        for (const struct row *r = t->bucket[i]; r; r = r->next)
            fprintf(f, "t %d %.9g %.9g %s\n", r->timing.n_rounds, (double)r->timing.us[0],
                (double)r->timing.us[1], r->key);
    }
    return fflush(f) == 0 && !ferror(f);
}

/* A crash of the machine may lose the file, and then it is measured anew: no need to wait for the disk. */
static int save_locked(struct tuner *t, struct error *err) {
    _cleanup_(fclosep) FILE *f = NULL;
    char tmp[4096];
    int fd;

    if ((size_t)snprintf(tmp, sizeof(tmp), "%s.XXXXXX", t->path) >= sizeof(tmp))
        return error_set(err, -ENAMETOOLONG, "'%s': the name is too long", t->path);
    fd = mkostemp(tmp, O_CLOEXEC);
    if (fd < 0)
        return error_errno(err, "'%s'", tmp);
    f = fdopen(fd, "we");
    if (!f)
        close(fd);
    if (!f || !write_rows(t, f) || rename(tmp, t->path) < 0) {
        error_errno(err, "'%s'", t->path);
        unlink(tmp);
        return err ? err->err : -EIO;
    }
    t->is_changed = false;
    return 0;
}

int tuner_save(struct tuner *t, struct error *err) {
    int r = 0;

    pthread_mutex_lock(&t->mutex);
    if (t->path && t->is_changed)
        r = save_locked(t, err);
    pthread_mutex_unlock(&t->mutex);
    return r;
}
