/* Liveness and readiness, under the protocol's names and the usual short ones. */
#include "api/api.h"
#include "api/routes.h"

static bool is_ready(const struct api *api) {
    return atomic_load(&api->is_ready) && !atomic_load(&api->is_draining);
}

static int get_live(struct request *r, struct reply *p, struct error *err) {
    (void)r;
    return reply_json(p, 200, json_pack("{s:b}", "live", 1), err);
}

static int get_ready(struct request *r, struct reply *p, struct error *err) {
    bool ready = is_ready(r->api);

    if (!ready)
        reply_header(p, "Retry-After", "1");
    return reply_json(p, ready ? 200 : 503, json_pack("{s:b, s:b}", "ready", ready, "live", 1), err);
}

const struct route health_routes[] = {
    {.method = HTTP_GET,
        .path = "/healthz",
        .handle = get_live,
        .id = "getHealth",
        .summary = "The process answers.",
        .statuses = "200"},
    {.method = HTTP_GET,
        .path = "/readyz",
        .handle = get_ready,
        .id = "getReadiness",
        .summary = "Start-up loads are done and the daemon is not draining.",
        .statuses = "200 503"},
    {.method = HTTP_GET,
        .path = "/v2/health/live",
        .handle = get_live,
        .id = "getServerLive",
        .summary = "The process answers.",
        .statuses = "200"},
    {.method = HTTP_GET,
        .path = "/v2/health/ready",
        .handle = get_ready,
        .id = "getServerReady",
        .summary = "Start-up loads are done and the daemon is not draining.",
        .statuses = "200 503"},
    {0},
};
