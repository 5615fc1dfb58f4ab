#include "api/reply.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "api/request.h"
#include "api/stream.h"
#include "base/cleanup.h"

/* api.md, Conventions: the closed list. */
const struct error_row error_table[] = {
    {"bad_dataset", 422, 0},
    {"bad_json", 400, 0},
    {"bad_name", 400, 0},
    {"bad_request", 400, 0},
    {"cancelled", 409, 0},
    {"classes_do_not_match", 422, 0},
    {"data_required", 422, 0},
    {"deadline", 504, 0},
    {"digest_mismatch", 400, 0},
    {"disk_budget", 507, 0},
    {"draining", 503, 5},
    {"exists", 409, 0},
    {"forbidden", 403, 0},
    {"host_not_allowed", 403, 0},
    {"idempotency_key_reused", 409, 0},
    {"in_use", 409, 0},
    {"internal", 500, 0},
    {"invalid_model", 422, 0},
    {"job_finished", 409, 0},
    {"loading", 503, 1},
    {"memory_budget", 507, 0},
    {"method_not_allowed", 405, 0},
    {"method_not_applicable", 422, 0},
    {"name_taken", 409, 0},
    {"no_train_split", 422, 0},
    {"not_a_classifier", 422, 0},
    {"not_acceptable", 406, 0},
    {"not_found", 404, 0},
    {"not_implemented", 501, 0},
    {"not_loaded", 503, 1},
    {"origin_not_allowed", 403, 0},
    {"precondition_failed", 412, 0},
    {"preprocess_required", 422, 0},
    {"queue_full", 429, 1},
    {"range", 416, 0},
    {"requirement_not_met", 422, 0},
    {"shape_mismatch", 422, 0},
    {"time_limit", 422, 0},
    {"too_busy", 429, 1},
    {"too_large", 413, 0},
    {"unauthorized", 401, 0},
    {"unknown_field", 400, 0},
    {"unsupported_media_type", 415, 0},
    {"unsupported_operator", 422, 0},
    {"worker_crashed", 500, 0},
};
const size_t error_table_size = sizeof(error_table) / sizeof(error_table[0]);

static const struct {
    int err;
    const char *code;
} errno_codes[] = {
    {-EINVAL, "bad_request"},
    {-EDOM, "bad_request"},
    {-ERANGE, "bad_request"},
    {-ENOENT, "not_found"},
    {-EEXIST, "exists"},
    {-EBUSY, "in_use"},
    {-EFBIG, "too_large"},
    {-EBADMSG, "invalid_model"},
    {-EAGAIN, "queue_full"},
    {-ENOMEM, "memory_budget"},
    {-ENOSPC, "disk_budget"},
    {-EDQUOT, "disk_budget"},
    {-ETIMEDOUT, "deadline"},
    {-ETIME, "deadline"},
    {-EOPNOTSUPP, "not_implemented"},
    {-ENOSYS, "not_implemented"},
    {-ESHUTDOWN, "draining"},
    {-ECANCELED, "cancelled"},
    {-EACCES, "forbidden"},
    {-EPERM, "forbidden"},
};

const struct error_row *error_row_find(const char *code) {
    size_t lo = 0, hi = error_table_size;

    while (lo < hi) {
        size_t mid = (lo + hi) / 2;
        int c = strcmp(code, error_table[mid].code);

        if (!c)
            return &error_table[mid];
        if (c < 0)
            hi = mid;
        else
            lo = mid + 1;
    }
    return NULL;
}

const struct error_row *error_row_of(const struct error *err) {
    const struct error_row *row = err->code ? error_row_find(err->code) : NULL;

    for (size_t i = 0; !row && i < sizeof(errno_codes) / sizeof(errno_codes[0]); i++)
        if (errno_codes[i].err == err->err)
            row = error_row_find(errno_codes[i].code);
    return row ? row : error_row_find("internal");
}

void reply_init(struct reply *p) {
    memset(p, 0, sizeof(*p));
    p->fd = -1;
    p->timing = (struct reply_timing){-1, -1, -1, -1};
}

