#include "base/activity.h"

#include <errno.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

int activity_map(int fd, const struct activity_page **ret, struct error *err) {
    struct stat st;
    void *page = MAP_FAILED;

    if (fstat(fd, &st) == 0 && st.st_size >= (off_t)sizeof(**ret))
        page = mmap(NULL, sizeof(**ret), PROT_READ, MAP_SHARED, fd, 0);
    close(fd);
    if (page == MAP_FAILED)
        return error_set(err, -EINVAL, "the descriptor %d is no page of the server's activity", fd);
    *ret = page;
    return 0;
}
