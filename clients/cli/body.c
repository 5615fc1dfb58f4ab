#include "clients/cli/body.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/cleanup.h"

#define FILE_LIMIT ((size_t)1 << 30)

int body_open(const char *path, FILE **ret, int64_t *ret_size, struct error *err) {
    _cleanup_(fclosep) FILE *f = NULL;
    struct stat st;

    if (!strcmp(path, "-")) {
        *ret = stdin;
        *ret_size = -1;
        return 0;
    }
    f = fopen(path, "rbe");
    if (!f || fstat(fileno(f), &st) < 0)
        return error_errno(err, "%s", path);
    if (S_ISDIR(st.st_mode))
        return error_set(err, -EISDIR, "%s is a folder", path);
    *ret = TAKE(f);
    *ret_size = S_ISREG(st.st_mode) ? (int64_t)st.st_size : -1;
    return 0;
}

int body_read(const char *path, struct buf *ret, struct error *err) {
    _cleanup_(fclosep) FILE *f = NULL;
    char chunk[16384];
    int64_t size;
    size_t n;
    int r;

    buf_init(ret, FILE_LIMIT);
    r = body_open(path, &f, &size, err);
    if (r < 0)
        return r;
    while ((n = fread(chunk, 1, sizeof(chunk), f)) > 0)
        if (buf_append(ret, chunk, n) < 0)
            return error_set(err, -EFBIG, "%s is larger than %zu bytes", path, FILE_LIMIT);
    return ferror(f) ? error_errno(err, "%s", path) : 0;
}

static int parse_json(const char *name, const char *text, size_t size, json_t **ret, struct error *err) {
    json_error_t e;
    json_t *j = json_loadb(text, size, JSON_DECODE_ANY, &e);

    if (!j)
        return error_set(err, -EINVAL, "%s: line %d, column %d: %s", name, e.line, e.column, e.text);
    *ret = j;
    return 0;
}

int body_json(const char *path_or_text, json_t **ret, struct error *err) {
    struct buf file;
    int r;

    if (*path_or_text == '[' || *path_or_text == '{')
        return parse_json("JSON", path_or_text, strlen(path_or_text), ret, err);
    r = body_read(path_or_text, &file, err);
    if (r == 0)
        r = parse_json(path_or_text, file.data ? file.data : "", file.size, ret, err);
    buf_done(&file);
    return r;
}

static json_t *lines_as_list(const char *text) {
    json_t *list = json_array();

    while (list && *text) {
        size_t size = strcspn(text, "\r\n");

        if (size)
            json_array_append_new(list, json_stringn(text, size));
        text += size;
        text += strspn(text, "\r\n");
    }
    return list;
}

int body_labels(const char *path, json_t **ret, struct error *err) {
    struct buf file;
    int r = body_read(path, &file, err);

    if (r == 0 && file.size && *file.data == '[')
        r = parse_json(path, file.data, file.size, ret, err);
    else if (r == 0)
        *ret = lines_as_list(file.data ? file.data : "");
    buf_done(&file);
    return r;
}

static const char *npy_datatype(const char *descr) {
    static const struct {
        const char *descr, *datatype;
    } types[] = {
        {"<f4", "FP32"},
        {"<f8", "FP64"},
        {"<f2", "FP16"},
        {"|u1", "UINT8"},
        {"<u2", "UINT16"},
        {"<u4", "UINT32"},
        {"<u8", "UINT64"},
        {"|i1", "INT8"},
        {"<i2", "INT16"},
        {"<i4", "INT32"},
        {"<i8", "INT64"},
        {"|b1", "BOOL"},
    };

    for (size_t i = 0; i < sizeof(types) / sizeof(types[0]); i++)
        if (!strncmp(descr, types[i].descr, 3) && descr[3] == '\'')
            return types[i].datatype;
    return NULL;
}

/* "(1, 28, 28)" */
static json_t *npy_shape(const char *text) {
    _cleanup_(json_decrefp) json_t *shape = json_array();

    for (text = strchr(text, '('); text && *text != ')';) {
        char *end;
        long long v;

        text += strspn(text, "(, ");
        if (*text == ')')
            break;
        v = strtoll(text, &end, 10);
        if (end == text || v < 0)
            return NULL;
        json_array_append_new(shape, json_integer(v));
        text = end;
    }
    return text ? TAKE(shape) : NULL;
}

/* The header is a Python dict: {'descr': '<f4', 'fortran_order': False, 'shape': (1, 28, 28), } */
int body_npy(const struct buf *file, const char **ret_datatype, json_t **ret_shape, size_t *ret_offset,
    struct error *err) {
    _cleanup_(freep) char *header = NULL;
    const char *descr, *shape;
    const unsigned char *p;
    size_t start, size;

    if (file->size < 12 || memcmp(file->data, "\x93NUMPY", 6))
        return error_set(err, -EINVAL, "not a NumPy array");
    p = (const unsigned char *)file->data;
    start = p[6] == 1 ? 10 : 12;
    size = p[6] == 1 ? (size_t)(p[8] | p[9] << 8)
                     : (size_t)p[8] | (size_t)p[9] << 8 | (size_t)p[10] << 16 | (size_t)p[11] << 24;
    if (size > file->size - start)
        return error_set(err, -EINVAL, "the NumPy header is cut off");
    header = strndup(file->data + start, size);
    if (!header)
        return error_oom(err);
    descr = strstr(header, "'descr': '");
    shape = strstr(header, "'shape': ");
    if (!descr || !shape || strstr(header, "'fortran_order': True"))
        return error_set(
            err, -EINVAL, "a NumPy array of this kind is not supported, only plain ones in C order");
    *ret_datatype = npy_datatype(descr + strlen("'descr': '"));
    if (!*ret_datatype)
        return error_set(err, -EINVAL, "the NumPy type %.8s is not supported", descr + strlen("'descr': '"));
    *ret_shape = npy_shape(shape);
    *ret_offset = start + size;
    return *ret_shape ? 0 : error_set(err, -EINVAL, "the shape of the NumPy array is malformed");
}