static void drop_content(struct reply *p) {
    free(p->bytes);
    if (p->fd >= 0)
        close(p->fd);
    stream_unref(p->stream);
    p->bytes = NULL;
    p->fixed = NULL;
    p->fd = -1;
    p->stream = NULL;
    p->size = 0;
    p->kind = REPLY_EMPTY;
    p->type = NULL;
}

void reply_done(struct reply *p) {
    drop_content(p);
    for (size_t i = 0; i < p->n_headers; i++)
        free(p->header[i].value);
    json_decref(p->details);
    reply_init(p);
}

int reply_empty(struct reply *p, unsigned status) {
    drop_content(p);
    p->status = status;
    return 0;
}

int reply_bytes(struct reply *p, unsigned status, const char *type, char *bytes, size_t size) {
    drop_content(p);
    p->status = status;
    p->kind = REPLY_BYTES;
    p->type = type;
    p->bytes = bytes;
    p->size = size;
    return 0;
}

int reply_text(struct reply *p, unsigned status, const char *type, const char *text, struct error *err) {
    char *copy = strdup(text);

    if (!copy)
        return error_oom(err);
    return reply_bytes(p, status, type, copy, strlen(copy));
}

int reply_static(struct reply *p, unsigned status, const char *type, const void *bytes, size_t size) {
    drop_content(p);
    p->status = status;
    p->kind = REPLY_STATIC;
    p->type = type;
    p->fixed = bytes;
    p->size = size;
    return 0;
}

int reply_json(struct reply *p, unsigned status, json_t *doc, struct error *err) {
    char *text = doc ? json_dumps(doc, JSON_COMPACT | JSON_ENCODE_ANY | JSON_REAL_PRECISION(15)) : NULL;

    json_decref(doc);
    if (!text)
        return error_set(err, -EPROTO, "the answer cannot be written as JSON");
    return reply_bytes(p, status, "application/json", text, strlen(text));
}

int reply_stream(struct reply *p, const char *type, struct stream *s) {
    drop_content(p);
    p->status = 200;
    p->kind = REPLY_STREAM;
    p->type = type;
    p->stream = s;
    return 0;
}

int reply_header(struct reply *p, const char *name, const char *fmt, ...) {
    char *value = NULL;
    va_list ap;
    int n;

    va_start(ap, fmt);
    n = vasprintf(&value, fmt, ap);
    va_end(ap);
    if (n < 0)
        return -ENOMEM;
    for (int i = 0; i < n; i++)
        if ((unsigned char)value[i] < 0x20 || value[i] == 0x7f)
            n = -1;
    if (n < 0 || p->n_headers == REPLY_MAX_HEADERS) {
        free(value);
        return -EINVAL;
    }
    p->header[p->n_headers++] = (struct reply_field){name, value};
    return 0;
}

/* True when the list of entity tags names `etag`; weak marks are passed over (RFC 9110, 13.1). */
static bool etag_listed(const char *list, const char *etag) {
    size_t len = strlen(etag);

    if (!strcmp(list, "*"))
        return true;
    for (const char *q = strchr(list, '"'); q; q = strchr(q, '"')) {
        const char *end = strchr(q + 1, '"');

        if (!end)
            return false;
        if ((size_t)(end - q - 1) == len && !memcmp(q + 1, etag, len))
            return true;
        q = end + 1;
    }
    return false;
}

bool reply_unchanged(struct request *r, struct reply *p, const char *etag) {
    const char *have = request_header(r, "If-None-Match");

    reply_header(p, "ETag", "\"%s\"", etag);
    if (!have || !etag_listed(have, etag))
        return false;
    reply_empty(p, 304);
    return true;
}

int reply_tagged(
    struct request *r, struct reply *p, const char *type, char *bytes, size_t size, const char *etag) {
    if (!reply_unchanged(r, p, etag))
        return reply_bytes(p, 200, type, bytes, size);
    free(bytes);
    return 0;
}

int reply_check_if_match(const struct request *r, const char *etag, struct error *err) {
    const char *want = request_header(r, "If-Match");

    if (!want || etag_listed(want, etag))
        return 0;
    return error_code(
        err, -EINVAL, "precondition_failed", "it was changed meanwhile: its ETag is now \"%s\"", etag);
}

