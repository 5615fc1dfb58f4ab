#include "clients/cli/http.h"

#include <curl/curl.h>
#include <errno.h>
#include <jansson.h>
#include <stdarg.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

#define BODY_MAX ((size_t)1 << 31)

struct http {
    CURL *curl;
    char *base; /* without a slash at its end */
    char *unix_path;
    char *authorization; /* the header; NULL: none */
    char *ca_file;
};

struct transfer {
    struct http *http;
    const struct http_request *request;
    struct http_reply *reply;
    bool is_stopped; /* the sink said so */
};

static bool is_http_url(const char *url) {
    return !strncmp(url, "http://", 7) || !strncmp(url, "https://", 8);
}

/* -1: out of memory; a text that is not given stays NULL. */
static int copy(const char *text, char **ret) {
    *ret = text ? strdup(text) : NULL;
    return text && !*ret ? -1 : 0;
}

int http_new(const char *url, const char *token, const char *ca_file, struct http **ret, struct error *err) {
    _cleanup_(http_freep) struct http *h = calloc(1, sizeof(*h));
    bool is_unix = !strncmp(url, "unix:", 5);

    if (!h || curl_global_init(CURL_GLOBAL_DEFAULT) != 0)
        return error_oom(err);
    if (!is_unix && !is_http_url(url))
        return error_set(
            err, -EINVAL, "BONSAI_URL '%.128s' is neither http://…, https://… nor unix:PATH", url);
    h->curl = curl_easy_init();
    if (!h->curl || copy(is_unix ? "http://localhost" : url, &h->base) < 0 ||
        copy(is_unix ? url + 5 : NULL, &h->unix_path) < 0 || copy(ca_file, &h->ca_file) < 0)
        return error_oom(err);
    for (size_t size = strlen(h->base); size && h->base[size - 1] == '/';)
        h->base[--size] = 0;
    if (token && *token && asprintf(&h->authorization, "Authorization: Bearer %s", token) < 0) {
        h->authorization = NULL;
        return error_oom(err);
    }
    *ret = TAKE(h);
    return 0;
}

struct http *http_free(struct http *h) {
    if (!h)
        return NULL;
    curl_easy_cleanup(h->curl);
    free(h->base);
    free(h->unix_path);
    free(h->authorization);
    free(h->ca_file);
    free(h);
    return NULL;
}

void http_reply_done(struct http_reply *r) {
    buf_done(&r->body);
}

static size_t on_body(char *data, size_t size, size_t n, void *ctx) {
    struct transfer *t = ctx;
    long status = 0;

    curl_easy_getinfo(t->http->curl, CURLINFO_RESPONSE_CODE, &status);
    if (t->request->sink && status / 100 == 2) {
        t->is_stopped = t->request->sink(t->request->ctx, data, size * n) < 0;
        return t->is_stopped ? 0 : size * n;
    }
    return buf_append(&t->reply->body, data, size * n) == 0 ? size * n : 0;
}

static size_t on_header(char *data, size_t size, size_t n, void *ctx) {
    static const char name[] = "Inference-Header-Content-Length:";
    struct transfer *t = ctx;

    if (size * n > sizeof(name) && !strncasecmp(data, name, sizeof(name) - 1))
        t->reply->json_size = strtoul(data + sizeof(name) - 1, NULL, 10);
    return size * n;
}

static size_t on_upload(char *data, size_t size, size_t n, void *ctx) {
    struct transfer *t = ctx;
    size_t got = fread(data, 1, size * n, t->request->upload);

    return ferror(t->request->upload) ? CURL_READFUNC_ABORT : got;
}

/* One line on a terminal that is written over. */
static int on_progress(void *ctx, curl_off_t down_all, curl_off_t down, curl_off_t all, curl_off_t now) {
    const struct transfer *t = ctx;

    (void)down_all;
    (void)down;
    if (!t->request->upload || all <= 0 || !isatty(STDERR_FILENO))
        return 0;
    fprintf(stderr, "\rsent %.1f of %.1f MB (%.0f%%)%s", (double)now / 1e6, (double)all / 1e6,
        100.0 * (double)now / (double)all, now >= all ? ", the server checks it \n" : "  ");
    return 0;
}

/* What a server, or something between us and it, said without being 2xx. */
static int refused(const struct http_reply *r, struct error *err) {
    json_t *j = r->body.size ? json_loadb(r->body.data, r->body.size, 0, NULL) : NULL;
    const char *sentence = json_string_value(json_object_get(j, "error"));

    if (sentence)
        error_set(err, -EPROTO, "%s", sentence);
    else
        error_set(err, -EPROTO, "the server answered with status %ld", r->status);
    json_decref(j);
    return -EPROTO;
}

static struct curl_slist *header_list(const struct http *h, const struct http_request *r) {
    struct curl_slist *list = NULL;
    bool has_type = false;

