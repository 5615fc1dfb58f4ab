#include "api/admit.h"

#include <errno.h>
#include <string.h>
#include <strings.h>

#include "api/api.h"
#include "config/config.h"

static uint64_t body_limit(const struct api *api, const struct route *row) {
    switch (row->limit) {
    case LIMIT_NONE:
    case LIMIT_SMALL: return EXCHANGE_DROP_MAX;
    case LIMIT_JSON: return api->limits.body_bytes;
    case LIMIT_MODEL: return api->limits.model_bytes;
    case LIMIT_DATASET: return api->limits.dataset_bytes;
    }
    return 0;
}

static bool is_preflight(const struct exchange *x) {
    return x->req.method == HTTP_OPTIONS && x->cors_origin &&
           request_header(&x->req, "Access-Control-Request-Method");
}

static int answer_preflight(struct exchange *x) {
    reply_header(&x->reply, "Access-Control-Allow-Methods", "GET, HEAD, POST, PUT, PATCH, DELETE");
    reply_header(&x->reply, "Access-Control-Allow-Headers",
        "Authorization, Content-Type, Content-Encoding, Content-Digest, Request-Id, Idempotency-Key, If-Match, "
        "If-None-Match, Inference-Header-Content-Length, Last-Event-ID, Range");
    reply_header(&x->reply, "Access-Control-Max-Age", "600");
    return reply_empty(&x->reply, 204);
}

/* What a route asks for, with the configuration seen. */
static unsigned needed_scope(const struct exchange *x) {
    const struct route *row = x->req.route;

    if (row->is_metrics && x->env->api->config && x->env->api->config->metrics_open)
        return SCOPE_OPEN;
    return row->scope;
}

/* With tokens, somebody unknown is told so on every path, existing or not. */
static int find_route(struct exchange *x, struct error *err) {
    struct error ignored = {0};

    if (!route_resolve(&x->req, &x->reply, &ignored))
        return auth_check(&x->req, needed_scope(x), err);
    if (!x->req.principal[0])
        return auth_check(&x->req, SCOPE_READ, err);
    return error_copy(err, &ignored);
}

static int check_body_headers(struct exchange *x, struct error *err) {
    const struct route *row = x->req.route;
    const char *type = request_header(&x->req, "Content-Type");
    int rc;

    x->limit = body_limit(x->env->api, row);
    if (x->declared != UINT64_MAX && x->declared > x->limit)
        return error_set(err, -EFBIG, "the body has %llu bytes, at most %llu are taken here",
            (unsigned long long)x->declared, (unsigned long long)x->limit);
    if (type && !strncasecmp(type, "multipart/form-data", 19))
        return error_code(err, -EINVAL, "unsupported_media_type",
            "multipart/form-data is not taken here: send the content itself as the body");
    rc = encoding_parse(request_header(&x->req, "Content-Encoding"), &x->coding, err);
    if (!rc && x->coding != ENCODING_NONE && row->body == BODY_DISK)
        rc = error_code(
            err, -EINVAL, "unsupported_media_type", "this body must be sent without Content-Encoding");
    return rc;
}

/* Takes a place among `most`; *is_counted says that exchange_free() gives it back. */
static int take_place(atomic_uint *n, unsigned most, bool *is_counted, const char *what, struct error *err) {
    *is_counted = true;
    if (atomic_fetch_add(n, 1) < most)
        return 0;
    return error_code(err, -EAGAIN, "too_busy", "%u %s at once are the most", most, what);
}

static int check_load(struct exchange *x, struct error *err) {
    struct api *api = x->env->api;
    const struct route *row = x->req.route;

    if (atomic_load(&api->is_draining) && row->method != HTTP_GET && !row->in_drain)
        return error_set(err, -ESHUTDOWN, "the daemon is shutting down");
    if (row->is_upload)
        return take_place(&api->n_uploads, api->limits.uploads, &x->is_counted_upload, "uploads", err);
    if (row->is_stream)
        return take_place(&api->n_streams, api->limits.streams, &x->is_counted_stream, "event streams", err);
    return 0;
}

int admit_request(struct exchange *x, const struct auth_peer *peer, struct error *err) {
    struct request *r = &x->req;
    int rc = 0;

    if (r->method == HTTP_HEAD) {
        r->is_head = true;
        r->method = HTTP_GET;
    }
    if (!peer->is_unix)
        rc = guard_host(r, &x->env->guard, err);
    if (!rc)
        rc = guard_origin(r, &x->env->guard, x->env->scheme, &x->cors_origin, err);
    if (!rc && is_preflight(x))
        return answer_preflight(x);
    if (!rc)
        rc = auth_identify(x->env->auth, peer, r, err);
    /* a wrong token does not close what is open to everybody */
    if (rc && err->code && !strcmp(err->code, "unauthorized")) {
        struct error ignored = {0};

        if (!route_resolve(r, &x->reply, &ignored) && needed_scope(x) == SCOPE_OPEN) {
            error_clear(err);
            rc = 0;
        }
    }
    if (!rc)
        rc = find_route(x, err);
    if (!rc)
        rc = route_check_query(r, err);
    if (!rc)
        rc = check_body_headers(x, err);
    return rc ? rc : check_load(x, err);
}
