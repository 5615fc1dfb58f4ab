#include "compress/dataset.h"

#include <archive.h>
#include <archive_entry.h>
#include <errno.h>
#include <locale.h>
#include <openssl/evp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "compress/dataset_priv.h"

int dataset_bad(struct error *err, const char *member, const char *fmt, ...) {
    char text[256], name[160];
    va_list ap;

    va_start(ap, fmt);
    vsnprintf(text, sizeof(text), fmt, ap);
    va_end(ap);
    snprintf(name, sizeof(name), "%.150s", member);
    for (char *p = name; *p; p++)
        if ((unsigned char)*p < ' ')
            *p = '?';
    return error_code(err, -EBADMSG, "bad_dataset", "member '%s': %s", name, text);
}

void dataset_digest(const void *data, size_t size, uint8_t ret[32]) {
    EVP_Digest(data, size, ret, NULL, EVP_sha256(), NULL);
}

int dataset_divide(struct import *m, const uint8_t sha256[32], struct error *err) {
    uint32_t h = (uint32_t)sha256[0] << 24 | (uint32_t)sha256[1] << 16 | (uint32_t)sha256[2] << 8 | sha256[3];

    m->is_divided = true;
    return pack_writer_split(m->w, h % 5 == 0 ? "test" : "train", err);
}

static void import_done(struct import *m) {
    for (uint64_t i = 0; i < m->n_paths; i++)
        free(m->path[i]);
    free(m->path);
    for (size_t i = 0; i < m->n_held; i++) {
        free(m->held[i].name);
        free(m->held[i].data);
    }
    pack_writer_free(m->w);
}

/* ".." and absolute names are no mistake of a careful packer. */
static int check_name(const char *name, struct error *err) {
    const char *p = name;

    if (*name == '/')
        return dataset_bad(err, name, "an absolute name is not accepted");
    if (strlen(name) > 4096)
        return dataset_bad(err, name, "the name is too long");
    while (*p) {
        size_t n = strcspn(p, "/\\");

        if (n == 2 && p[0] == '.' && p[1] == '.')
            return dataset_bad(err, name, "'..' in a name is not accepted");
        p += n + (p[n] != 0);
    }
    return 0;
}

/* Dot-files, what lies in dot-folders, and what macOS adds are passed over. */
static bool is_passed_over(const char *name) {
    while (*name) {
        size_t n = strcspn(name, "/");

        if ((n > 1 && *name == '.') || (n == 8 && !strncmp(name, "__MACOSX", 8)))
            return true;
        name += n + (name[n] != 0);
    }
    return false;
}

/* No picture in a file is larger than this; arrays may be as large as the data set. */
#define PICTURE_BYTES_MAX ((size_t)256 << 20)

static int over_limit(struct error *err, const char *name) {
    return error_code(
        err, -EFBIG, "too_large", "member '%.100s': the archive expands to more than is allowed", name);
}

static int unreadable(struct error *err, struct archive *a, const char *name) {
    return dataset_bad(err, name, "cannot be read: %s", archive_error_string(a) ?: "damaged");
}

/* Reads a member that is not wanted: what it expands to counts, and takes no memory. */
static int drain_member(struct archive *a, const char *name, uint64_t *left, struct error *err) {
    char block[65536];
    ssize_t n;

    while ((n = archive_read_data(a, block, sizeof(block))) > 0) {
        if ((uint64_t)n > *left)
            return over_limit(err, name);
        *left -= (uint64_t)n;
    }
    return n < 0 ? unreadable(err, a, name) : 0;
}

static bool is_picture(const uint8_t *d, size_t n) {
    return (n > 3 && d[0] == 0xff && d[1] == 0xd8 && d[2] == 0xff) ||
           (n > 8 && !memcmp(d, "\x89PNG\r\n\x1a\n", 8));
}

static int read_member(
    struct archive *a, const char *name, uint64_t *left, uint8_t **ret, size_t *ret_size, struct error *err) {
    uint8_t *data = NULL;
    size_t size = 0, cap = 0;

    for (;;) {
        ssize_t n;

        if (size == cap) {
            uint8_t *bigger;

            cap = cap ? cap * 2 : 65536;
            bigger = realloc(data, cap);
            if (!bigger) {
                free(data);
                return error_oom(err);
            }
            data = bigger;
        }
        n = archive_read_data(a, data + size, cap - size);
        if (n < 0 || (uint64_t)n > *left) {
            free(data);
            return n < 0 ? unreadable(err, a, name) : over_limit(err, name);
        }
        if (n == 0)
            break;
        size += (size_t)n;
        *left -= (uint64_t)n;
        if (size > PICTURE_BYTES_MAX && is_picture(data, size)) {
            free(data);
            return error_code(err, -EFBIG, "too_large",
                "member '%.100s': no picture is larger than %zu bytes", name, PICTURE_BYTES_MAX);
        }
    }
    *ret = data;
    *ret_size = size;
    return 0;
}

static bool is_idx(const uint8_t *d, size_t n) {
    return n >= 8 && d[0] == 0 && d[1] == 0 && d[2] == 8 && (d[3] == 1 || d[3] == 3 || d[3] == 4);
}

