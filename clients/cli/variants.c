#include <errno.h>
#include <string.h>

#include "clients/cli/cli.h"

static const struct column columns[] = {
    {"VARIANT", "name", CELL_TEXT},
    {"NO", "number", CELL_TEXT},
    {"STATE", "state", CELL_TEXT},
    {"FILE", "bytes_file", CELL_BYTES},
    {"MEMORY", "bytes_resident", CELL_BYTES},
    {"MACS", "macs", CELL_COUNT},
    {"ACCURACY", "evaluation.accuracy", CELL_PERCENT},
    {"P50", "latency.p50_us", CELL_MICROS},
    {"VERDICTS", "verdicts", CELL_TEXT},
};

static int run_variants(struct cli *c, const struct cli_args *a, struct error *err) {
    _cleanup_(freep) char *path = http_path(c->http, "/api/v1/models/%/variants?limit=1000", a->arg[0]);

    return cli_list(c, path, columns, sizeof(columns) / sizeof(columns[0]), err);
}

/* The server makes the table: one place decides what it says. */
static int run_compare(struct cli *c, const struct cli_args *a, struct error *err) {
    _cleanup_(freep) char *path = http_path(c->http, "/api/v1/models/%/comparison", a->arg[0]);
    struct http_request r = {.method = "GET", .path = path};
    struct http_reply reply;
    int rc;

    if (!path)
        return error_oom(err);
    r.header[0] = c->is_json ? "Accept: application/json" : "Accept: text/plain";
    rc = http_send(c->http, &r, &reply, err);
    if (rc == 0) {
        fwrite(reply.body.data ? reply.body.data : "", 1, reply.body.size, stdout);
        if (reply.body.size && reply.body.data[reply.body.size - 1] != '\n')
            putchar('\n');
    }
    http_reply_done(&reply);
    return rc;
}

const struct cli_command variants_commands[] = {
    {"variants", "MODEL", "lists the variants of a model", 1, 1, NULL, 0, run_variants},
    {"compare", "MODEL", "the comparison of a model's variants", 1, 1, NULL, 0, run_compare},
    {.name = NULL},
};
