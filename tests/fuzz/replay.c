/* Runs a fuzz target over the files of folders, and over N mutations of each (the same ones every time):
 *     fuzz_onnx [-m N] DIR...
 * Ends with "R runs of F files". A crash names the file on standard error before. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "tests/fuzz/fuzz.h"

#define MAX_FILE ((size_t)8 << 20)

struct count {
    unsigned long files, runs;
};

/* xorshift64* (Vigna 2016): the same on every machine. */
static uint64_t next_random(uint64_t *s) {
    *s ^= *s >> 12;
    *s ^= *s << 25;
    *s ^= *s >> 27;
    return *s * 0x2545f4914f6cdd1du;
}

/* A block of exactly `size` bytes, so that the sanitiser sees a read past its end. */
static void run_exact(const uint8_t *data, size_t size) {
    uint8_t *copy = malloc(size ? size : 1);

    if (!copy)
        return;
    memcpy(copy, data, size);
    LLVMFuzzerTestOneInput(copy, size);
    free(copy);
}

/* Flips, overwrites, cuts off or repeats; one to four times. */
static size_t mutate(uint8_t *p, size_t size, uint64_t *rng) {
    static const uint8_t telling[] = {0x00, 0x01, 0x7f, 0x80, 0xff};
    unsigned times = 1 + (unsigned)(next_random(rng) % 4);

    for (unsigned i = 0; i < times && size > 1; i++) {
        size_t at = next_random(rng) % size, other = next_random(rng) % size;
        size_t n = size - (at > other ? at : other);

        switch (next_random(rng) % 5) {
        case 0: p[at] ^= (uint8_t)(1u << next_random(rng) % 8); break;
        case 1: p[at] = telling[next_random(rng) % sizeof(telling)]; break;
        case 2: p[at] = (uint8_t)next_random(rng); break;
        case 3: memmove(p + at, p + other, n > 32 ? 32 : n); break;
        default: size = at ? at : 1; break;
        }
    }
    return size;
}

static void run_file(const uint8_t *data, size_t size, unsigned long mutations, struct count *c) {
    uint64_t rng = 0x9e3779b97f4a7c15u ^ size;

    run_exact(data, size);
    for (unsigned long i = 0; i < mutations; i++) {
        _cleanup_(freep) uint8_t *copy = malloc(size + 1);

        if (!copy)
            return;
        memcpy(copy, data, size);
        run_exact(copy, mutate(copy, size, &rng));
    }
    c->files++;
    c->runs += mutations + 1;
}

static bool replay_file(int dir, const char *name, unsigned long mutations, struct count *c) {
    _cleanup_(closep) int fd = openat(dir, name, O_RDONLY | O_CLOEXEC);
    _cleanup_(freep) uint8_t *data = NULL;
    struct stat st;

    if (fd < 0 || fstat(fd, &st) < 0)
        return false;
    if (!S_ISREG(st.st_mode) || (size_t)st.st_size > MAX_FILE)
        return true;
    data = malloc((size_t)st.st_size + 1);
    if (!data || pread(fd, data, (size_t)st.st_size, 0) != st.st_size)
        return false;
    fprintf(stderr, "%s\n", name);
    run_file(data, (size_t)st.st_size, mutations, c);
    return true;
}

static bool replay_dir(const char *path, unsigned long mutations, struct count *c) {
    DIR *d = opendir(path);
    bool ok = d != NULL;

    for (struct dirent *e; ok && (e = readdir(d)) != NULL;)
        if (e->d_name[0] != '.')
            ok = replay_file(dirfd(d), e->d_name, mutations, c);
    if (!ok)
        fprintf(stderr, "%s: %s\n", path, strerror(errno));
    if (d)
        closedir(d);
    return ok;
}

int main(int argc, char **argv) {
    struct count c = {0};
    unsigned long mutations = 0;
    int opt;

    while ((opt = getopt(argc, argv, "m:")) != -1) {
        if (opt != 'm')
            return 2;
        mutations = strtoul(optarg, NULL, 10);
    }
    for (int i = optind; i < argc; i++)
        if (!replay_dir(argv[i], mutations, &c))
            return 1;
    printf("%lu runs of %lu files\n", c.runs, c.files);
    return c.files ? 0 : 1;
}
