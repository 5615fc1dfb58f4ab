#include "api/body.h"

#include <errno.h>
#include <string.h>

#include "api/api.h"

/* Nesting of the text; brackets in strings do not count. */
static unsigned depth_of(const char *p, size_t size) {
    unsigned depth = 0, most = 0;
    bool in_string = false;

    for (const char *end = p + size; p < end; p++) {
        if (in_string) {
            if (*p == '\\')
                p++;
            else if (*p == '"')
                in_string = false;
        } else if (*p == '"') {
            in_string = true;
        } else if (*p == '[' || *p == '{') {
            depth++;
            most = depth > most ? depth : most;
        } else if ((*p == ']' || *p == '}') && depth) {
            depth--;
        }
    }
    return most;
}

int body_json(const struct request *r, bool may_be_empty, json_t **ret, struct error *err) {
    json_error_t where;
    json_t *doc;

    if (!r->body_size && may_be_empty) {
        *ret = json_object();
        return *ret ? 0 : error_oom(err);
    }
    if (depth_of(r->body ? r->body : "", r->body_size) > r->api->limits.json_depth)
        return error_code(
            err, -EINVAL, "bad_json", "the JSON is nested deeper than %u", r->api->limits.json_depth);
    doc = json_loadb(r->body ? r->body : "", r->body_size, JSON_REJECT_DUPLICATES, &where);
    if (!doc)
        return error_code(err, -EINVAL, "bad_json", "the body is not JSON: %s (line %d, column %d)",
            where.text, where.line, where.column);
    if (!json_is_object(doc)) {
        json_decref(doc);
        return error_code(err, -EINVAL, "bad_json", "the body is not a JSON object");
    }
    *ret = doc;
    return 0;
}

static bool is_listed(const char *keys, const char *key) {
    size_t len = strlen(key);

    while (*keys) {
        size_t n = strcspn(keys, " ");

        if (n == len && !memcmp(keys, key, n))
            return true;
        keys += n;
        keys += *keys == ' ';
    }
    return false;
}

int body_check_keys(const json_t *object, const char *keys, const char *path, struct error *err) {
    void *it = json_object_iter((json_t *)(uintptr_t)object);

    for (; it; it = json_object_iter_next((json_t *)(uintptr_t)object, it)) {
        const char *key = json_object_iter_key(it);

        if (!is_listed(keys, key))
            return error_code(
                err, -EINVAL, "unknown_field", "%s%s%.64s is not known here", path, *path ? "." : "", key);
    }
    return 0;
}
