/* The folder of decoded pictures, pictures/DIGEST-…: workers fill it within its budget, the daemon removes
 * what belongs to a data set that is gone. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "daemon/store_priv.h"

static bool folder_of(const struct store *s, char *ret, size_t size) {
    int n = snprintf(ret, size, "%s/pictures", s->dir);

    return n > 0 && (size_t)n < size;
}

/* The digest that a path or a file of pictures names; false: none. */
static bool digest_of(const char *name, char ret[static DIGEST_MAX]) {
    snprintf(ret, DIGEST_MAX, "sha256:%.64s", name);
    return digest_is_valid(ret);
}

void store_pictures_offer(struct store *s, uint64_t bytes, json_t *request) {
    const char *pack = json_string_value(json_object_get(request, "pack")),
               *name = pack ? strrchr(pack, '/') : NULL;
    char folder[4096], digest[DIGEST_MAX];

    if (!name || !bytes || !digest_of(name + 1, digest) || !folder_of(s, folder, sizeof(folder)))
        return;
    if (mkdir(folder, 0700) < 0 && errno != EEXIST)
        return;
    json_object_set_new(request, "cache",
        json_pack("{s:s, s:s, s:I}", "folder", folder, "owner", digest + strlen("sha256:"), "bytes",
            (json_int_t)bytes));
}

/* Removes files of this digest; NULL: of all that no document names. */
static void drop(struct store *s, const char *digest) {
    char folder[4096], owner[DIGEST_MAX];
    DIR *d = folder_of(s, folder, sizeof(folder)) ? opendir(folder) : NULL;
    const struct dirent *e;

    if (!d)
        return;
    while ((e = readdir(d))) {
        if (e->d_name[0] == '.')
            continue;
        if (!digest_of(e->d_name, owner) ||
            (digest ? !strcmp(owner, digest) : !store_blob_is_named(s, owner)))
            unlinkat(dirfd(d), e->d_name, 0);
    }
    closedir(d);
}

void store_pictures_drop(struct store *s, const char *digest) {
    drop(s, digest);
}

void store_pictures_sweep(struct store *s) {
    drop(s, NULL);
}
