#include "api/guard.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

static bool is_odd_name(const char *name) {
    if (!*name)
        return true;
    for (const char *c = name; *c; c++)
        if ((unsigned char)*c <= 0x20 || (unsigned char)*c >= 0x7f || *c == ':')
            return true;
    return false;
}

static bool is_odd_value(const char *value) {
    for (const char *c = value; *c; c++)
        if (((unsigned char)*c < 0x20 && *c != '\t') || *c == 0x7f)
            return true;
    return false;
}

int guard_framing(const struct request *r, bool is_http10, struct error *err) {
    unsigned n_lengths = 0, n_codings = 0, n_hosts = 0;

    for (size_t i = 0; i < r->n_headers; i++) {
        const struct http_field *h = &r->header[i];

        if (is_odd_name(h->name) || is_odd_value(h->value))
            return error_set(
                err, -EINVAL, "a header's name or value holds a character that may not be there");
        n_lengths += !strcasecmp(h->name, "Content-Length");
        n_hosts += !strcasecmp(h->name, "Host");
        if (strcasecmp(h->name, "Transfer-Encoding") != 0)
            continue;
        n_codings++;
        if (strcasecmp(h->value, "chunked") != 0)
            return error_set(err, -EINVAL, "the only Transfer-Encoding known here is chunked");
    }
    if (n_lengths + n_codings > 1)
        return error_set(err, -EINVAL, "the length of the body is given more than once");
    if (n_hosts > 1 || (!n_hosts && !is_http10))
        return error_set(err, -EINVAL, "a request has exactly one Host header");
    return 0;
}

uint64_t guard_body_size(const struct request *r) {
    const char *length = request_header(r, "Content-Length");

    if (request_header(r, "Transfer-Encoding"))
        return UINT64_MAX;
    return length ? strtoull(length, NULL, 10) : 0;
}

/* Length of the host in "host[:port]", brackets of an IPv6 literal included; 0: not a host. */
static size_t host_length(const char *s) {
    size_t n;

    if (*s == '[') {
        n = strcspn(s, "]");
        return s[n] ? n + 1 : 0;
    }
    return strcspn(s, ":");
}

static bool is_ip_literal(const char *s, size_t n) {
    char text[INET6_ADDRSTRLEN];
    unsigned char addr[16];

    if (n > 2 && s[0] == '[' && n - 2 < sizeof(text)) {
        memcpy(text, s + 1, n - 2);
        text[n - 2] = 0;
        return inet_pton(AF_INET6, text, addr) == 1;
    }
    if (!n || n >= sizeof(text))
        return false;
    memcpy(text, s, n);
    text[n] = 0;
    return inet_pton(AF_INET, text, addr) == 1;
}

static bool is_listed(const char *const *list, const char *s, size_t n) {
    for (size_t i = 0; list && list[i]; i++)
        if (strlen(list[i]) == n && !strncasecmp(list[i], s, n))
            return true;
    return false;
}

int guard_host(const struct request *r, const struct guard_options *o, struct error *err) {
    static const char *const local[] = {"localhost", "localhost.", NULL};
    const char *host = request_header(r, "Host");
    size_t n = host ? host_length(host) : 0;

    if (!host) /* HTTP/1.0: no browser */
        return 0;
    if (host[n] == ':' ? strspn(host + n + 1, "0123456789") != strlen(host + n + 1) : host[n] != 0)
        n = 0;
    if (n && (is_ip_literal(host, n) || is_listed(local, host, n) || is_listed(o->server_names, host, n)))
        return 0;
    return error_code(err, -EPERM, "host_not_allowed",
        "the Host header is neither an address, localhost, nor one of server_names");
}

int guard_origin(const struct request *r, const struct guard_options *o, const char *scheme, const char **ret,
    struct error *err) {
    const char *origin = request_header(r, "Origin");
    const char *site = request_header(r, "Sec-Fetch-Site");
    const char *host = request_header(r, "Host");
    char own[320];

    if (origin && is_listed(o->origins, origin, strlen(origin))) {
        *ret = origin;
        return 0;
    }
    snprintf(own, sizeof(own), "%s://%s", scheme, host ? host : "");
    if ((origin && strcasecmp(origin, own) != 0) || (site && !strcasecmp(site, "cross-site")))
        return error_code(err, -EPERM, "origin_not_allowed",
            "requests of other sites' pages are refused; see the option 'origins'");
    *ret = NULL;
    return 0;
}
