/* The built-in page: three static files, embedded at build time. */
#include <stddef.h>

#include "api/etag.h"
#include "api/page_stamp.h" /* nothing but a dependency: of what is embedded below */
#include "api/routes.h"

/* The file's bytes stand in the program as NAME_data to NAME_end. */
#define EMBED(name, file)                                                                                    \
    __asm__(".pushsection .rodata\n" #name "_data: .incbin \"" PAGE_DIR "/" file "\"\n" #name                \
            "_end:\n.byte 0\n.popsection");                                                                  \
    extern const char name##_data[] __attribute__((visibility("hidden")));                                   \
    extern const char name##_end[] __attribute__((visibility("hidden")))

EMBED(page_html, "index.html");
EMBED(page_css, "style.css");
EMBED(page_js, "app.js");

/* Nothing from outside, no inline script, in no foreign frame. */
static int reply_page(
    struct request *r, struct reply *p, const char *type, const char *from, const char *to) {
    char etag[ETAG_MAX];

    etag_of_bytes(from, (size_t)(to - from), etag);
    reply_header(p, "Content-Security-Policy",
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' blob: data:; base-uri 'none'; form-action "
        "'none'; frame-ancestors 'none'");
    reply_header(p, "X-Content-Type-Options", "nosniff");
    reply_header(p, "Cache-Control", "no-cache");
    if (reply_unchanged(r, p, etag))
        return 0;
    return reply_static(p, 200, type, from, (size_t)(to - from));
}

static int get_page(struct request *r, struct reply *p, struct error *err) {
    (void)err;
    return reply_page(r, p, "text/html; charset=utf-8", page_html_data, page_html_end);
}

static int get_css(struct request *r, struct reply *p, struct error *err) {
    (void)err;
    return reply_page(r, p, "text/css; charset=utf-8", page_css_data, page_css_end);
}

static int get_js(struct request *r, struct reply *p, struct error *err) {
    (void)err;
    return reply_page(r, p, "text/javascript; charset=utf-8", page_js_data, page_js_end);
}

const struct route page_routes[] = {
    {.method = HTTP_GET,
        .path = "/",
        .handle = get_page,
        .id = "getPage",
        .summary = "The built-in page.",
        .statuses = "200 304",
        .produces = "text/html"},
    {.method = HTTP_GET,
        .path = "/style.css",
        .handle = get_css,
        .id = "getPageStyle",
        .summary = "The page's style.",
        .statuses = "200 304",
        .produces = "text/css"},
    {.method = HTTP_GET,
        .path = "/app.js",
        .handle = get_js,
        .id = "getPageScript",
        .summary = "The page's script.",
        .statuses = "200 304",
        .produces = "text/javascript"},
    {0},
};