enum range_result { RANGE_NONE, RANGE_OK, RANGE_BAD };

/* One byte range of `size`; several ranges, or units we do not know, are answered whole (RFC 9110, 14.2). */
static enum range_result parse_range(const char *s, uint64_t size, uint64_t *first, uint64_t *count) {
    uint64_t a, b = UINT64_MAX;
    char *end;

    if (strncmp(s, "bytes=", 6) != 0 || strchr(s, ','))
        return RANGE_NONE;
    s += 6;
    if (strspn(s, "0123456789-") != strlen(s) || !strchr(s, '-') || !strcmp(s, "-"))
        return RANGE_NONE;
    if (*s == '-') {
        b = strtoull(s + 1, NULL, 10);
        if (!b || !size)
            return RANGE_BAD;
        *count = b < size ? b : size;
        *first = size - *count;
        return RANGE_OK;
    }
    a = strtoull(s, &end, 10);
    if (*end != '-')
        return RANGE_NONE;
    if (end[1])
        b = strtoull(end + 1, NULL, 10);
    if (b < a)
        return RANGE_NONE;
    if (a >= size)
        return RANGE_BAD;
    *first = a;
    *count = (b < size ? b + 1 : size) - a;
    return RANGE_OK;
}

int reply_file(struct request *r, struct reply *p, int fd, uint64_t size, const char *type, const char *etag,
    struct error *err) {
    const char *range = request_header(r, "Range");
    const char *if_range = request_header(r, "If-Range");
    uint64_t first = 0, count = size;
    enum range_result rr = RANGE_NONE;
    _cleanup_(closep) int file = fd;

    reply_header(p, "Accept-Ranges", "bytes");
    if (reply_unchanged(r, p, etag))
        return 0;
    if (range && (!if_range || etag_listed(if_range, etag)))
        rr = parse_range(range, size, &first, &count);
    if (rr == RANGE_BAD) {
        reply_header(p, "Content-Range", "bytes */%llu", (unsigned long long)size);
        return error_code(err, -ERANGE, "range", "the file has %llu bytes", (unsigned long long)size);
    }
    drop_content(p);
    if (rr == RANGE_OK)
        reply_header(p, "Content-Range", "bytes %llu-%llu/%llu", (unsigned long long)first,
            (unsigned long long)(first + count - 1), (unsigned long long)size);
    p->status = rr == RANGE_OK ? 206 : 200;
    p->kind = REPLY_FILE;
    p->type = type;
    p->fd = take_fd(&file);
    p->file_offset = first;
    p->file_size = count;
    return 0;
}

int reply_details(struct reply *p, json_t *doc, int ret) {
    json_decref(p->details);
    p->details = doc;
    return ret;
}

void reply_from_error(struct reply *p, const struct error *err, const char *request_id) {
    const struct error_row *row = error_row_of(err);
    unsigned retry = p->retry_after_s ? p->retry_after_s : row->retry_after_s;
    json_t *doc;
    char *text;

    drop_content(p);
    p->status = row->status;
    doc = json_pack("{s:s%, s:s, s:s}", "error", err->text, strlen(err->text), "code", row->code,
        "request_id", request_id);
    if (!doc) /* the sentence is not UTF-8: foreign bytes in it */
        doc = json_pack("{s:s, s:s, s:s}", "error", "the request was refused", "code", row->code,
            "request_id", request_id);
    if (doc && p->details)
        json_object_set(doc, "details", p->details);
    text = doc ? json_dumps(doc, JSON_COMPACT) : NULL;
    json_decref(doc);
    p->type = "application/json";
    if (text) {
        p->kind = REPLY_BYTES;
        p->bytes = text;
        p->size = strlen(text);
    } else {
        static const char fallback[] =
            "{\"error\":\"out of memory\",\"code\":\"internal\",\"request_id\":\"\"}";

        p->kind = REPLY_STATIC;
        p->fixed = fallback;
        p->size = sizeof(fallback) - 1;
    }
    if (retry)
        reply_header(p, "Retry-After", "%u", retry);
    if (row->status == 401)
        reply_header(p, "WWW-Authenticate", "Bearer");
}
