#include "api/route.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *const method_names[] = {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"};

void route_each(void (*fn)(const struct route *row, void *ctx), void *ctx) {
    for (size_t f = 0; f < route_files_size; f++)
        for (const struct route *row = route_files[f]; row->path; row++)
            fn(row, ctx);
}

/* How well a row's path fits: 0 not at all, else larger for literal segments further left. "/" alone is one
 * empty segment. */
static unsigned path_score(const char *path, const struct request *r) {
    unsigned score = 1;
    size_t i = 0;

    while (*path) {
        size_t n = strcspn(++path, "/");
        bool is_param = path[0] == '{' && n > 2;

        if (is_param && path[n - 2] == '*')
            return i < r->n_segments && *r->segment[i] ? score << (REQUEST_MAX_SEGMENTS - i) : 0;
        if (i == r->n_segments)
            return 0;
        if (is_param ? !*r->segment[i] : strlen(r->segment[i]) != n || memcmp(r->segment[i], path, n) != 0)
            return 0;
        score = score * 2 + !is_param;
        path += n;
        i++;
    }
    return i == r->n_segments ? score << (REQUEST_MAX_SEGMENTS - i) : 0;
}

static void allow_add(char *allow, size_t size, const char *name) {
    size_t n = strlen(allow);

    if (!strstr(allow, name))
        snprintf(allow + n, size - n, "%s%s", n ? ", " : "", name);
}

enum route_result route_find(struct request *r, char *allow, size_t size) {
    unsigned best = 0, best_path = 0;
    const struct route *found = NULL;

    /* Two passes: the best path decides, so that a row with parameters is no way around a literal one. */
    for (size_t f = 0; f < route_files_size; f++)
        for (const struct route *row = route_files[f]; row->path; row++) {
            unsigned score = path_score(row->path, r);

            if (score > best_path)
                best_path = score;
        }
    if (!best_path)
        return ROUTE_NO_PATH;
    allow[0] = 0;
    for (size_t f = 0; f < route_files_size; f++)
        for (const struct route *row = route_files[f]; row->path; row++) {
            if (path_score(row->path, r) != best_path)
                continue;
            allow_add(allow, size, method_names[row->method]);
            if (row->method == HTTP_GET)
                allow_add(allow, size, "HEAD");
            if (row->method == (r->is_head ? HTTP_GET : r->method) && !best) {
                best = best_path;
                found = row;
            }
        }
    r->route = found;
    return found ? ROUTE_FOUND : ROUTE_NO_METHOD;
}

int route_resolve(struct request *r, struct reply *p, struct error *err) {
    char allow[96];

    switch (route_find(r, allow, sizeof(allow))) {
    case ROUTE_FOUND: return 0;
    case ROUTE_NO_METHOD:
        reply_header(p, "Allow", "%s", allow);
        return error_code(err, -EINVAL, "method_not_allowed", "this path knows only %s", allow);
    case ROUTE_NO_PATH: break;
    }
    return error_set(err, -ENOENT, "there is nothing at this path; /openapi.json lists what there is");
}

static bool enum_has(const char *values, const char *v) {
    size_t len = strlen(v);

    for (;;) {
        size_t n = strcspn(values, "|");

        if (n == len && !memcmp(values, v, n))
            return true;
        if (!values[n])
            return false;
        values += n + 1;
    }
}

static bool is_in_range(const struct query_param *q, const char *v) {
    char *end;
    double d;

    /* digits first: strtod alone would take "inf", "nan" and "0x1" */
    if (v[0] < '0' || v[0] > '9' ||
        strspn(v, q->type == QUERY_UINT ? "0123456789" : "0123456789.eE+-") != strlen(v))
        return false;
    d = strtod(v, &end);
    return !*end && d >= q->min && d <= q->max;
}

static int check_value(const struct query_param *q, const char *v, struct error *err) {
    switch (q->type) {
    case QUERY_STRING: return 0;
    case QUERY_NAME:
        if (request_is_name(v))
            return 0;
        return error_code(err, -EINVAL, "bad_name", "the query's '%s' is not a name", q->name);
    case QUERY_BOOL:
        if (!*v || enum_has("true|false|1|0", v))
            return 0;
        return error_set(err, -EINVAL, "the query's '%s' must be true or false", q->name);
    case QUERY_UINT:
    case QUERY_REAL:
        if (is_in_range(q, v))
            return 0;
        return error_set(
            err, -EINVAL, "the query's '%s' must be a number from %.15g to %.15g", q->name, q->min, q->max);
    case QUERY_ENUM:
        if (enum_has(q->values, v))
            return 0;
        return error_set(err, -EINVAL, "the query's '%s' must be one of %s", q->name, q->values);
    }
    return 0;
}

static const struct query_param *find_param(const struct route *row, const char *name) {
    for (size_t i = 0; i < ROUTE_MAX_QUERY && row->query[i].name; i++)
        if (!strcmp(row->query[i].name, name))
            return &row->query[i];
    return NULL;
}

int route_check_query(const struct request *r, struct error *err) {
    bool is_strict = r->n_segments && !strcmp(r->segment[0], "api");

    for (size_t i = 0; i < r->n_query; i++) {
        const struct query_param *q = find_param(r->route, r->query[i].name);
        int rc;

        if (!q && is_strict)
            return error_code(err, -EINVAL, "unknown_field", "the query has an unknown parameter '%.64s'",
                r->query[i].name);
        if (!q)
            continue;
        for (size_t j = 0; j < i; j++)
            if (!strcmp(r->query[j].name, q->name))
                return error_set(err, -EINVAL, "the query has '%s' twice", q->name);
        rc = check_value(q, r->query[i].value, err);
        if (rc)
            return rc;
    }
    return 0;
}

int route_run(struct request *r, struct reply *p, bool is_early) {
    int (*fn)(struct request *, struct reply *, struct error *) =
        is_early ? r->route->check : r->route->handle;
    struct error err = {0};
    int rc;

    if (!fn)
        return 0;
    rc = fn(r, p, &err);
    if (rc == REQUEST_PENDING)
        return rc;
    if (rc < 0 && !err.err)
        error_set(&err, rc, "%s", strerrordesc_np(-rc));
    if (!rc && !is_early && !p->status)
        rc = error_set(&err, -EPROTO, "the handler of this path gave no answer");
    if (rc < 0)
        reply_from_error(p, &err, r->id);
    return 0;
}
