#include "tests/unit/archive_make.h"

#include <archive.h>
#include <archive_entry.h>
#include <locale.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "tests/unit/cmocka_all.h"

int memory_file(void) {
    int fd = memfd_create("test", MFD_CLOEXEC);

    assert_true(fd >= 0);
    return fd;
}

static unsigned type_of(const struct member *m) {
    if (m->type)
        return m->type;
    return m->data || m->name[strlen(m->name) - 1] != '/' ? AE_IFREG : AE_IFDIR;
}

static void put(struct archive *a, const struct member *m) {
    struct archive_entry *e = archive_entry_new();

    archive_entry_set_pathname(e, m->name);
    archive_entry_set_filetype(e, type_of(m));
    archive_entry_set_perm(e, 0644);
    archive_entry_set_size(e, (la_int64_t)m->size);
    if (m->link && m->is_hard)
        archive_entry_set_hardlink(e, m->link);
    else if (m->link)
        archive_entry_set_symlink(e, m->link);
    assert_int_equal(archive_write_header(a, e), ARCHIVE_OK);
    if (m->size)
        assert_int_equal(archive_write_data(a, m->data, m->size), m->size);
    archive_entry_free(e);
}

int archive_make(enum made_format format, const struct member *m, size_t n) {
    locale_t utf8 = newlocale(LC_CTYPE_MASK, "C.UTF-8", (locale_t)0); /* libarchive converts names by it */
    locale_t before = uselocale(utf8);
    struct archive *a = archive_write_new();
    int fd = memory_file();

    if (format == MADE_ZIP)
        archive_write_set_format_zip(a);
    else
        archive_write_set_format_pax_restricted(a);
    if (format == MADE_TAR_GZ)
        archive_write_add_filter_gzip(a);
    if (format == MADE_TAR_ZST)
        archive_write_add_filter_zstd(a);
    archive_write_set_bytes_per_block(a, 512);
    assert_int_equal(archive_write_open_fd(a, fd), ARCHIVE_OK);
    for (size_t i = 0; i < n; i++)
        put(a, &m[i]);
    assert_int_equal(archive_write_close(a), ARCHIVE_OK);
    archive_write_free(a);
    uselocale(before);
    freelocale(utf8);
    assert_int_equal(lseek(fd, 0, SEEK_SET), 0);
    return fd;
}
