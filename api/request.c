#include "api/request.h"

#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/random.h>
#include <time.h>
#include <unistd.h>

#include "api/route.h"
#include "base/cleanup.h"

void request_init(struct request *r) {
    memset(r, 0, sizeof(*r));
    r->file.fd = -1;
}

void request_done(struct request *r) {
    free(r->path);
    for (size_t i = 0; i < r->n_segments; i++)
        free(r->segment[i]);
    for (size_t i = 0; i < r->n_query; i++)
        free((char *)(uintptr_t)r->query[i].name); /* name and value are one block */
    free(r->body);
    if (r->file.fd >= 0)
        close(r->file.fd);
    if (r->file.name)
        unlink(r->file.name);
    free(r->file.name);
    request_init(r);
}

void request_complete(struct request *r, const struct error *err) {
    if (err && err->err)
        reply_from_error(r->reply, err, r->id);
    r->complete(r);
}

/* Length of the parameter's name when `seg` (one segment of a row's path) is "{name}" or "{name*}", else 0.
 */
static size_t param_length(const char *seg, size_t n) {
    if (n < 3 || seg[0] != '{')
        return 0;
    return n - 2 - (seg[n - 2] == '*' ? 1 : 0);
}

const char *request_param(const struct request *r, const char *name) {
    const char *p = r->route->path;

    for (size_t i = 0; *p && i < r->n_segments; i++) {
        size_t n = strcspn(++p, "/");
        size_t len = param_length(p, n);

        if (len && len == strlen(name) && !strncmp(p + 1, name, len))
            return r->segment[i];
        p += n;
    }
    return "";
}

const char *request_header(const struct request *r, const char *name) {
    for (size_t i = 0; i < r->n_headers; i++)
        if (!strcasecmp(r->header[i].name, name))
            return r->header[i].value;
    return NULL;
}

/* Quality of `type` in an Accept header, -1 when only a wildcard or nothing covers it. RFC 9110, 12.5.1. */
static double accept_quality(const char *accept, const char *type) {
    size_t len = strlen(type);

    while (*accept) {
        size_t part = strcspn(accept, ",");
        const char *q;

        while (part && (*accept == ' ' || *accept == '\t')) {
            accept++;
            part--;
        }
        if (part >= len && !strncasecmp(accept, type, len) && (part == len || strchr(" ;\t", accept[len]))) {
            q = memmem(accept, part, "q=", 2);
            return q ? strtod(q + 2, NULL) : 1;
        }
        accept += part;
        accept += *accept == ',';
    }
    return -1;
}

bool request_accepts(const struct request *r, const char *type) {
    const char *accept = request_header(r, "Accept");
    double q;

    if (!accept)
        return false;
    q = accept_quality(accept, type);
    return q > 0 && q >= accept_quality(accept, "application/json");
}

const char *request_query(const struct request *r, const char *name) {
    for (size_t i = 0; i < r->n_query; i++)
        if (!strcmp(r->query[i].name, name))
            return r->query[i].value;
    return NULL;
}

bool request_query_bool(const struct request *r, const char *name, bool otherwise) {
    const char *v = request_query(r, name);

    return v ? !strcmp(v, "true") || !strcmp(v, "1") || !*v : otherwise;
}

uint64_t request_query_uint(const struct request *r, const char *name, uint64_t otherwise) {
    const char *v = request_query(r, name);

    return v ? strtoull(v, NULL, 10) : otherwise;
}

double request_query_real(const struct request *r, const char *name, double otherwise) {
    const char *v = request_query(r, name);

    return v ? strtod(v, NULL) : otherwise;
}