static bool is_gzip(const uint8_t *d, size_t n) {
    return n > 2 && d[0] == 0x1f && d[1] == 0x8b;
}

static enum dataset_format kind_of(const uint8_t *d, size_t n) {
    if (is_picture(d, n))
        return DATASET_FOLDERS;
    if (n > 6 && !memcmp(d, "\x93NUMPY", 6))
        return DATASET_NPZ;
    return is_idx(d, n) ? DATASET_IDX : DATASET_DETECT;
}

/* A gzipped member (IDX): unpacked in memory, within what is left. */
static int gunzip(const char *name, uint8_t **data, size_t *size, uint64_t *left, struct error *err) {
    struct archive *a = archive_read_new();
    struct archive_entry *e;
    uint8_t *out = NULL;
    size_t n = 0;
    int r;

    if (!a)
        return error_oom(err);
    archive_read_support_filter_gzip(a);
    archive_read_support_format_raw(a);
    if (archive_read_open_memory(a, *data, *size) != ARCHIVE_OK ||
        archive_read_next_header(a, &e) != ARCHIVE_OK)
        r = dataset_bad(err, name, "is not readable gzip");
    else
        r = read_member(a, name, left, &out, &n, err);
    archive_read_free(a);
    if (r < 0)
        return r;
    free(*data);
    *data = out;
    *size = n;
    return 0;
}

/* Takes data. */
static int add_member(struct import *m, const char *name, uint8_t *data, size_t size, struct error *err) {
    enum dataset_format kind = kind_of(data, size);
    int r;

    if (kind == DATASET_DETECT) {
        free(data);
        return dataset_bad(err, name, "is neither a JPEG or PNG picture nor an array (npy, IDX)");
    }
    if (m->kind == DATASET_DETECT)
        m->kind = kind;
    if (kind != m->kind) {
        free(data);
        return dataset_bad(err, name, "pictures and arrays are mixed, or it is not of the wanted format");
    }
    if (kind != DATASET_FOLDERS)
        return arrays_hold(m, name, data, size, err);
    r = folders_add(m, name, data, size, err);
    free(data);
    return r;
}

static int take_entry(
    struct import *m, struct archive *a, struct archive_entry *e, uint64_t *left, struct error *err) {
    const char *name = archive_entry_pathname(e);
    uint8_t *data;
    size_t size;
    int r;

    if (!name || !*name)
        return dataset_bad(err, "", "it has no name that can be read");
    r = check_name(name, err);
    if (r < 0)
        return r;
    if (archive_entry_hardlink(e) || archive_entry_symlink(e) || archive_entry_filetype(e) == AE_IFLNK)
        return dataset_bad(err, name, "links are not accepted");
    if (archive_entry_filetype(e) == AE_IFDIR)
        return 0;
    if (archive_entry_filetype(e) != AE_IFREG)
        return dataset_bad(err, name, "only regular files are accepted");
    if (is_passed_over(name))
        return drain_member(a, name, left, err);
    r = read_member(a, name, left, &data, &size, err);
    if (r < 0)
        return r;
    if (is_gzip(data, size)) {
        r = gunzip(name, &data, &size, left, err);
        if (r < 0) {
            free(data);
            return r;
        }
    }
    return add_member(m, name, data, size, err);
}

static void archive_freep(struct archive **a) {
    archive_read_free(*a);
}

static int open_archive(int in, struct archive **ret, struct error *err) {
    struct archive *a = archive_read_new();

    *ret = a;
    if (!a)
        return error_oom(err);
    archive_read_support_filter_gzip(a);
    archive_read_support_filter_zstd(a);
    archive_read_support_format_tar(a);
    archive_read_support_format_zip(a);
    if (archive_read_open_fd(a, in, 1 << 16) != ARCHIVE_OK)
        return error_code(err, -EBADMSG, "bad_dataset",
            "the body is no tar, tar.gz, tar.zst or zip archive: %s",
            archive_error_string(a) ?: "unknown format");
    return 0;
}

static int read_archive(struct import *m, int in, const struct progress *p, struct error *err) {
    _cleanup_(archive_freep) struct archive *a = NULL;
    uint64_t left = m->o->max_bytes, members = 0;
    struct archive_entry *e;
    int r = open_archive(in, &a, err), status = ARCHIVE_OK;

    while (r == 0 && (status = archive_read_next_header(a, &e)) == ARCHIVE_OK) {
        if (++members > m->o->max_members)
            return error_code(err, -EFBIG, "too_large", "the archive has more than %llu members",
                (unsigned long long)m->o->max_members);
        r = take_entry(m, a, e, &left, err);
        if (r == 0 && members % 256 == 0)
            r = progress_at(p, 0, "reading", err);
    }
    if (r == 0 && status != ARCHIVE_EOF)
        r = error_code(err, -EBADMSG, "bad_dataset", "the archive is damaged after %llu members: %s",
            (unsigned long long)members, archive_error_string(a) ?: "unknown format");
    return r;
}

