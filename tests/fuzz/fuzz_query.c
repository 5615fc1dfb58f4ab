/* A request target: parsed, looked up in the table, its query held against the row. The first line is the
 * target, what follows becomes headers. */
#include <stdlib.h>
#include <string.h>

#include "api/guard.h"
#include "api/route.h"
#include "tests/fuzz/fuzz.h"

static void check(struct request *r) {
    const struct guard_options options = {NULL, NULL};
    struct error err = {0};
    const char *origin;
    struct reply p;

    for (size_t i = 0; i < r->n_segments; i++)
        if (!strcmp(r->segment[i], "..") || strchr(r->segment[i], '/') ||
            strlen(r->segment[i]) > strlen(r->path))
            abort();
    reply_init(&p);
    if (!route_resolve(r, &p, &err))
        route_check_query(r, &err);
    error_clear(&err);
    guard_framing(r, false, &err);
    guard_host(r, &options, &err);
    guard_origin(r, &options, "http", &origin, &err);
    request_accepts(r, "text/csv");
    error_clear(&err);
    if (!reply_file(r, &p, -1, 1000, "text/plain", "tag", &err) && p.status == 206 &&
        (p.file_size == 0 || p.file_offset + p.file_size > 1000))
        abort();
    reply_done(&p);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    char *text = malloc(size + 1);
    struct error err = {0};
    struct request r;
    char *line, *save = NULL;

    if (!text)
        return 0;
    if (size)
        memcpy(text, data, size);
    text[size] = 0;
    request_init(&r);
    line = strtok_r(text, "\n", &save);
    if (line && !request_parse_target(&r, line, &err)) {
        while ((line = strtok_r(NULL, "\n", &save)) && r.n_headers < REQUEST_MAX_HEADERS) {
            char *colon = strchr(line, ':');

            if (colon)
                *colon = 0;
            r.header[r.n_headers++] = (struct http_field){line, colon ? colon + 1 : ""};
        }
        check(&r);
    }
    request_done(&r);
    free(text);
    return 0;
}
