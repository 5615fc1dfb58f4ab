/* Documents fetched and sent: what most commands do. */
#include <errno.h>
#include <string.h>

#include "clients/cli/body.h"
#include "clients/cli/cli.h"

/* Prints the reply with --json, else parses it. */
static int take_reply(struct cli *c, const struct http_reply *reply, json_t **ret, struct error *err) {
    json_error_t e;

    *ret = NULL;
    if (!reply->body.size)
        return 0;
    if (c->is_json) {
        fwrite(reply->body.data, 1, reply->body.size, stdout);
        if (reply->body.data[reply->body.size - 1] != '\n')
            putchar('\n');
        return 0;
    }
    *ret = json_loadb(reply->body.data, reply->body.size, 0, &e);
    return *ret ? 0 : error_set(err, -ECONNREFUSED, "the server's answer is not JSON: %s", e.text);
}

static int exchange(struct cli *c, const struct http_request *r, json_t **ret, struct error *err) {
    struct http_reply reply;
    int rc;

    *ret = NULL;
    if (!r->path)
        return error_oom(err);
    rc = http_send(c->http, r, &reply, err);
    if (rc == 0)
        rc = take_reply(c, &reply, ret, err);
    http_reply_done(&reply);
    return rc;
}

int cli_get(struct cli *c, const char *path, json_t **ret, struct error *err) {
    return exchange(c, &(struct http_request){.method = "GET", .path = path}, ret, err);
}

int cli_send(struct cli *c, const char *method, const char *path, const json_t *body, json_t **ret,
    struct error *err) {
    _cleanup_(freep) char *text = body ? json_dumps(body, JSON_COMPACT) : NULL;

    if (body && !text)
        return error_oom(err);
    return exchange(c,
        &(struct http_request){.method = method,
            .path = path,
            .body = text,
            .body_size = text ? strlen(text) : 0,
            .header = {"Content-Type: application/json"}},
        ret, err);
}

int cli_upload(struct cli *c, const char *path, const char *file, json_t **ret, struct error *err) {
    struct http_request r = {.method = "PUT", .path = path};
    int rc = body_open(file, &r.upload, &r.upload_size, err);

    if (rc < 0)
        return rc;
    rc = exchange(c, &r, ret, err);
    if (r.upload != stdin)
        fclose(r.upload);
    return rc;
}

int cli_list(struct cli *c, const char *path, const struct column *columns, size_t n, struct error *err) {
    _cleanup_(json_decrefp) json_t *list = NULL;
    int r = cli_get(c, path, &list, err);

    if (r == 0 && list)
        table_print(columns, n, json_object_get(list, "items"));
    return r;
}