/* Items of an existing data set that are not replaced. */
static int carry_over(struct import *m, const struct pack *old, struct error *err) {
    int r = 0;

    for (uint32_t s = 0; old && m->o->split && s < pack_n_splits(old); s++) {
        int split =
            !strcmp(pack_split(old, s), m->o->split) ? -1 : pack_writer_split(m->w, pack_split(old, s), err);

        for (uint64_t i = 0; r == 0 && split >= 0 && i < pack_count(old, s); i++) {
            struct pack_item item;

            pack_item(old, s, i, &item);
            item.split = (uint16_t)split;
            if (item.label != PACK_NO_LABEL) {
                int label = pack_writer_class(m->w, pack_class(old, item.label), err);

                r = label < 0 ? label : 0;
                item.label = (uint32_t)label;
            }
            if (r == 0)
                r = pack_writer_add(m->w, &item, err);
        }
    }
    return r;
}

static json_t *split_json(const struct pack *p, uint32_t split) {
    json_t *classes = json_object();
    uint64_t *n = calloc((size_t)pack_n_classes(p) + 1, sizeof(*n));

    for (uint64_t i = 0; n && i < pack_count(p, split); i++) {
        struct pack_item item;

        pack_item(p, split, i, &item);
        if (item.label != PACK_NO_LABEL)
            n[item.label]++;
    }
    for (uint32_t c = 0; n && c < pack_n_classes(p); c++)
        json_object_set_new(classes, pack_class(p, c), json_integer((json_int_t)n[c]));
    free(n);
    return json_pack("{s:I, s:o}", "count", (json_int_t)pack_count(p, split), "classes", classes);
}

/* [H,W,C] when all items agree, null in places that differ. */
static json_t *shape_json(const struct pack *p) {
    int64_t dim[3] = {-1, -1, -1};
    bool differs[3] = {false};
    json_t *shape = json_array();

    for (uint32_t s = 0; s < pack_n_splits(p); s++)
        for (uint64_t i = 0; i < pack_count(p, s); i++) {
            struct pack_item item;
            int64_t have[3];

            pack_item(p, s, i, &item);
            have[0] = item.height;
            have[1] = item.width;
            have[2] = item.channels;
            for (int k = 0; k < 3; k++) {
                differs[k] = differs[k] || (dim[k] >= 0 && dim[k] != have[k]);
                dim[k] = have[k];
            }
        }
    for (int k = 0; k < 3; k++)
        json_array_append_new(shape, differs[k] || dim[k] < 0 ? json_null() : json_integer(dim[k]));
    return shape;
}

json_t *dataset_summary(const struct pack *p) {
    json_t *classes = json_array(), *splits = json_object();
    uint64_t count = 0;

    for (uint32_t c = 0; c < pack_n_classes(p); c++)
        json_array_append_new(classes, json_string(pack_class(p, c)));
    for (uint32_t s = 0; s < pack_n_splits(p); s++) {
        count += pack_count(p, s);
        if (pack_count(p, s) > 0)
            json_object_set_new(splits, pack_split(p, s), split_json(p, s));
    }
    return json_pack("{s:I, s:o, s:o, s:o}", "count", (json_int_t)count, "classes", classes, "shape",
        shape_json(p), "splits", splits);
}

static int finish(struct import *m, int out, json_t **ret, struct error *err) {
    _cleanup_(pack_freep) struct pack *pack = NULL;
    int r;

    if (m->kind == DATASET_FOLDERS)
        r = folders_finish(m, err);
    else if (m->kind == DATASET_NPZ)
        r = npz_finish(m, err);
    else
        r = m->kind == DATASET_IDX
                ? idx_finish(m, err)
                : error_code(err, -EBADMSG, "bad_dataset", "the archive holds no picture and no array");
    if (r == 0 && pack_writer_count(m->w) == 0)
        r = error_code(err, -EBADMSG, "bad_dataset", "the archive holds no picture");
    if (r == 0)
        r = carry_over(m, m->o->old, err);
    if (r == 0)
        r = pack_writer_finish(m->w, m->kind == DATASET_FOLDERS, err);
    if (r == 0)
        r = pack_open(out, &pack, err);
    if (r < 0)
        return r;
    *ret = dataset_summary(pack);
    if (*ret)
        json_object_set_new(*ret, "divided", json_boolean(m->is_divided));
    return *ret ? 0 : error_oom(err);
}

/* libarchive converts UTF-8 names by the thread's locale and refuses what that cannot hold. */
static locale_t use_utf8(void) {
    locale_t utf8 = newlocale(LC_CTYPE_MASK, "C.UTF-8", (locale_t)0);

    if (utf8)
        uselocale(utf8);
    return utf8;
}

int dataset_import(int in, int out, const struct dataset_options *o, const struct progress *p, json_t **ret,
    struct error *err) {
    _cleanup_(import_done) struct import m = {.o = o, .kind = o->format};
    locale_t before = uselocale((locale_t)0), utf8 = use_utf8();
    int r = pack_writer_new(out, &m.w, err);

    if (r == 0)
        r = read_archive(&m, in, p, err);
    uselocale(before);
    if (utf8)
        freelocale(utf8);
    return r < 0 ? r : finish(&m, out, ret, err);
}
