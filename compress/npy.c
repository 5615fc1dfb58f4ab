#include "compress/npy.h"

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define HEADER_LIMIT 4096

static const struct npy_type {
    const char *descr;
    enum dtype dtype;
} types[] = {
    {"<f2", DT_F16},
    {"<f4", DT_F32},
    {"<f8", DT_F64},
    {"<i2", DT_S16},
    {"<i4", DT_S32},
    {"<i8", DT_S64},
    {"<u2", DT_U16},
    {"<u4", DT_U32},
    {"<u8", DT_U64},
    {"|b1", DT_BOOL},
    {"|i1", DT_S8},
    {"|u1", DT_U8},
};

static int bad(struct error *err, const char *what) {
    return error_code(err, -EBADMSG, "bad_dataset", "npy: %s", what);
}

/* The text behind 'key': in the header's dict, or NULL. */
static const char *find_key(const char *header, const char *key) {
    char quoted[64];
    const char *p;

    snprintf(quoted, sizeof(quoted), "'%s':", key);
    p = strstr(header, quoted);
    if (!p)
        return NULL;
    p += strlen(quoted);
    while (*p == ' ')
        p++;
    return p;
}

static int parse_type(const char *header, enum dtype *ret, struct error *err) {
    const char *p = find_key(header, "descr");

    if (!p || *p != '\'')
        return bad(err, "the header has no simple 'descr'");
    for (size_t i = 0; i < sizeof(types) / sizeof(types[0]); i++)
        if (!strncmp(p + 1, types[i].descr, 3) && p[4] == '\'') {
            *ret = types[i].dtype;
            return 0;
        }
    return error_code(err, -EBADMSG, "bad_dataset",
        "npy: arrays of type %.8s are not accepted (numbers, little-endian)", p);
}

static int parse_shape(const char *header, struct shape *ret, struct error *err) {
    const char *p = find_key(header, "shape");
    struct shape s = {0};

    if (!p || *p != '(')
        return bad(err, "the header has no 'shape'");
    for (p++; *p != ')';) {
        char *end;
        long long v;

        if (*p == ',' || *p == ' ') {
            p++;
            continue;
        }
        if (!isdigit((unsigned char)*p) || s.rank == SHAPE_MAX_RANK)
            return bad(err, "the 'shape' is not a list of at most 8 sizes");
        errno = 0;
        v = strtoll(p, &end, 10);
        if (errno)
            return bad(err, "a size in 'shape' is too large");
        s.dim[s.rank++] = v;
        p = end;
    }
    *ret = s;
    return 0;
}

/* Magic and length checked; the dict's text, zero-terminated, to `header`. */
static int read_text(struct reader *r, char header[static HEADER_LIMIT + 1], struct error *err) {
    const uint8_t *magic, *text;
    uint8_t major, minor;
    uint16_t short_size;
    uint32_t size = 0;

    if (!reader_bytes(r, 6, &magic) || memcmp(magic, "\x93NUMPY", 6))
        return bad(err, "the file does not start with the npy magic");
    if (!reader_u8(r, &major) || !reader_u8(r, &minor) || major < 1 || major > 3)
        return bad(err, "unknown format version");
    if (major == 1 ? !reader_u16le(r, &short_size) : !reader_u32le(r, &size))
        return bad(err, "the header is cut off");
    if (major == 1)
        size = short_size;
    if (size > HEADER_LIMIT || !reader_bytes(r, size, &text))
        return bad(err, "the header is cut off or too long");
    memcpy(header, text, size);
    header[size] = 0;
    return 0;
}

int npy_read_header(struct reader *r, enum dtype *ret_type, struct shape *ret_shape, struct error *err) {
    char header[HEADER_LIMIT + 1];
    const char *order;
    int e = read_text(r, header, err);

    if (e < 0)
        return e;
    order = find_key(header, "fortran_order");
    if (!order || strncmp(order, "False", 5))
        return bad(err, "Fortran order is not accepted; save np.ascontiguousarray(x)");
    e = parse_type(header, ret_type, err);
    return e < 0 ? e : parse_shape(header, ret_shape, err);
}

int npy_read(const void *data, size_t size, struct tensor *ret, struct error *err) {
    struct tensor t = {0};
    struct reader r;
    size_t bytes;
    const uint8_t *p;
    int e;

    reader_init(&r, data, size);
    e = npy_read_header(&r, &t.dtype, &t.shape, err);
    if (e < 0)
        return e;
    if (!shape_bytes(&t.shape, t.dtype, &bytes) || !reader_bytes(&r, bytes, &p))
        return bad(err, "the file is shorter than its header says");
    t.data = (void *)(uintptr_t)p;
    *ret = t;
    return 0;
}

