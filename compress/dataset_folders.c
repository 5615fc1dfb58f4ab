/* Pictures in folders:  [common/] [train|val|test/] … CLASS / file. Where a file belongs shows only when all
 * names are known, so split and class are set at the end. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "compress/dataset_priv.h"
#include "image/decode.h"

static int keep_path(struct import *m, const char *member, struct error *err) {
    if (m->n_paths == m->cap_paths) {
        uint64_t cap = m->cap_paths ? m->cap_paths * 2 : 1024;
        char **bigger = realloc(m->path, cap * sizeof(*bigger));

        if (!bigger)
            return error_oom(err);
        m->path = bigger;
        m->cap_paths = cap;
    }
    while (!strncmp(member, "./", 2))
        member += 2;
    m->path[m->n_paths] = strdup(member);
    if (!m->path[m->n_paths])
        return error_oom(err);
    m->n_paths++;
    return 0;
}

int folders_add(struct import *m, const char *member, const uint8_t *data, size_t size, struct error *err) {
    struct decode_options limits = {.max_pixels = (int64_t)m->o->max_pixels};
    struct pack_item item = {.data = data, .size = size, .label = PACK_NO_LABEL};
    struct picture picture = {0};
    struct error why = {0};
    struct decode_info info;
    int r = decode_picture(data, size, &limits, &picture, &info, &why);

    picture_done(&picture);
    if (r < 0)
        return dataset_bad(err, member, "%s", why.text);
    item.kind = info.kind == DECODE_JPEG ? PACK_JPEG : PACK_PNG;
    item.height = (uint32_t)info.height;
    item.width = (uint32_t)info.width;
    item.channels = (uint8_t)info.channels;
    dataset_digest(data, size, item.sha256);
    r = keep_path(m, member, err);
    return r < 0 ? r : pack_writer_add(m->w, &item, err);
}

/* Length of the first folder of a path, 0: it lies in none. */
static size_t first_folder(const char *path) {
    const char *slash = strchr(path, '/');

    return slash ? (size_t)(slash - path) : 0;
}

static bool is_split_name(const char *path, size_t size) {
    return (size == 5 && !strncmp(path, "train", 5)) || (size == 3 && !strncmp(path, "val", 3)) ||
           (size == 4 && !strncmp(path, "test", 4));
}

/* The folder all files share at the top, to be passed over; not a split's, and not the only one (then it is
 * the class). */
static size_t common_folder(const struct import *m) {
    size_t n = first_folder(m->path[0]);
    bool has_more = false;

    if (!n || is_split_name(m->path[0], n))
        return 0;
    for (uint64_t i = 0; i < m->n_paths; i++) {
        if (first_folder(m->path[i]) != n || strncmp(m->path[i], m->path[0], n) != 0)
            return 0;
        has_more = has_more || first_folder(m->path[i] + n + 1) > 0;
    }
    return has_more ? n + 1 : 0;
}

/* The folder directly above the file: from *start, `size` long; 0: none. */
static size_t class_folder(const char *path, const char **start) {
    const char *file = strrchr(path, '/'), *from;

    if (!file)
        return 0;
    from = file;
    while (from > path && from[-1] != '/')
        from--;
    *start = from;
    return (size_t)(file - from);
}

struct place {
    const char *split; /* in the path, split_size long; 0: none */
    size_t split_size;
    const char *class;
    size_t class_size;
};

static struct place place_of(const char *path) {
    struct place p = {.split = path, .split_size = first_folder(path)};

    if (is_split_name(path, p.split_size))
        path += p.split_size + 1;
    else
        p.split_size = 0;
    p.class_size = class_folder(path, &p.class);
    return p;
}

static int split_id(struct import *m, const struct place *p, const uint8_t sha256[32], struct error *err) {
    char name[8];

    if (m->o->split)
        return pack_writer_split(m->w, m->o->split, err);
    if (!p->split_size)
        return dataset_divide(m, sha256, err);
    memcpy(name, p->split, p->split_size);
    name[p->split_size] = 0;
    return pack_writer_split(m->w, name, err);
}

static int class_id(struct import *m, const struct place *p, const char *member, struct error *err) {
    char name[256];
    json_t *utf8;

    if (p->class_size > 255)
        return dataset_bad(err, member, "the class name is longer than 255 bytes");
    memcpy(name, p->class, p->class_size);
    name[p->class_size] = 0;
    utf8 = json_string(name);
    json_decref(utf8);
    if (!utf8)
        return dataset_bad(err, member, "the class name is not UTF-8");
    return pack_writer_class(m->w, name, err);
}

/* All files agree on having a class, and on having a split folder. */
static int check_alike(const struct import *m, size_t skip, bool *ret_has_splits, struct error *err) {
    struct place first = place_of(m->path[0] + skip);

    for (uint64_t i = 1; i < m->n_paths; i++) {
        struct place p = place_of(m->path[i] + skip);

        if (!p.class_size != !first.class_size)
            return dataset_bad(err, m->path[i],
                p.class_size ? "it lies in a class folder while '%.80s' does not"
                             : "it lies in no class folder while '%.80s' does",
                m->path[0]);
        if (!p.split_size != !first.split_size)
            return dataset_bad(err, m->path[i],
                p.split_size ? "it lies in a split folder while '%.80s' does not"
                             : "it lies in no split folder while '%.80s' does",
                m->path[0]);
    }
    *ret_has_splits = first.split_size > 0;
    return 0;
}

/* Items of other split folders than the wanted one go nowhere. */
static bool is_wanted(const struct import *m, const struct place *p, bool has_splits) {
    return !m->o->split || !has_splits ||
           (strlen(m->o->split) == p->split_size && !strncmp(m->o->split, p->split, p->split_size));
}

int folders_finish(struct import *m, struct error *err) {
    size_t skip = m->n_paths ? common_folder(m) : 0;
    bool has_splits = false, found = false;
    int r = m->n_paths ? check_alike(m, skip, &has_splits, err) : 0;

    for (uint64_t i = 0; r == 0 && i < m->n_paths; i++) {
        struct place p = place_of(m->path[i] + skip);
        int split, class = -1;

        if (!is_wanted(m, &p, has_splits)) {
            pack_writer_drop(m->w, i);
            continue;
        }
        found = true;
        split = split_id(m, &p, pack_writer_item(m->w, i)->sha256, err);
        if (split >= 0 && p.class_size)
            class = class_id(m, &p, m->path[i], err);
        if (split < 0 || (p.class_size && class < 0))
            return split < 0 ? split : class;
        pack_writer_set(m->w, i, (uint16_t)split, class < 0 ? PACK_NO_LABEL : (uint32_t) class);
    }
    if (r == 0 && !found)
        r = error_code(err, -EBADMSG, "bad_dataset", "the archive has no folder '%.64s'",
            m->o->split ? m->o->split : "");
    return r;
}