static int hex_digit(char c) {
    if (c >= '0' && c <= '9')
        return c - '0';
    c |= 0x20;
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* Length of the well-formed UTF-8 sequence at s (RFC 3629), 0: none. */
static size_t utf8_length(const unsigned char *s, size_t left) {
    static const unsigned char low[] = {0xe0, 0xed, 0xf0, 0xf4};
    static const unsigned char second_min[] = {0xa0, 0x80, 0x90, 0x80};
    static const unsigned char second_max[] = {0xbf, 0x9f, 0xbf, 0x8f};
    size_t n = s[0] < 0x80 ? 1 : s[0] < 0xc2 ? 0 : s[0] < 0xe0 ? 2 : s[0] < 0xf0 ? 3 : s[0] < 0xf5 ? 4 : 0;

    if (n > left)
        return 0;
    for (size_t i = 1; i < n; i++)
        if ((s[i] & 0xc0) != 0x80)
            return 0;
    for (size_t i = 0; n > 2 && i < sizeof(low); i++)
        if (s[0] == low[i] && (s[1] < second_min[i] || s[1] > second_max[i]))
            return 0;
    return n;
}

static bool is_utf8(const char *s, size_t size) {
    size_t i = 0;

    while (i < size) {
        size_t n = utf8_length((const unsigned char *)s + i, size - i);

        if (!n)
            return false;
        i += n;
    }
    return true;
}

enum decode_mode { DECODE_SEGMENT, DECODE_QUERY };

/* Decodes size bytes to out (at least size + 1), once. */
static int percent_decode(const char *in, size_t size, enum decode_mode mode, char *out, struct error *err) {
    size_t o = 0;

    for (size_t i = 0; i < size; i++) {
        unsigned char c = (unsigned char)in[i];

        if (c == '%') {
            int hi = i + 2 < size ? hex_digit(in[i + 1]) : -1;
            int lo = i + 2 < size ? hex_digit(in[i + 2]) : -1;

            if (hi < 0 || lo < 0)
                return error_set(
                    err, -EINVAL, "the request target has a '%%' without two hexadecimal digits");
            c = (unsigned char)(hi * 16 + lo);
            i += 2;
            if (mode == DECODE_SEGMENT && c == '/')
                return error_set(err, -EINVAL, "the path holds an encoded slash (%%2f)");
        } else if (c == '+' && mode == DECODE_QUERY) {
            c = ' ';
        }
        if (c < 0x20 || c == 0x7f)
            return error_set(err, -EINVAL, "the request target holds a control character");
        out[o++] = (char)c;
    }
    out[o] = 0;
    if (!is_utf8(out, o))
        return error_set(err, -EINVAL, "the request target is not UTF-8");
    return 0;
}

static int parse_path(struct request *r, const char *path, size_t size, struct error *err) {
    size_t pos = 1;

    if (!size || path[0] != '/')
        return error_set(err, -EINVAL, "the request target does not start with '/'");
    while (pos <= size) {
        const char *slash = memchr(path + pos, '/', size - pos);
        size_t len = slash ? (size_t)(slash - path) - pos : size - pos;
        _cleanup_(freep) char *seg = NULL;
        int rc;

        if (r->n_segments == REQUEST_MAX_SEGMENTS)
            return error_set(err, -EINVAL, "the path has more than %d segments", REQUEST_MAX_SEGMENTS);
        seg = malloc(len + 1);
        if (!seg)
            return error_oom(err);
        rc = percent_decode(path + pos, len, DECODE_SEGMENT, seg, err);
        if (rc)
            return rc;
        if (!strcmp(seg, ".") || !strcmp(seg, ".."))
            return error_set(err, -EINVAL, "the path holds a '%s' segment", seg);
        r->segment[r->n_segments++] = TAKE(seg);
        pos += len + 1;
    }
    return 0;
}

static int parse_pair(struct request *r, const char *pair, size_t size, struct error *err) {
    const char *eq = memchr(pair, '=', size);
    size_t n = eq ? (size_t)(eq - pair) : size;
    _cleanup_(freep) char *block = NULL;
    int rc;

    if (r->n_query == REQUEST_MAX_QUERY)
        return error_set(err, -EINVAL, "the query has more than %d parameters", REQUEST_MAX_QUERY);
    block = malloc(size + 2);
    if (!block)
        return error_oom(err);
    rc = percent_decode(pair, n, DECODE_QUERY, block, err);
    if (!rc && eq)
        rc = percent_decode(eq + 1, size - n - 1, DECODE_QUERY, block + n + 1, err);
    else if (!rc)
        block[n + 1] = 0;
    if (rc)
        return rc;
    r->query[r->n_query].value = block + n + 1;
    r->query[r->n_query++].name = TAKE(block);
    return 0;
}

int request_parse_target(struct request *r, const char *target, struct error *err) {
    size_t size = strcspn(target, "?#");
    const char *q = target[size] == '?' ? target + size + 1 : "";
    int rc;

    r->path = strndup(target, size);
    if (!r->path)
        return error_oom(err);
    rc = parse_path(r, target, size, err);
    while (!rc && *q) {
        size_t len = strcspn(q, "&#");

        if (len)
            rc = parse_pair(r, q, len, err);
        q += len;
        if (*q != '&')
            break;
        q++;
    }
    return rc;
}

bool request_is_name(const char *s) {
    size_t n = 0;

    if (!s || !isalnum((unsigned char)s[0]) || (s[0] & 0x80))
        return false;
    for (; s[n]; n++)
        if (n == 64 || (s[n] & 0x80) || (!isalnum((unsigned char)s[n]) && !strchr("._-", s[n])))
            return false;
    return true;
}

void request_use_body_id(struct request *r, const char *id) {
    if (!r->has_client_id && request_is_name(id))
        memcpy(r->id, id, strlen(id) + 1);
}

/* RFC 9562, 5.7: 48 bits of Unix milliseconds, version 7, variant 2, the rest random. */
void request_new_id(char ret[static REQUEST_ID_MAX]) {
    static const char hex[] = "0123456789abcdef";
    unsigned char u[16];
    struct timespec ts;
    uint64_t ms;
    size_t o = 0;

    if (getrandom(u, sizeof(u), 0) != sizeof(u))
        abort();
    clock_gettime(CLOCK_REALTIME, &ts);
    ms = (uint64_t)ts.tv_sec * 1000 + (uint64_t)ts.tv_nsec / 1000000;
    for (int i = 0; i < 6; i++)
        u[i] = (unsigned char)(ms >> (40 - 8 * i));
    u[6] = (unsigned char)(0x70 | (u[6] & 0x0f));
    u[8] = (unsigned char)(0x80 | (u[8] & 0x3f));
    for (int i = 0; i < 16; i++) {
        if (i == 4 || i == 6 || i == 8 || i == 10)
            ret[o++] = '-';
        ret[o++] = hex[u[i] >> 4];
        ret[o++] = hex[u[i] & 15];
    }
    ret[o] = 0;
}
