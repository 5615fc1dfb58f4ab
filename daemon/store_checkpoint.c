/* The folders where jobs leave what they can go on from: checkpoints/ID, as long as the job is there and has
 * not succeeded. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "daemon/store_priv.h"

static int folder_of(const struct store *s, const char *id, char *ret, size_t size, struct error *err) {
    int n = snprintf(ret, size, "%s/checkpoints%s%s", s->dir, *id ? "/" : "", id);

    return n < 0 || (size_t)n >= size
               ? error_set(err, -ENAMETOOLONG, "the state directory's path is too long")
               : 0;
}

static int make(const char *path, struct error *err) {
    return mkdir(path, 0700) < 0 && errno != EEXIST ? error_errno(err, "the folder for checkpoints") : 0;
}

int store_checkpoint_open(struct store *s, const char *id, char *ret, size_t size, struct error *err) {
    int r = folder_of(s, "", ret, size, err);

    if (r == 0)
        r = make(ret, err);
    if (r == 0)
        r = folder_of(s, id, ret, size, err);
    return r < 0 ? r : make(ret, err);
}

void store_checkpoint_drop(struct store *s, const char *id) {
    char path[4096];
    struct dirent *e;
    DIR *d = folder_of(s, id, path, sizeof(path), NULL) == 0 ? opendir(path) : NULL;

    if (!d)
        return;
    while ((e = readdir(d)))
        if (strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0)
            unlinkat(dirfd(d), e->d_name, 0);
    closedir(d);
    rmdir(path);
}

/* May the job still go on? */
static bool is_wanted(struct store *s, const char *id) {
    json_t *doc = store_get(s, STORE_JOB, id);
    const char *state = json_string_value(json_object_get(doc, "state"));
    bool wanted = state && strcmp(state, "succeeded") != 0;

    json_decref(doc);
    return wanted;
}

void store_checkpoint_sweep(struct store *s) {
    char path[4096];
    struct dirent *e;
    DIR *d = folder_of(s, "", path, sizeof(path), NULL) == 0 ? opendir(path) : NULL;

    if (!d)
        return;
    while ((e = readdir(d)))
        if (e->d_name[0] != '.' && !is_wanted(s, e->d_name))
            store_checkpoint_drop(s, e->d_name);
    closedir(d);
}
