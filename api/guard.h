/* What is refused from the headers alone, before any route is looked at.
 *
 * libmicrohttpd 0.9.75 lets through what makes request smuggling possible (two Content-Length, Content-Length
 * with Transfer-Encoding, codings other than chunked, odd header names); a browser's foreign page is stopped
 * by Host (DNS rebinding), Origin and Sec-Fetch-Site (api.md 8). */
#ifndef API_GUARD_H
#define API_GUARD_H

#include "api/request.h"

struct guard_options {
    const char *const *server_names; /* beside IP literals and localhost; ended by NULL */
    const char *const *origins;      /* configured for CORS; ended by NULL */
};

/* Framing; a failure must close the connection. `is_http10`: Host may be missing. bad_request. */
int guard_framing(const struct request *r, bool is_http10, struct error *err);

/* host_not_allowed. Not for Unix sockets. */
int guard_host(const struct request *r, const struct guard_options *o, struct error *err);

/* origin_not_allowed. `scheme` is "http" or "https". *ret: the origin to be named in Access-Control-Allow-
 * Origin, NULL when none was sent or it is the request's own. */
int guard_origin(const struct request *r, const struct guard_options *o, const char *scheme, const char **ret,
    struct error *err);

/* Bytes of body the headers declare; UINT64_MAX: chunked; 0: none. After guard_framing(). */
uint64_t guard_body_size(const struct request *r);

#endif