    for (size_t i = 0; i < HTTP_MAX_HEADERS && r->header[i]; i++) {
        has_type = has_type || !strncmp(r->header[i], "Content-Type:", 13);
        list = curl_slist_append(list, r->header[i]);
    }
    if (!has_type) /* curl would call every body a form */
        list = curl_slist_append(list, "Content-Type: application/octet-stream");
    return h->authorization ? curl_slist_append(list, h->authorization) : list;
}

static void set_body(CURL *curl, struct transfer *t) {
    const struct http_request *r = t->request;

    if (r->upload) {
        curl_easy_setopt(curl, CURLOPT_UPLOAD, 1L);
        curl_easy_setopt(curl, CURLOPT_READFUNCTION, on_upload);
        curl_easy_setopt(curl, CURLOPT_READDATA, t);
        curl_easy_setopt(curl, CURLOPT_INFILESIZE_LARGE, (curl_off_t)r->upload_size);
        curl_easy_setopt(curl, CURLOPT_XFERINFOFUNCTION, on_progress);
        curl_easy_setopt(curl, CURLOPT_XFERINFODATA, t);
        curl_easy_setopt(curl, CURLOPT_NOPROGRESS, 0L);
    } else if (r->body || !strcmp(r->method, "POST")) {
        curl_easy_setopt(curl, CURLOPT_POSTFIELDS, r->body ? r->body : "");
        curl_easy_setopt(curl, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)r->body_size);
    }
    curl_easy_setopt(curl, CURLOPT_CUSTOMREQUEST, r->method);
}

static void set_common(CURL *curl, const struct http *h, struct transfer *t) {
    curl_easy_reset(curl);
    curl_easy_setopt(curl, CURLOPT_NOSIGNAL, 1L);
    curl_easy_setopt(curl, CURLOPT_CONNECTTIMEOUT, 10L);
    curl_easy_setopt(curl, CURLOPT_PROTOCOLS_STR, "http,https");
    curl_easy_setopt(curl, CURLOPT_WRITEFUNCTION, on_body);
    curl_easy_setopt(curl, CURLOPT_WRITEDATA, t);
    curl_easy_setopt(curl, CURLOPT_HEADERFUNCTION, on_header);
    curl_easy_setopt(curl, CURLOPT_HEADERDATA, t);
    if (h->ca_file)
        curl_easy_setopt(curl, CURLOPT_CAINFO, h->ca_file);
    if (h->unix_path) {
        curl_easy_setopt(curl, CURLOPT_UNIX_SOCKET_PATH, h->unix_path);
        curl_easy_setopt(curl, CURLOPT_PROXY, "");
    }
}

int http_send(struct http *h, const struct http_request *r, struct http_reply *ret, struct error *err) {
    struct transfer t = {.http = h, .request = r, .reply = ret};
    _cleanup_(freep) char *url = NULL;
    struct curl_slist *headers;
    CURLcode code;

    *ret = (struct http_reply){0};
    buf_init(&ret->body, BODY_MAX);
    if (asprintf(&url, "%s%s", h->base, r->path) < 0) {
        url = NULL;
        return error_oom(err);
    }
    headers = header_list(h, r);
    set_common(h->curl, h, &t);
    set_body(h->curl, &t);
    curl_easy_setopt(h->curl, CURLOPT_URL, url);
    curl_easy_setopt(h->curl, CURLOPT_HTTPHEADER, headers);
    code = curl_easy_perform(h->curl);
    curl_slist_free_all(headers);
    curl_easy_getinfo(h->curl, CURLINFO_RESPONSE_CODE, &ret->status);
    /* a refusal of an upload may come before its end: what was said counts more than how the sending ended */
    if (ret->status >= 300)
        return refused(ret, err);
    if (code != CURLE_OK && !t.is_stopped)
        return error_set(
            err, -ECONNREFUSED, "%s: %s", h->unix_path ? h->unix_path : h->base, curl_easy_strerror(code));
    return 0;
}

static int append_name(struct http *h, const char *name, struct buf *b) {
    char *escaped = curl_easy_escape(h->curl, name, 0);
    int r = escaped ? buf_puts(b, escaped) : -ENOMEM;

    curl_free(escaped);
    return r;
}

char *http_path(struct http *h, const char *pattern, ...) {
    struct buf b;
    va_list ap;
    int r = 0;

    buf_init(&b, 1 << 16);
    va_start(ap, pattern);
    for (; *pattern && r == 0; pattern++)
        r = *pattern == '%' ? append_name(h, va_arg(ap, const char *), &b) : buf_append(&b, pattern, 1);
    va_end(ap);
    if (r == 0)
        return buf_take(&b);
    buf_done(&b);
    return NULL;
}