/* UTF-32 code point to UTF-8; returns the bytes written (at most 4). */
static int put_utf8(uint32_t c, char *to) {
    if (c < 0x80) {
        to[0] = (char)c;
        return 1;
    }
    if (c < 0x800) {
        to[0] = (char)(0xc0 | c >> 6);
        to[1] = (char)(0x80 | (c & 0x3f));
        return 2;
    }
    if (c < 0x10000) {
        to[0] = (char)(0xe0 | c >> 12);
        to[1] = (char)(0x80 | (c >> 6 & 0x3f));
        to[2] = (char)(0x80 | (c & 0x3f));
        return 3;
    }
    to[0] = (char)(0xf0 | (c >> 18 & 7));
    to[1] = (char)(0x80 | (c >> 12 & 0x3f));
    to[2] = (char)(0x80 | (c >> 6 & 0x3f));
    to[3] = (char)(0x80 | (c & 0x3f));
    return 4;
}

/* One padded text of `width` characters. */
static bool read_one(struct reader *r, size_t width, bool is_wide, char **ret) {
    char *s = malloc(width * 4 + 1), *to = s;

    for (size_t i = 0; s && i < width; i++) {
        uint32_t c = 0;
        uint8_t b = 0;

        if (is_wide ? !reader_u32le(r, &c) : !reader_u8(r, &b)) {
            free(s);
            return false;
        }
        c = is_wide ? c : b;
        if (c)
            to += put_utf8(c, to);
    }
    if (s)
        *to = 0;
    *ret = s;
    return s != NULL;
}

int npy_read_texts(const void *data, size_t size, char ***ret, size_t *ret_n, struct error *err) {
    char header[HEADER_LIMIT + 1];
    struct shape shape;
    const char *descr;
    char **list;
    struct reader r;
    size_t width, n, done = 0;
    int e;

    reader_init(&r, data, size);
    e = read_text(&r, header, err);
    if (e == 0)
        e = parse_shape(header, &shape, err);
    if (e < 0)
        return e;
    descr = find_key(header, "descr");
    if (!descr || (strncmp(descr, "'<U", 3) && strncmp(descr, "'|S", 3)) || shape.rank != 1 ||
        shape.dim[0] > 65536)
        return bad(err, "this array is not a list of texts");
    width = (size_t)strtoul(descr + 3, NULL, 10);
    n = (size_t)shape.dim[0];
    if (width > 1024)
        return bad(err, "its texts are too long");
    list = calloc(n + 1, sizeof(*list));
    while (list && done < n && read_one(&r, width, descr[2] == 'U', &list[done]))
        done++;
    if (!list || done < n) {
        for (size_t i = 0; i < done; i++)
            free(list[i]);
        free(list);
        return bad(err, "its texts are cut off");
    }
    *ret = list;
    *ret_n = n;
    return 0;
}

int npy_write_header(enum dtype t, const struct shape *s, char ret[static NPY_HEADER_MAX]) {
    char dict[NPY_HEADER_MAX - 10];
    const char *descr = NULL;
    int n, total;

    for (size_t i = 0; i < sizeof(types) / sizeof(types[0]); i++)
        if (types[i].dtype == t)
            descr = types[i].descr;
    if (!descr)
        return -EINVAL;
    n = snprintf(dict, sizeof(dict), "{'descr': '%s', 'fortran_order': False, 'shape': (", descr);
    for (int i = 0; i < s->rank; i++)
        n += snprintf(
            dict + n, sizeof(dict) - (size_t)n, "%lld,%s", (long long)s->dim[i], i + 1 < s->rank ? " " : "");
    n += snprintf(dict + n, sizeof(dict) - (size_t)n, "), }");
    total = (10 + n + 1 + 63) / 64 * 64; /* data starts aligned */
    if (total > NPY_HEADER_MAX)
        return -EINVAL;
    memcpy(ret, "\x93NUMPY\x01\x00", 8);
    ret[8] = (char)((total - 10) & 0xff);
    ret[9] = (char)((total - 10) >> 8);
    memset(ret + 10, ' ', (size_t)(total - 10));
    memcpy(ret + 10, dict, (size_t)n);
    ret[total - 1] = '\n';
    return total;
}
