#include "daemon/cgroup.h"

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"

/* The line of version 2 is "0::/path"; those of version 1 have a controller between the colons. */
static bool read_group(const char *membership, char *ret, size_t size) {
    _cleanup_(fclosep) FILE *f = fopen(membership, "re");

    while (f && fgets(ret, (int)size, f)) {
        size_t n = strcspn(ret, "\n");

        if (strncmp(ret, "0::/", 4) || ret[n] != '\n')
            continue;
        memmove(ret, ret + 3, n - 3);
        ret[n - 3] = 0;
        return true;
    }
    return false;
}

/* 0: none ("max"), or no such group: a container may see the path of its host and its own group as the root.
 */
static uint64_t read_limit(const char *mount, const char *group) {
    _cleanup_(freep) char *path = NULL;
    _cleanup_(fclosep) FILE *f = NULL;
    char text[64];

    if (asprintf(&path, "%s%s/memory.max", mount, group) < 0) {
        path = NULL;
        return 0;
    }
    f = fopen(path, "re");
    return f && fgets(text, sizeof(text), f) ? strtoull(text, NULL, 10) : 0;
}

uint64_t cgroup_memory_limit(const char *membership, const char *mount) {
    char group[4096];
    uint64_t least = 0;

    if (!read_group(membership, group, sizeof(group)))
        strcpy(group, "/");
    for (;;) {
        char *slash = strrchr(group, '/');
        uint64_t limit = read_limit(mount, group);

        if (limit && (!least || limit < least))
            least = limit;
        if (!slash)
            return least;
        *slash = 0;
    }
}
